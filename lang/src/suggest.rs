//! "Did you mean": the nearest of a list of names.

/// The name with the least edit distance to `wanted`, if it is near enough to be meant.
pub(crate) fn nearest<'a>(wanted: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // A hostile name is not worth a quadratic search.
    if wanted.len() > 64 {
        return None;
    }
    let most = (wanted.len() / 3).max(1);
    let near = names.into_iter().map(|name| (distance(wanted.as_bytes(), name.as_bytes()), name));
    near.filter(|(distance, _)| *distance <= most).min_by_key(|(distance, _)| *distance).map(|(_, name)| name)
}

/// Insertions, deletions, replacements and swaps of neighbours.
fn distance(a: &[u8], b: &[u8]) -> usize {
    if a.len().abs_diff(b.len()) > 32 {
        return usize::MAX;
    }
    let mut before_last: Vec<usize> = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    let mut row = last.clone();
    for i in 1..=a.len() {
        row[0] = i;
        for j in 1..=b.len() {
            let cost = usize::from(a[i - 1] != b[j - 1]);
            row[j] = (last[j] + 1).min(row[j - 1] + 1).min(last[j - 1] + cost);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before_last[j - 2] + 1);
            }
        }
        std::mem::swap(&mut before_last, &mut last);
        std::mem::swap(&mut last, &mut row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn finds_typos_and_not_strangers() {
        let keys = ["kernel", "out", "format", "summary"];
        assert_eq!(nearest("kernal", keys), Some("kernel"));
        assert_eq!(nearest("fromat", keys), Some("format"));
        assert_eq!(nearest("backpressure", keys), None);
        assert_eq!(nearest("", keys), None);
    }
}
