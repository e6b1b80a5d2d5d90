//! Integers as the kernel's `kstrto*` functions read them: the whole text, `0x` and octal prefixes, one optional sign.

/// Base 0 (by prefix) or 10.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Radix {
    /// `0x` hexadecimal, a leading `0` octal, else decimal.
    ByPrefix,
    /// Decimal, leading zeros included.
    Decimal,
}

/// Digits only, no sign.
fn digits(text: &str, radix: Radix) -> Option<u64> {
    let bytes = text.as_bytes();
    let (digits, base) = match (radix, bytes) {
        (Radix::ByPrefix, [b'0', b'x' | b'X', first, ..]) if first.is_ascii_hexdigit() => (text.get(2..)?, 16),
        (Radix::ByPrefix, [b'0', _, ..]) => (text, 8),
        _ => (text, 10),
    };
    // `from_str_radix` would accept a sign.
    if !digits.as_bytes().first()?.is_ascii_alphanumeric() {
        return None;
    }
    u64::from_str_radix(digits, base).ok()
}

fn fits(value: u64, word_bytes: usize) -> bool {
    word_bytes >= 8 || value <= u64::from(u32::MAX)
}

/// An unsigned long of the guest; a leading `+` is allowed.
pub(crate) fn unsigned(text: &str, radix: Radix, word_bytes: usize) -> Option<u64> {
    let value = digits(text.strip_prefix('+').unwrap_or(text), radix)?;
    fits(value, word_bytes).then_some(value)
}

/// A signed long of the guest.
pub(crate) fn signed(text: &str, word_bytes: usize) -> Option<i64> {
    let value = match text.strip_prefix('-') {
        Some(rest) => 0_i64.checked_sub_unsigned(digits(rest, Radix::ByPrefix)?)?,
        None => i64::try_from(digits(text.strip_prefix('+').unwrap_or(text), Radix::ByPrefix)?).ok()?,
    };
    (word_bytes >= 8 || i32::try_from(value).is_ok()).then_some(value)
}

/// The number at the start of `text` (as `simple_strtoul` with base 0) and what follows it; saturates.
pub(crate) fn leading(text: &str) -> (u64, &str) {
    let bytes = text.as_bytes();
    let (start, base) = match bytes {
        [b'0', b'x' | b'X', first, ..] if first.is_ascii_hexdigit() => (2, 16_u64),
        [b'0', ..] => (0, 8),
        _ => (0, 10),
    };
    let mut end = start;
    let mut value = 0_u64;
    for byte in bytes.iter().skip(start) {
        let Some(digit) = char::from(*byte).to_digit(16).map(u64::from).filter(|digit| *digit < base) else { break };
        value = value.saturating_mul(base).saturating_add(digit);
        end += 1;
    }
    (value, text.get(end..).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_and_signs() {
        assert_eq!(unsigned("0x10", Radix::ByPrefix, 8), Some(16));
        assert_eq!(unsigned("010", Radix::ByPrefix, 8), Some(8));
        assert_eq!(unsigned("010", Radix::Decimal, 8), Some(10));
        assert_eq!(unsigned("+7", Radix::ByPrefix, 8), Some(7));
        assert_eq!(unsigned("0", Radix::ByPrefix, 8), Some(0));
        assert_eq!(unsigned("0xffffffffffffffff", Radix::ByPrefix, 8), Some(u64::MAX));
        for bad in ["", "+", "-1", "++1", "+-1", "0x", "08", "1a", " 1", "0x1ffffffffffffffff"] {
            assert_eq!(unsigned(bad, Radix::ByPrefix, 8), None, "{bad}");
        }
        assert_eq!(unsigned("0x100000000", Radix::ByPrefix, 4), None);
    }

    #[test]
    fn signed_range() {
        assert_eq!(signed("-0x8000000000000000", 8), Some(i64::MIN));
        assert_eq!(signed("-0x8000000000000001", 8), None);
        assert_eq!(signed("0x8000000000000000", 8), None);
        assert_eq!(signed("+5", 8), Some(5));
        assert_eq!(signed("--5", 8), None);
        assert_eq!(signed("-0x80000001", 4), None);
    }

    #[test]
    fn leading_stops_at_the_first_other_byte() {
        assert_eq!(leading("10@8"), (10, "@8"));
        assert_eq!(leading("0x1f/"), (31, "/"));
        assert_eq!(leading("@"), (0, "@"));
    }
}
