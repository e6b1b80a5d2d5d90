//! "Did you mean": the few names nearest to one that does not exist.

/// Longer names are not compared by distance: nobody mistypes those by hand.
const MAX_COMPARED: usize = 64;

/// Up to three of `names` (with nm letters), best first. Distance first, text before data, then the shorter name.
pub(crate) fn most_similar<'a>(name: &str, names: impl Iterator<Item = (&'a str, u8)>) -> Vec<&'a str> {
    let most = (name.len() / 4).clamp(1, 4);
    let mut best: Vec<(usize, bool, usize, &str)> = Vec::new();
    if name.is_empty() {
        return Vec::new();
    }
    for (candidate, kind) in names {
        // A name that only lacks a prefix or suffix (`sys_openat` for `__x64_sys_openat`) is one slip, not many.
        let part = name.len() >= 4 && candidate.len() <= name.len() + 16 && candidate.contains(name);
        let distance = if part { Some(1) } else { distance(name.as_bytes(), candidate.as_bytes(), most) };
        let Some(distance) = distance else { continue };
        let row = (distance, !matches!(kind, b'T' | b't' | b'W' | b'w'), candidate.len(), candidate);
        if best.iter().all(|other| other.3 != candidate) {
            best.push(row);
            best.sort_unstable();
            best.truncate(3);
        }
    }
    best.into_iter().map(|row| row.3).collect()
}

/// The edit distance (insert, delete, replace) when it is at most `most`.
fn distance(a: &[u8], b: &[u8], most: usize) -> Option<usize> {
    if a.len().abs_diff(b.len()) > most || a.len() > MAX_COMPARED || b.len() > MAX_COMPARED {
        return None;
    }
    let mut row: [usize; MAX_COMPARED + 1] = std::array::from_fn(|column| column);
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        let mut smallest = left;
        for (cell, y) in row.iter_mut().skip(1).zip(b) {
            let value = (diagonal + usize::from(x != y)).min(left + 1).min(*cell + 1);
            diagonal = std::mem::replace(cell, value);
            left = value;
            smallest = smallest.min(value);
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
        if smallest > most {
            return None;
        }
    }
    row.get(b.len()).copied().filter(|distance| *distance <= most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_those_of_levenshtein() {
        assert_eq!(distance(b"kitten", b"sitting", 4), Some(3));
        assert_eq!(distance(b"vfs_raed", b"vfs_read", 4), Some(2));
        assert_eq!(distance(b"same", b"same", 1), Some(0));
        assert_eq!(distance(b"", b"ab", 2), Some(2));
        assert_eq!(distance(b"kitten", b"sitting", 2), None);
    }

    #[test]
    fn nearest_first_and_functions_before_data() {
        let names =
            [("vfs_reads", b'D'), ("vfs_read", b'T'), ("vfs_readv", b't'), ("vfs_write", b'T'), ("kfree", b'T')];
        assert_eq!(most_similar("vfs_rea", names.iter().copied()), ["vfs_read", "vfs_readv", "vfs_reads"]);
        assert_eq!(most_similar("kfre", names.iter().copied()), ["kfree"]);
        assert!(most_similar("nothing_like_this", names.iter().copied()).is_empty());
        assert!(most_similar("", names.iter().copied()).is_empty());
    }

    #[test]
    fn a_missing_prefix_is_one_slip() {
        let names = [("__x64_sys_openat", b'T'), ("sys_oabi_x", b'T')];
        assert_eq!(most_similar("sys_openat", names.iter().copied()), ["__x64_sys_openat"]);
    }
}
