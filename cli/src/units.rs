//! Times and sizes as users write them.

use std::time::Duration;

/// `10s`, `250ms`, `2m`, `1h`, `1.5s`, `80us`, `5ns`; a number alone is seconds.
///
/// # Errors
/// It is none; the text says what to write.
pub fn duration(text: &str) -> Result<Duration, String> {
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let seconds = match unit.trim() {
        "ns" => 1e-9,
        "us" => 1e-6,
        "ms" => 1e-3,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => return Err(format!("'{text}' is no time: write 10s, 250ms, 2m or 1h")),
    };
    let number: f64 = number.parse().map_err(|_| format!("'{text}' is no time: write 10s, 250ms, 2m or 1h"))?;
    Duration::try_from_secs_f64(number * seconds).map_err(|_| format!("'{text}' is too long"))
}

/// `1G`, `512M`, `1.5GiB`, `1024` (MB): memory of a guest, in MB, of which it needs 16 at least.
///
/// # Errors
/// It is none; the text says what to write.
pub fn megabytes(text: &str) -> Result<u32, String> {
    let wrong = || format!("'{text}' is no size: write 1G, 512M, or a number of MB");
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = unit.trim().to_ascii_uppercase();
    let factor = match unit.trim_end_matches('B').trim_end_matches('I') {
        "M" | "" if unit != "B" => 1.0,
        "G" => 1024.0,
        "T" => 1024.0 * 1024.0,
        "K" => 1.0 / 1024.0,
        _ => return Err(wrong()),
    };
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let megabytes = (number * factor).round();
    if megabytes < 16.0 {
        return Err(format!("'{text}' is too little: a guest needs 16M at least"));
    }
    // A number of this size is exact, and the range is checked.
    if megabytes <= f64::from(u32::MAX) { Ok(megabytes as u32) } else { Err(format!("'{text}' is too much")) }
}

/// `1 hit`, `3 hits`.
#[must_use]
pub fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// `1.25 s`, `830 ms`, `12.5 us`: three digits or so.
#[must_use]
pub fn nanoseconds(ns: u128) -> String {
    let value = ns as f64;
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => format!("{:.1} us", value / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} ms", value / 1e6),
        _ => format!("{:.2} s", value / 1e9),
    }
}

/// The known word that `word` may be a slip of.
#[must_use]
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let most = (word.chars().count() / 3).max(1);
    let near = known.into_iter().map(|name| (distance(word, name), name));
    near.filter(|(distance, _)| *distance <= most).min_by_key(|(distance, _)| *distance).map(|(_, name)| name)
}

/// Insertions, deletions, replacements and swaps of neighbours from one to the other.
fn distance(one: &str, other: &str) -> usize {
    let letters = |text: &str| text.chars().take(64).collect::<Vec<_>>();
    let (one, other) = (letters(one), letters(other));
    let mut rows: Vec<Vec<usize>> = vec![(0..=other.len()).collect()];
    let at = |rows: &[Vec<usize>], i: usize, j: usize| rows.get(i).and_then(|row| row.get(j)).copied().unwrap_or(0);
    for (i, a) in one.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in other.iter().enumerate() {
            let replaced = at(&rows, i, j) + usize::from(a != b);
            let mut least = replaced.min(at(&rows, i, j + 1) + 1).min(row.last().copied().unwrap_or(0) + 1);
            let before = i.checked_sub(1).zip(j.checked_sub(1));
            if let Some((above, left)) = before
                && one.get(above) == Some(b)
                && other.get(left) == Some(a)
            {
                least = least.min(at(&rows, above, left) + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    at(&rows, one.len(), other.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (text, ns) in [
            ("10s", 10_000_000_000),
            ("250ms", 250_000_000),
            ("2m", 120_000_000_000),
            ("1.5", 1_500_000_000),
            ("5ns", 5),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_nanos(ns)), "{text}");
        }
        for bad in ["", "s", "10x", "-1s", "1e99", "1.2.3s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
        let shown: Vec<_> = [999, 12_500, 830_000_000, 1_250_000_000].map(nanoseconds).into();
        assert_eq!(shown, ["999 ns", "12.5 us", "830.0 ms", "1.25 s"]);
    }

    #[test]
    fn sizes_and_counts() {
        for (text, mb) in [
            ("1G", 1024),
            ("512M", 512),
            ("1024", 1024),
            ("1.5GiB", 1536),
            ("2gb", 2048),
            ("1 G", 1024),
            ("65536K", 64),
        ] {
            assert_eq!(megabytes(text), Ok(mb), "{text}");
        }
        for bad in ["", "G", "1X", "-1G", "1GG", "12B"] {
            assert_eq!(megabytes(bad), Err(format!("'{bad}' is no size: write 1G, 512M, or a number of MB")));
        }
        assert_eq!(megabytes("15"), Err("'15' is too little: a guest needs 16M at least".to_owned()));
        assert_eq!(megabytes("99999T"), Err("'99999T' is too much".to_owned()));
        assert_eq!([0, 1, 2].map(|count| counted(count, "hit")), ["0 hits", "1 hit", "2 hits"]);
    }

    #[test]
    fn slips() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!((distance("", "abc"), distance("tset", "test"), distance("ca", "abc")), (3, 1, 3));
        assert_eq!(nearest("kernal", ["init", "kernel"]), Some("kernel"));
        assert_eq!(nearest("zzz", ["init", "kernel"]), None);
    }
}
