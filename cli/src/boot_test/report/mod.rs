//! Reports: KTAP for people and pipes, JUnit and JSON for machines, annotations and a summary for GitHub. All of them name
//! QEMU, kernel and seed.

pub mod github;
pub mod json;
pub mod junit;
pub mod ktap;

use std::fmt::Write as _;

use super::verdict::{TestReport, Verdict};

/// `3 pass, 1 hang, 1 skipped`.
#[must_use]
pub fn totals(reports: &[TestReport]) -> String {
    let mut text = String::new();
    for verdict in ALL {
        let count = reports.iter().filter(|report| report.verdict == verdict).count();
        if count > 0 {
            let comma = if text.is_empty() { "" } else { ", " };
            // Writing to a string cannot fail.
            let _ = write!(text, "{comma}{count} {}", verdict.word());
        }
    }
    if text.is_empty() { "no test".to_owned() } else { text }
}

/// Why nothing ran, if nothing did: there was no test, or all were skipped.
#[must_use]
pub fn nothing_ran(reports: &[TestReport]) -> Option<String> {
    let first = match reports {
        [] => return Some("there is no test".to_owned()),
        [first, ..] => first,
    };
    if reports.iter().any(|report| report.verdict != Verdict::Skipped) {
        return None;
    }
    let reason = first.reason.lines().next().unwrap_or_default();
    let reason = crate::escape::line(reason.as_bytes());
    let others = reports.iter().filter(|report| report.reason != first.reason).count();
    Some(match (reports.len(), others) {
        (1, _) => format!("the only test was skipped: {reason}"),
        (all, 0) => format!("all {all} tests were skipped: {reason}"),
        (all, _) => format!("all {all} tests were skipped; the first: {reason}"),
    })
}

const ALL: [Verdict; 12] = [
    Verdict::Pass,
    Verdict::Flaky,
    Verdict::Fail,
    Verdict::Timeout,
    Verdict::Panic,
    Verdict::Oops,
    Verdict::Hang,
    Verdict::Reboot,
    Verdict::NeverBooted,
    Verdict::QemuFailed,
    Verdict::Skipped,
    Verdict::Interrupted,
];

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use super::*;

    pub(crate) fn report(verdict: Verdict, reason: &str) -> TestReport {
        let mut report = TestReport::new("a # b".into(), "t/a.toml".into(), 7);
        report.verdict = verdict;
        reason.clone_into(&mut report.reason);
        report.ran = verdict != Verdict::Skipped;
        report.seconds = Duration::from_millis(1500);
        "11.1.3".clone_into(&mut report.qemu);
        "Linux version 6.1".clone_into(&mut report.kernel);
        report
    }

    #[test]
    fn a_run_in_which_nothing_ran() {
        let (skipped, other) = (report(Verdict::Skipped, "no QEMU\nmore"), report(Verdict::Skipped, "too old"));
        let nothing = |reports: &[TestReport]| nothing_ran(reports).unwrap_or_default();
        assert_eq!(nothing(&[]), "there is no test");
        assert_eq!(nothing(std::slice::from_ref(&skipped)), "the only test was skipped: no QEMU");
        assert_eq!(nothing(&[skipped.clone(), skipped.clone()]), "all 2 tests were skipped: no QEMU");
        assert_eq!(nothing(&[skipped.clone(), other]), "all 2 tests were skipped; the first: no QEMU");
        assert_eq!(nothing(&[skipped, report(Verdict::Fail, "x")]), "");
    }
}
