//! Group and event names: given, or made from the place.

use crate::arg::is_identifier;
use crate::diag::{self, Diagnostic, Words};

/// Longest group or event name.
const MAX_NAME: usize = 63;
/// The group of an event without one.
pub(super) const DEFAULT_GROUP: &str = "kprobes";

/// The names behind the colon of a definition's first word.
pub(super) struct Names<'a> {
    pub(super) group: Option<&'a str>,
    pub(super) event: Option<&'a str>,
}

fn is_group(name: &str) -> bool {
    let mut bytes = name.bytes();
    let is_start = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_' || byte == b'-';
    bytes.next().is_some_and(is_start) && bytes.all(|byte| is_start(byte) || byte.is_ascii_digit())
}

/// Parses `[GRP/][EVENT]`, `offset` bytes into the first word.
pub(super) fn parse<'a>(words: Words<'_>, text: &'a str, offset: usize) -> Result<Names<'a>, Diagnostic> {
    let error = |offset, problem| Err(words.error(0, offset, problem));
    let separator = text.find('/').or_else(|| text.find('.'));
    let (group, event, event_offset) = match separator {
        Some(0) => return error(offset, diag::NO_GROUP_NAME),
        Some(at) => (text.get(..at), text.get(at + 1..).unwrap_or_default(), offset + at + 1),
        None => (None, text, offset),
    };
    match group {
        Some(group) if group.len() > MAX_NAME => return error(offset, diag::GROUP_TOO_LONG),
        Some(group) if !is_group(group) => return error(offset, diag::BAD_GROUP_NAME),
        _ => {}
    }
    if event.is_empty() {
        // A group alone asks for an automatic name.
        return match group {
            Some(_) => Ok(Names { group, event: None }),
            None => error(event_offset, diag::NO_EVENT_NAME),
        };
    }
    if event.len() > MAX_NAME {
        return error(event_offset, diag::EVENT_TOO_LONG);
    }
    if !is_identifier(event) {
        return error(event_offset, diag::BAD_EVENT_NAME);
    }
    Ok(Names { group, event: Some(event) })
}

/// The name of an event that got none: `p_vfs_read_0`.
pub(super) fn automatic(is_return: bool, place: &str) -> String {
    let mut name = format!("{}_{place}", if is_return { 'r' } else { 'p' });
    let mut end = name.len().min(MAX_NAME);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name.truncate(end);
    // The first letter is ours.
    name.replace([':', '.', '*'], "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn automatic_names() {
        assert_eq!(automatic(false, "vfs_read_0"), "p_vfs_read_0");
        assert_eq!(automatic(true, "ext4:foo.isra.0_16"), "r_ext4_foo_isra_0_16");
        assert_eq!(automatic(false, &"x".repeat(100)).len(), 63);
    }

    #[test]
    fn group_alphabet() {
        for good in ["kprobes", "foo-x", "-x", "_9"] {
            assert!(is_group(good), "{good}");
        }
        for bad in ["", "9foo", "a b", "a.b", "ä"] {
            assert!(!is_group(bad), "{bad}");
        }
    }
}
