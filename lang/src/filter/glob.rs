//! Patterns with `*`, `?`, `[a-z]`, `[!a-z]` and a backslash before a special character, over whole strings.
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

/// Whether all of `text` matches `pattern`. Takes at most `text.len() * pattern.len()` steps.
pub(super) fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut pattern, mut text) = (pattern, text);
    // Behind the last star seen: the pattern there, and the text that it was tried on.
    let mut retry: Option<(&[u8], &[u8])> = None;
    loop {
        if let [b'*', rest @ ..] = pattern {
            if rest.is_empty() {
                return true;
            }
            pattern = rest;
            retry = Some((rest, text));
            continue;
        }
        let step = match text {
            [] if pattern.is_empty() => return true,
            [] => return false,
            [byte, rest @ ..] => one(pattern, *byte).map(|pattern| (pattern, rest)),
        };
        (pattern, text) = match (step, retry) {
            (Some(next), _) => next,
            (None, Some((after_star, [_, tried @ ..]))) => {
                retry = Some((after_star, tried));
                (after_star, tried)
            }
            (None, _) => return false,
        };
    }
}

/// Matches one byte; returns the rest of the pattern.
fn one(pattern: &[u8], byte: u8) -> Option<&[u8]> {
    match pattern {
        [] => None,
        [b'?', rest @ ..] => Some(rest),
        [b'[', rest @ ..] => match class(rest, byte) {
            Some((true, rest)) => Some(rest),
            Some((false, _)) => None,
            // Without its end it is an ordinary bracket.
            None => (byte == b'[').then_some(rest),
        },
        [b'\\', quoted, rest @ ..] => (*quoted == byte).then_some(rest),
        [literal, rest @ ..] => (*literal == byte).then_some(rest),
    }
}

/// Whether `byte` is in the class whose text begins behind the bracket, and what follows the class.
fn class(text: &[u8], byte: u8) -> Option<(bool, &[u8])> {
    let (inverted, mut rest) = match text {
        [b'!', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    let mut found = false;
    let mut first = true;
    loop {
        rest = match rest {
            // A bracket in the first place is a member.
            [b']', rest @ ..] if !first => return Some((found != inverted, rest)),
            [low, b'-', high, rest @ ..] if *high != b']' => {
                found |= (*low..=*high).contains(&byte);
                rest
            }
            [member, rest @ ..] => {
                found |= *member == byte;
                rest
            }
            [] => return None,
        };
        first = false;
    }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns() {
        for (pattern, text) in [
            ("", ""),
            ("*", ""),
            ("*", "abc"),
            ("a*c", "abbbc"),
            ("a*c", "ac"),
            ("*.conf", "x.conf.conf"),
            ("?b?", "abc"),
            ("[a-c]x", "bx"),
            ("[!a-c]x", "dx"),
            ("[]]", "]"),
            ("[a", "[a"),
            ("\\*", "*"),
            ("a**b*", "axxb"),
        ] {
            assert!(matches(pattern.as_bytes(), text.as_bytes()), "{pattern} {text}");
        }
        for (pattern, text) in [
            ("", "a"),
            ("a", ""),
            ("a*c", "abd"),
            ("?", ""),
            ("[a-c]", "d"),
            ("[!a]", "a"),
            ("\\*", "a"),
            ("abc", "abcd"),
        ] {
            assert!(!matches(pattern.as_bytes(), text.as_bytes()), "{pattern} {text}");
        }
    }

    #[test]
    fn many_stars_stay_cheap() {
        let pattern = "*a".repeat(100);
        let text = "a".repeat(99).into_bytes();
        assert!(!matches(pattern.as_bytes(), &text));
        assert!(!matches("a*".repeat(120).as_bytes(), &[b'b'; 4000]));
    }
}
