//! Whether latencies keep their bounds.

use super::file::Latency;
use crate::units::nanoseconds;

/// The least sample that so many per mille do not exceed.
fn percentile(sorted: &[u64], mille: u64) -> u64 {
    let rank = (sorted.len() as u64 * mille).div_ceil(1000).max(1);
    usize::try_from(rank - 1).ok().and_then(|at| sorted.get(at)).copied().unwrap_or(0)
}

/// Whether the samples keep the bounds.
///
/// # Errors
/// What they do instead.
pub(crate) fn judge(samples: &[u64], bounds: &Latency, dropped: u64) -> Result<(), String> {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    let over: Vec<String> = bounds
        .bounds()
        .filter_map(|(name, mille, most)| {
            let found = percentile(&sorted, mille);
            (u128::from(found) > most.as_nanos()).then(|| format!("{name} is {}", nanoseconds(u128::from(found))))
        })
        .collect();
    if over.is_empty() {
        return Ok(());
    }
    let more = if dropped == 0 { String::new() } else { format!(", {dropped} more not looked at") };
    Err(format!("{} of {} calls{more}", over.join(", "), sorted.len()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let samples: Vec<u64> = (1..=200).collect();
        let found = [500, 900, 990, 1000].map(|mille| percentile(&samples, mille));
        assert_eq!(found, [100, 180, 198, 200]);
        assert_eq!(percentile(&[7], 500), 7);
        let bounds = Latency {
            p50: Some(Duration::from_nanos(100)),
            max: Some(Duration::from_nanos(199)),
            ..Latency::default()
        };
        assert_eq!(judge(&samples, &bounds, 0), Err("max is 200 ns of 200 calls".to_owned()));
        let bounds = Latency { p50: Some(Duration::from_nanos(100)), ..Latency::default() };
        assert_eq!(judge(&samples, &bounds, 0), Ok(()));
    }
}
