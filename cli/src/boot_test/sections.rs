//! A test file in two: its probes for the language that knows them, the rest for this crate. What belongs to the other is
//! blanked, line by line, so that every message names the right line.

use std::ops::Range;

/// The text with the `[[probe]]` tables only, and the text without them.
pub(crate) fn split(text: &str) -> (String, String) {
    let (mut probes, mut rest) = (String::with_capacity(text.len()), String::with_capacity(text.len()));
    let mut at = 0;
    let mut in_probe = false;
    for header in headers(text) {
        copy(text.get(at..header.start).unwrap_or_default(), in_probe, &mut probes, &mut rest);
        at = header.start;
        let name = text.get(header).unwrap_or_default().trim_matches(['[', ']', ' ', '\t']);
        in_probe = name == "probe";
    }
    copy(text.get(at..).unwrap_or_default(), in_probe, &mut probes, &mut rest);
    (probes, rest)
}

fn copy(piece: &str, in_probe: bool, probes: &mut String, rest: &mut String) {
    let (mine, other) = if in_probe { (probes, rest) } else { (rest, probes) };
    mine.push_str(piece);
    other.extend(piece.bytes().filter(|byte| *byte == b'\n').map(char::from));
}

/// Adds a line to some tables, right behind their headers.
pub(crate) fn with_lines(text: &str, line: impl Fn(usize) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    for (index, header) in headers(text).into_iter().enumerate() {
        let end =
            text.get(header.end..).and_then(|rest| rest.find('\n')).map_or(text.len(), |len| header.end + len + 1);
        out.push_str(text.get(at..end).unwrap_or_default());
        out.extend(line(index).map(|line| line + "\n"));
        at = end;
    }
    out.push_str(text.get(at..).unwrap_or_default());
    out
}

/// Whether the text has a table of this name.
pub(crate) fn has(text: &str, names: &[&str]) -> bool {
    headers(text).into_iter().any(|header| {
        let name = text.get(header).unwrap_or_default().trim_matches(['[', ']', ' ', '\t']);
        names.contains(&name.split('.').next().unwrap_or_default().trim())
    })
}

/// Where table headers stand: a bracket at a line's start, outside of strings and of values that go over several lines.
fn headers(text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut depth = 0_usize;
    let mut line_start = true;
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let at = text.len() - rest.len();
        let step = match c {
            '"' | '\'' => string_len(rest, c),
            '#' => rest.find('\n').unwrap_or(rest.len()),
            '[' if line_start && depth == 0 => {
                let len = rest.find('\n').unwrap_or(rest.len());
                let line = rest.get(..len).unwrap_or_default();
                // A comment may follow.
                let len = line.rfind(']').map_or(len, |end| end + 1);
                let len = line.find('#').map_or(len, |comment| len.min(comment));
                found.push(at..at + len);
                len.max(1)
            }
            '[' | '{' => {
                depth += 1;
                1
            }
            ']' | '}' => {
                depth = depth.saturating_sub(1);
                1
            }
            c => c.len_utf8(),
        };
        line_start = match c {
            '\n' => true,
            ' ' | '\t' | '\r' => line_start,
            _ => false,
        };
        rest = rest.get(step..).unwrap_or_default();
    }
    found
}

/// The length of the string that `text` begins with.
fn string_len(text: &str, quote: char) -> usize {
    let triple: String = std::iter::repeat_n(quote, 3).collect();
    let (mark, start) = if text.starts_with(&triple) { (triple.as_str(), 3) } else { (&triple[..1], 1) };
    let mut at = start;
    loop {
        let rest = text.get(at..).unwrap_or_default();
        match rest.chars().next() {
            None => return text.len(),
            Some('\\') if quote == '"' => at += 1 + rest.chars().nth(1).map_or(0, char::len_utf8),
            // A string of one line that has no end is a mistake; the parser tells.
            Some('\n') if mark.len() == 1 => return at,
            Some(_) if rest.starts_with(mark) => return at + mark.len(),
            Some(c) => at += c.len_utf8(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_keep_their_numbers() {
        let text = "# head\n[guest]\nargs = [\n  [1],\n[2]]\n[[probe]] # one\ndef = '''\n[[probe]]\n[x]'''\n\n[ test ]\nname = \"\"\"a\\\"\n\
                    [[probe]]\"\"\"\n[[probe]]\ndef = \"p f\"\n";
        let (probes, rest) = split(text);
        assert_eq!(
            probes,
            "\n\n\n\n\n[[probe]] # one\ndef = '''\n[[probe]]\n[x]'''\n\n\n\n\n[[probe]]\ndef = \"p f\"\n"
        );
        assert_eq!(probes.lines().count(), text.lines().count());
        assert_eq!(rest.lines().next(), Some("# head"));
        assert!(rest.contains("[ test ]\nname = \"\"\"a\\\"\n[[probe]]\"\"\"\n") && !rest.contains("def"));
        assert!(has(text, &["test"]) && !has(text, &["expect"]) && has("[guest.files]\n", &["guest"]));
    }

    #[test]
    fn lines_are_added_behind_headers() {
        let text = "\n[[probe]] # x\ndef = 'a'\n[[probe]]\ndef = 'b'\n";
        let added = with_lines(text, |index| (index == 1).then(|| "seed = 3".to_owned()));
        assert_eq!(added, "\n[[probe]] # x\ndef = 'a'\n[[probe]]\nseed = 3\ndef = 'b'\n");
    }

    #[test]
    fn any_text_is_split_without_a_panic() {
        for text in ["", "[", "[[probe", "'''", "\"\\", "[[probe]]\n\"", "{[\n[probe]]", "\u{e4}[\u{e4}]\n[\u{e4}"] {
            let (probes, rest) = split(text);
            assert_eq!(probes.lines().count().max(rest.lines().count()), text.lines().count(), "{text:?}");
        }
    }
}
