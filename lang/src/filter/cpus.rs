//! Sets of CPUs: `0-3,5,8-15:1/2`.

/// One more than the largest CPU number.
const MAX_CPUS: u64 = 8192;

/// A set of small numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CpuSet {
    words: Box<[u64]>,
    len: u64,
}

impl CpuSet {
    /// Parses a list of numbers and ranges; a range may end in `:USED/GROUP`, the first USED of each GROUP.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut words = Vec::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (range, (used, group)) = match part.split_once(':') {
                Some((range, step)) => {
                    let (used, group) = step.split_once('/')?;
                    (range, (number(used)?, number(group)?))
                }
                None => (part, (1, 1)),
            };
            let (first, last) = match range.split_once('-') {
                Some((first, last)) => (number(first)?, number(last)?),
                None => (number(range)?, number(range)?),
            };
            if first > last || last >= MAX_CPUS || used == 0 || used > group {
                return None;
            }
            for cpu in (first..=last).filter(|cpu| (cpu - first) % group < used) {
                let word = usize::try_from(cpu / 64).ok()?;
                if words.len() <= word {
                    words.resize(word + 1, 0_u64);
                }
                words[word] |= 1 << (cpu % 64);
            }
        }
        let len = words.iter().map(|word| u64::from(word.count_ones())).sum();
        (len > 0).then(|| Self { words: words.into(), len })
    }

    /// Whether the number is in the set.
    pub(super) fn contains(&self, cpu: u64) -> bool {
        let word = usize::try_from(cpu / 64).ok().and_then(|word| self.words.get(word));
        word.is_some_and(|word| word >> (cpu % 64) & 1 == 1)
    }

    /// Whether the set is just this number.
    pub(super) fn is_only(&self, cpu: u64) -> bool {
        self.len == 1 && self.contains(cpu)
    }
}

fn number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::CpuSet;

    #[test]
    fn lists() {
        let set = CpuSet::parse("0-2,7,64-71:1/4").expect("good");
        let members: Vec<u64> = (0..200).filter(|cpu| set.contains(*cpu)).collect();
        assert_eq!(members, [0, 1, 2, 7, 64, 68]);
        assert!(!set.contains(u64::MAX));
        assert!(CpuSet::parse("3").expect("good").is_only(3));
        for bad in ["", "a", "3-1", "1-", "-1", "0-3:0/2", "0-3:3/2", "0-3:1", "9999999", "+1"] {
            assert_eq!(CpuSet::parse(bad), None, "{bad}");
        }
    }
}
