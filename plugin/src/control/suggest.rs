//! "Did you mean": for commands and keys. The lists are short and the words are clipped, so no request is costly.

/// The name nearest to `wanted`, as the end of a sentence; all names where none is near.
pub(super) fn hint(wanted: &str, names: &[&str]) -> String {
    let most = (wanted.chars().count() / 3).max(1);
    let near = names.iter().map(|name| (distance(wanted, name), name)).min();
    match near {
        Some((distance, name)) if distance <= most => format!("did you mean '{name}'?"),
        _ if names.is_empty() => "it takes none".to_owned(),
        _ => format!("these exist: {}", names.join(", ")),
    }
}

/// A user's word as a message shows it: not longer than a line, and without control characters.
pub(super) fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(60).map(|c| if c.is_control() { '?' } else { c }).collect();
    if shown.len() < text.len() {
        shown.push_str("...");
    }
    shown
}

/// Insertions, deletions, replacements and swaps of neighbours. Only the first 40 characters count.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(40).collect();
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    let mut x_before = None;
    for (i, x) in a.chars().take(40).enumerate() {
        let mut row = vec![i + 1];
        let mut left = i + 1;
        let mut y_before = None;
        for ((j, y), above) in b.iter().enumerate().zip(last.windows(2)) {
            let &[diagonal, above] = above else { break };
            left = (above + 1).min(left + 1).min(diagonal + usize::from(x != *y));
            if x_before == Some(*y) && y_before == Some(x) {
                let swapped = j.checked_sub(1).and_then(|j| before_last.get(j)).map_or(usize::MAX, |cost| cost + 1);
                left = left.min(swapped);
            }
            row.push(left);
            y_before = Some(*y);
        }
        x_before = Some(x);
        before_last = std::mem::replace(&mut last, row);
    }
    last.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distance_counts_edits_and_swaps() {
        for (a, b, expected) in [
            ("", "", 0),
            ("", "ab", 2),
            ("kitten", "sitting", 3),
            ("list", "lsit", 1),
            ("ab", "ba", 1),
            ("cmd", "cdm", 1),
            ("a", "a", 0),
        ] {
            assert_eq!(distance(a, b), expected, "{a} {b}");
            assert_eq!(distance(b, a), expected, "{b} {a}");
        }
    }

    #[test]
    fn hints_name_the_near_or_all() {
        assert_eq!(hint("stats", &["status", "list"]), "did you mean 'status'?");
        assert_eq!(hint("xyzzy", &["status", "list"]), "these exist: status, list");
        assert_eq!(hint("x", &[]), "it takes none");
        assert_eq!(shown("a\u{1b}b"), "a?b");
        assert_eq!(shown(&"x".repeat(70)).len(), 63);
    }
}
