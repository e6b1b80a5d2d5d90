//! Bytes of the guest, fit for a terminal: no control byte but the line break passes.

use std::fmt::Write as _;

use anstyle_parse::state::{State, state_change};

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

/// One line of the guest's console. Sequences that command a terminal (colours, SeaBIOS' clearing of the screen) go as a whole;
/// the rest is as with [`line`], what begins like a sequence and has no end included.
#[must_use]
pub fn console_line(bytes: &[u8]) -> String {
    line(&without_sequences(bytes))
}

/// Several lines, each escaped.
#[must_use]
pub fn lines(bytes: &[u8]) -> Vec<String> {
    each_line(bytes, line)
}

/// Several lines of the guest's console.
#[must_use]
pub fn console_lines(bytes: &[u8]) -> Vec<String> {
    each_line(bytes, console_line)
}

fn each_line(bytes: &[u8], escaped: fn(&[u8]) -> String) -> Vec<String> {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    if bytes.is_empty() { Vec::new() } else { bytes.split(|byte| *byte == b'\n').map(escaped).collect() }
}

fn without_sequences(bytes: &[u8]) -> Vec<u8> {
    let mut kept = Vec::with_capacity(bytes.len());
    let (mut state, mut start) = (State::Ground, 0);
    for byte in bytes {
        let is_text = state == State::Ground && *byte != ESCAPE;
        if state == State::Ground {
            start = kept.len();
        }
        kept.push(*byte);
        if is_text {
            continue;
        }
        // `Anywhere` is the parser's word for the state that it is in.
        state = match state_change(state, *byte).0 {
            State::Anywhere => state,
            next => next,
        };
        if state == State::Ground {
            kept.truncate(start);
        }
    }
    kept
}

const ESCAPE: u8 = 0x1b;

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

    #[test]
    fn sequences_go_and_what_is_none_is_escaped() {
        // What SeaBIOS says first.
        assert_eq!(console_line(b"\x1bc\x1b[?7l\x1b[2J\x1b[0mSeaBIOS (version 1.17)\r\n"), "SeaBIOS (version 1.17)");
        assert_eq!(console_line(b"\x1b[31mred\x1b[0m \x1b]0;title\x07a\x1b]2;b\x1b\\c \x1b(Bd"), "red ac d");
        assert_eq!(console_line("\x1b[1;32mgr\u{fc}n\x1b[m \u{9b}31m".as_bytes()), r"grün \xc2\x9b31m");
        assert_eq!(console_line(b"bell \x07, no end \x1b[31"), r"bell \x07, no end \x1b[31");
        assert_eq!(console_line(b"\x1b]text that would be hidden"), r"\x1b]text that would be hidden");
        assert_eq!(console_lines(b"a\x1b[\n31mb\r\n\x1b[0mc"), [r"a\x1b[", "31mb", "c"]);
        assert!(console_lines(b"").is_empty());
    }
}
