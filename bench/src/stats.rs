//! Medians and quartiles. Means have no place here: one descheduled vCPU would decide them.

use serde::Serialize;

/// The five numbers of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Five {
    pub(crate) min: f64,
    pub(crate) q1: f64,
    pub(crate) median: f64,
    pub(crate) q3: f64,
    pub(crate) max: f64,
}

impl Five {
    /// None for an empty sample.
    pub(crate) fn of(sample: &[f64]) -> Option<Self> {
        let mut sorted = sample.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |part| quantile(&sorted, part);
        Some(Self { min: at(0.0)?, q1: at(0.25)?, median: at(0.5)?, q3: at(0.75)?, max: at(1.0)? })
    }
}

/// The median; none for an empty sample.
pub(crate) fn median(sample: &[f64]) -> Option<f64> {
    Five::of(sample).map(|five| five.median)
}

/// Linear between the two nearest values (Hyndman and Fan's type 7, as R and NumPy do it).
fn quantile(sorted: &[f64], part: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let place = part * last as f64;
    let below = place.floor() as usize;
    let above = (below + 1).min(last);
    Some(sorted[below] + (sorted[above] - sorted[below]) * (place - below as f64))
}

/// `with[i] - without[i]`, as far as both go: what drifts slowly is in both of a pair.
pub(crate) fn differences(with: &[f64], without: &[f64]) -> Vec<f64> {
    with.iter().zip(without).map(|(with, without)| with - without).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_numbers() {
        let five = Five::of(&[7.0, 1.0, 3.0, 5.0, 9.0]);
        assert_eq!(five, Some(Five { min: 1.0, q1: 3.0, median: 5.0, q3: 7.0, max: 9.0 }));
        let five = Five::of(&[4.0, 1.0, 2.0, 3.0]);
        assert_eq!(five, Some(Five { min: 1.0, q1: 1.75, median: 2.5, q3: 3.25, max: 4.0 }));
        let five = Five::of(&[2.5]);
        assert_eq!(five, Some(Five { min: 2.5, q1: 2.5, median: 2.5, q3: 2.5, max: 2.5 }));
        assert_eq!(Five::of(&[]), None);
    }

    #[test]
    fn one_outlier_does_not_move_the_median() {
        assert_eq!(median(&[1.0, 1.5, 1_000_000.0]), Some(1.5));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn differences_are_by_pair() {
        // The machine slowed down by 100 between the pairs: neither difference shows it.
        assert_eq!(differences(&[15.0, 116.0], &[10.0, 110.0]), [5.0, 6.0]);
        assert_eq!(differences(&[15.0, 116.0], &[10.0]), [5.0]);
    }
}
