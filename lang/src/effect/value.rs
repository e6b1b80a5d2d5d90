//! An integer as a probe option takes it: `5`, `-1`, `0xfff`, `-ENOENT`, `ENOENT`.

use super::errno;
use crate::number::{self, Radix};
use crate::suggest;

/// The number behind `text`, from `i64::MIN` to `u64::MAX`: what a 64-bit register can be meant to hold.
///
/// # Errors
/// What to say, and what to write instead if known.
pub(crate) fn parse(text: &str) -> Result<i128, (String, Option<String>)> {
    let (negative, magnitude) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let found = if magnitude.starts_with('E') {
        let number = errno::number(magnitude).map(u64::from);
        number.ok_or_else(|| {
            let near = suggest::nearest(magnitude, errno::names());
            let sign = if negative { "-" } else { "" };
            (format!("'{magnitude}' is no error of Linux"), near.map(|near| format!("did you mean {sign}{near}?")))
        })?
    } else {
        let digits = magnitude.starts_with(|first: char| first.is_ascii_digit());
        let number = number::unsigned(magnitude, Radix::ByPrefix, 8).filter(|_| digits);
        let help = "a number is 5, -1, 0x1f or -ENOENT, of at most 64 bits";
        number.ok_or_else(|| (format!("'{text}' is no number"), Some(help.to_owned())))?
    };
    let value = if negative { -i128::from(found) } else { i128::from(found) };
    if value < i128::from(i64::MIN) {
        return Err((format!("'{text}' is less than {}", i64::MIN), None));
    }
    Ok(value)
}

/// How the bits of a value are meant, and so which values fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sign {
    Unsigned,
    Signed,
    /// Either reading may fit.
    Any,
}

/// The low `bytes` bytes of `value`, if these say it all.
///
/// # Errors
/// The least and the greatest value that fits.
pub(super) fn fit(value: i128, bytes: u8, sign: Sign) -> Result<u64, (i128, i128)> {
    let bits = u32::from(bytes.clamp(1, 8)) * 8;
    let (full, half) = (1_i128 << bits, 1_i128 << (bits - 1));
    let (least, greatest) = match sign {
        Sign::Unsigned => (0, full - 1),
        Sign::Signed => (-half, half - 1),
        Sign::Any => (-half, full - 1),
    };
    if !(least..=greatest).contains(&value) {
        return Err((least, greatest));
    }
    // Two's complement in `bits` bits; nothing is lost.
    Ok((value & (full - 1)) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings() {
        for (text, expected) in [
            ("0", 0),
            ("5", 5),
            ("-1", -1),
            ("0x1F", 31),
            ("-0x10", -16),
            ("ENOENT", 2),
            ("-ENOENT", -2),
            ("-EPROBE_DEFER", -517),
            ("18446744073709551615", 0xffff_ffff_ffff_ffff),
            ("-9223372036854775808", -0x8000_0000_0000_0000),
        ] {
            assert_eq!(parse(text), Ok(expected), "{text}");
        }
        for bad in ["", "-", "--1", "+1", "-+1", "1x", "0x", "18446744073709551616", "-9223372036854775809", "enoent"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        let error = parse("-ENOET").expect_err("a typo");
        assert_eq!(error, ("'ENOET' is no error of Linux".to_owned(), Some("did you mean -ENOENT?".to_owned())));
    }

    #[test]
    fn ranges() {
        assert_eq!(fit(255, 1, Sign::Unsigned), Ok(255));
        assert_eq!(fit(256, 1, Sign::Unsigned), Err((0, 255)));
        assert_eq!(fit(-1, 1, Sign::Unsigned), Err((0, 255)));
        assert_eq!(fit(-128, 1, Sign::Signed), Ok(0x80));
        assert_eq!(fit(128, 1, Sign::Signed), Err((-128, 127)));
        assert_eq!(fit(-1, 4, Sign::Any), Ok(0xffff_ffff));
        assert_eq!(fit(0xffff_ffff, 4, Sign::Any), Ok(0xffff_ffff));
        assert_eq!(fit(-2, 8, Sign::Any), Ok(0xffff_ffff_ffff_fffe));
    }
}
