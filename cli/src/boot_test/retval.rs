//! What a function must return: a number, an errno's name, a comparison.

use serde::{Deserialize, Deserializer, de};

/// `retval = -2`, `"-ENOENT"`, `">= 0"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retval {
    /// As it was written.
    pub text: String,
    /// Which comparison.
    pub compare: Compare,
    /// With what.
    pub value: i64,
}

/// A comparison of signed numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compare {
    /// `==`
    Eq,
    /// `!=`
    Ne,
    /// `<`
    Lt,
    /// `<=`
    Le,
    /// `>`
    Gt,
    /// `>=`
    Ge,
}

impl Retval {
    /// Whether a returned value is as it should be.
    #[must_use]
    pub fn holds(&self, found: i64) -> bool {
        match self.compare {
            Compare::Eq => found == self.value,
            Compare::Ne => found != self.value,
            Compare::Lt => found < self.value,
            Compare::Le => found <= self.value,
            Compare::Gt => found > self.value,
            Compare::Ge => found >= self.value,
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let ops = [
            ("==", Compare::Eq),
            ("!=", Compare::Ne),
            ("<=", Compare::Le),
            (">=", Compare::Ge),
            ("<", Compare::Lt),
            (">", Compare::Gt),
        ];
        let found = ops.iter().find_map(|(op, compare)| Some((text.trim().strip_prefix(op)?, *compare)));
        let (number, compare) = found.unwrap_or((text.trim(), Compare::Eq));
        let number = number.trim();
        let (negative, digits) = number.strip_prefix('-').map_or((false, number), |digits| (true, digits));
        let value = match digits.strip_prefix("0x") {
            Some(hex) => i64::from_str_radix(hex, 16).ok(),
            None if digits.starts_with('E') => errno(digits),
            None => digits.parse().ok(),
        }?;
        Some(Self { text: text.to_owned(), compare, value: if negative { -value } else { value } })
    }
}

/// Linux's `include/uapi/asm-generic/errno*.h`, as far as calls return them often. (sparc64 has other numbers above 34.)
fn errno(name: &str) -> Option<i64> {
    let known = [
        ("EPERM", libc::EPERM),
        ("ENOENT", libc::ENOENT),
        ("EINTR", libc::EINTR),
        ("EIO", libc::EIO),
        ("ENXIO", libc::ENXIO),
        ("E2BIG", libc::E2BIG),
        ("ENOEXEC", libc::ENOEXEC),
        ("EBADF", libc::EBADF),
        ("ECHILD", libc::ECHILD),
        ("EAGAIN", libc::EAGAIN),
        ("ENOMEM", libc::ENOMEM),
        ("EACCES", libc::EACCES),
        ("EFAULT", libc::EFAULT),
        ("EBUSY", libc::EBUSY),
        ("EEXIST", libc::EEXIST),
        ("EXDEV", libc::EXDEV),
        ("ENODEV", libc::ENODEV),
        ("ENOTDIR", libc::ENOTDIR),
        ("EISDIR", libc::EISDIR),
        ("EINVAL", libc::EINVAL),
        ("ENFILE", libc::ENFILE),
        ("EMFILE", libc::EMFILE),
        ("ENOTTY", libc::ENOTTY),
        ("EFBIG", libc::EFBIG),
        ("ENOSPC", libc::ENOSPC),
        ("ESPIPE", libc::ESPIPE),
        ("EROFS", libc::EROFS),
        ("EPIPE", libc::EPIPE),
        ("ERANGE", libc::ERANGE),
        ("EDEADLK", libc::EDEADLK),
        ("ENAMETOOLONG", libc::ENAMETOOLONG),
        ("ENOSYS", libc::ENOSYS),
        ("ENOTEMPTY", libc::ENOTEMPTY),
        ("ELOOP", libc::ELOOP),
        ("EOVERFLOW", libc::EOVERFLOW),
        ("EOPNOTSUPP", libc::EOPNOTSUPP),
        ("ETIMEDOUT", libc::ETIMEDOUT),
        ("EINPROGRESS", libc::EINPROGRESS),
    ];
    known.iter().find(|(known, _)| *known == name).map(|(_, number)| i64::from(*number))
}

impl<'de> Deserialize<'de> for Retval {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Number(i64),
            Text(String),
        }
        match Form::deserialize(deserializer)? {
            Form::Number(value) => Ok(Self { text: value.to_string(), compare: Compare::Eq, value }),
            Form::Text(text) => Self::parse(&text).ok_or_else(|| {
                de::Error::custom(format!("'{text}' is no return value: write -2, \"-ENOENT\", \">= 0\" or \"!= 0\""))
            }),
        }
    }
}

/// A register's value as what a function returned. A function that returns `int` leaves the upper half of the register 0, so
/// that -2 looks like 4294967294: what would be an errno as 32 bits is taken for one.
pub(crate) fn returned(register: i128) -> i64 {
    const ERRNOS: std::ops::RangeInclusive<i128> = 0xffff_f001..=0xffff_ffff;
    let value = register as i64;
    if ERRNOS.contains(&register) { value - (1 << 32) } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn return_values() {
        let holds = |text: &str, value| Retval::parse(text).expect("a value").holds(value);
        assert!(holds("0", 0) && holds("-ENOENT", -2) && holds(">= 0", 3) && holds("!=0", -1) && holds("<-0x1", -2));
        assert!(!holds("0", 1) && !holds("< 0", 0) && !holds("-EAGAIN", -2));
        assert_eq!(Retval::parse("ENO"), None);
    }

    #[test]
    fn registers() {
        let values =
            [0, 3, -2, 0xffff_fffe, 0xffff_ffff_ffff_fffe, 0xffff_f001, 0xffff_f000, 0x1_0000_0000].map(returned);
        assert_eq!(values, [0, 3, -2, -2, -2, -4095, 0xffff_f000, 0x1_0000_0000]);
    }
}
