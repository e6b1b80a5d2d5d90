//! Strings of the guest, made safe for a terminal and for JSON. The guest decides what is in them.
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

const HEX: &[u8; 16] = b"0123456789abcdef";

fn hex_digit(nibble: u8) -> u8 {
    HEX.get(usize::from(nibble & 15)).copied().unwrap_or(b'?')
}

/// Whether all of it is printable ASCII that stands for itself between quotes.
pub(super) fn is_plain(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| matches!(byte, b' '..=b'~') && *byte != b'"' && *byte != b'\\')
}

/// Writes `bytes` with `\n`, `\t`, `\r`, `\"`, `\\`, and `\xNN` for every other control byte and for what is not UTF-8.
pub(super) fn text(bytes: &[u8], out: &mut Vec<u8>) {
    if is_plain(bytes) {
        out.extend_from_slice(bytes);
        return;
    }
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\n' => out.extend_from_slice(b"\\n"),
                '\t' => out.extend_from_slice(b"\\t"),
                '\r' => out.extend_from_slice(b"\\r"),
                '"' => out.extend_from_slice(b"\\\""),
                '\\' => out.extend_from_slice(b"\\\\"),
                // C0, DEL, and C1: the latter are commands to some terminals, too.
                c if c.is_control() => c.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| hex_byte(byte, out)),
                c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        chunk.invalid().iter().for_each(|byte| hex_byte(*byte, out));
    }
}

fn hex_byte(byte: u8, out: &mut Vec<u8>) {
    out.extend_from_slice(&[b'\\', b'x', hex_digit(byte >> 4), hex_digit(byte)]);
}

/// The characters that stand for bytes which are not UTF-8, in JSON: byte 0xNN becomes U+EFNN.
const STAND_INS: std::ops::RangeInclusive<char> = '\u{ef80}'..='\u{efff}';

/// Writes `bytes` as the inside of a JSON string. Lossless: a byte that is not UTF-8 becomes `\uefNN`, and so do the
/// bytes of the characters U+EF80 to U+EFFF themselves, so that each `\uefNN` means one byte.
pub(super) fn json(bytes: &[u8], out: &mut Vec<u8>) {
    if is_plain(bytes) {
        out.extend_from_slice(bytes);
        return;
    }
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\n' => out.extend_from_slice(b"\\n"),
                '\t' => out.extend_from_slice(b"\\t"),
                '\r' => out.extend_from_slice(b"\\r"),
                '"' => out.extend_from_slice(b"\\\""),
                '\\' => out.extend_from_slice(b"\\\\"),
                c if STAND_INS.contains(&c) => {
                    c.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| unicode(0xef, byte, out));
                }
                c if c.is_control() => match u8::try_from(c) {
                    Ok(byte) => unicode(0, byte, out),
                    Err(_) => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
                },
                c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        chunk.invalid().iter().for_each(|byte| unicode(0xef, *byte, out));
    }
}

fn unicode(high: u8, low: u8, out: &mut Vec<u8>) {
    out.extend_from_slice(b"\\u");
    out.extend_from_slice(&[hex_digit(high >> 4), hex_digit(high), hex_digit(low >> 4), hex_digit(low)]);
}

/// Writes `0x` and the digits.
pub(super) fn hex(value: u64, out: &mut Vec<u8>) {
    let mut digits = [0; 18];
    let mut at = digits.len();
    let mut rest = value;
    for place in digits.iter_mut().rev() {
        *place = hex_digit(rest as u8);
        rest >>= 4;
        at -= 1;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(b"0x");
    out.extend_from_slice(digits.get(at..).unwrap_or_default());
}

#[cfg(test)]
#[allow(clippy::expect_used, reason = "tests")]
mod tests {
    use super::*;

    fn with(write: fn(&[u8], &mut Vec<u8>), bytes: &[u8]) -> String {
        let mut out = Vec::new();
        write(bytes, &mut out);
        String::from_utf8(out).expect("output is UTF-8")
    }

    #[test]
    fn terminals_are_safe() {
        assert_eq!(with(text, b"head"), "head");
        assert_eq!(with(text, b"a\"b\\c\n\t\r"), r#"a\"b\\c\n\t\r"#);
        assert_eq!(with(text, b"\x1b[2J\x07\x7f\x00"), r"\x1b[2J\x07\x7f\x00");
        assert_eq!(with(text, b"\xff\xfe"), r"\xff\xfe");
        assert_eq!(with(text, "gr\u{fc}n \u{9b}1m".as_bytes()), "gr\u{fc}n \\xc2\\x9b1m");
        assert_eq!(with(text, b"cut \xe2\x82"), r"cut \xe2\x82");
    }

    #[test]
    fn json_is_lossless() {
        assert_eq!(with(json, b"a\"b\\c\n\x1b"), r#"a\"b\\c\n\u001b"#);
        assert_eq!(with(json, b"\xff\x80"), r"\uefff\uef80");
        assert_eq!(with(json, "\u{fc}".as_bytes()), "\u{fc}");
        // U+EF80 is ee be 80.
        assert_eq!(with(json, "\u{ef80}".as_bytes()), r"\uefee\uefbe\uef80");
    }

    #[test]
    fn hexadecimal() {
        let show = |value| {
            let mut out = Vec::new();
            hex(value, &mut out);
            String::from_utf8(out).expect("ASCII")
        };
        assert_eq!(show(0), "0x0");
        assert_eq!(show(0x10), "0x10");
        assert_eq!(show(u64::MAX), "0xffffffffffffffff");
    }
}
