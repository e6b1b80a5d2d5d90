//! How often an event has to hit.

use serde::{Deserialize, Deserializer, de};

/// `hits = 3`, `"3..5"`, `">=1"`, `"<=4"`: from and to, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// At least.
    pub least: u64,
    /// At most.
    pub most: u64,
}

impl Count {
    pub(crate) const ANY: Self = Self { least: 1, most: u64::MAX };

    fn parse(text: &str) -> Option<Self> {
        let number = |text: &str| text.trim().parse::<u64>().ok();
        let text = text.trim();
        if let Some((least, most)) = text.split_once("..") {
            let most = most.trim_start_matches('=');
            let most = if most.trim().is_empty() { u64::MAX } else { number(most)? };
            return Some(Self { least: number(least)?, most }).filter(|count| count.least <= count.most);
        }
        for (op, make) in [
            (">=", (|n| Self { least: n, most: u64::MAX }) as fn(u64) -> Self),
            ("<=", |n| Self { least: 0, most: n }),
            (">", |n| Self { least: n.saturating_add(1), most: u64::MAX }),
            ("==", |n| Self { least: n, most: n }),
        ] {
            if let Some(rest) = text.strip_prefix(op) {
                return number(rest).map(make);
            }
        }
        number(text).map(|n| Self { least: n, most: n })
    }

    pub(crate) fn contains(self, hits: u64) -> bool {
        (self.least..=self.most).contains(&hits)
    }
}

impl std::fmt::Display for Count {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.least, self.most) {
            (least, most) if least == most => write!(f, "exactly {least}"),
            (least, u64::MAX) => write!(f, "at least {least}"),
            (0, most) => write!(f, "at most {most}"),
            (least, most) => write!(f, "{least} to {most}"),
        }
    }
}

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Number(u64),
            Text(String),
        }
        match Form::deserialize(deserializer)? {
            Form::Number(n) => Ok(Self { least: n, most: n }),
            Form::Text(text) => Self::parse(&text).ok_or_else(|| {
                de::Error::custom(format!("'{text}' is no number of hits: write 3, \"3..5\", \">=1\" or \"<=4\""))
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_hits() {
        let count = |text: &str| Count::parse(text).map(|count| (count.least, count.most));
        assert_eq!(count("3"), Some((3, 3)));
        assert_eq!(count("3..5"), Some((3, 5)));
        assert_eq!(count("3.."), Some((3, u64::MAX)));
        assert_eq!(count(">= 2"), Some((2, u64::MAX)));
        assert_eq!(count("<=4"), Some((0, 4)));
        assert_eq!(count("> 4"), Some((5, u64::MAX)));
        for bad in ["", "5..3", "x", "-1", ">=x"] {
            assert_eq!(count(bad), None, "{bad}");
        }
    }
}
