//! Bytes of the guest, fit for a terminal: no control byte but the line break passes.

use std::fmt::Write as _;

/// One line of a console or a trace. Tabs become blanks, a carriage return at the end goes, everything else that is not
/// printable becomes `\xNN`, as does what is not UTF-8.
#[must_use]
pub fn line(bytes: &[u8]) -> String {
    let mut bytes = bytes;
    while let Some((b'\r' | b'\n', rest)) = bytes.split_last() {
        bytes = rest;
    }
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\t' => out.push_str("    "),
                c if is_harmful(c) => c.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| hex(byte, &mut out)),
                c => out.push(c),
            }
        }
        chunk.invalid().iter().for_each(|byte| hex(*byte, &mut out));
    }
    out
}

/// Several lines, each escaped.
#[must_use]
pub fn lines(bytes: &[u8]) -> Vec<String> {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    if bytes.is_empty() { Vec::new() } else { bytes.split(|byte| *byte == b'\n').map(line).collect() }
}

/// Control characters (C0, DEL, C1), and what turns the direction of the text or hides it.
fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

fn hex(byte: u8, out: &mut String) {
    // Writing to a string cannot fail.
    let _ = write!(out, "\\x{byte:02x}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_guest_commands_the_terminal() {
        assert_eq!(line(b"[    0.1] Linux\r\n"), "[    0.1] Linux");
        assert_eq!(line(b"\x1b[2J\x1b]0;x\x07"), r"\x1b[2J\x1b]0;x\x07");
        assert_eq!(line("gr\u{fc}n \u{9b}31m \u{202e}".as_bytes()), r"grün \xc2\x9b31m \xe2\x80\xae");
        assert_eq!(line(b"a\tb\rc\xff"), r"a    b\x0dc\xff");
        assert_eq!(lines(b"a\r\n\nb"), ["a", "", "b"]);
        assert!(lines(b"").is_empty());
    }
}
