//! JSON; docs/tests.md is its reference.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::boot_test::verdict::TestReport;

/// The version of the JSON report. It grows when a reader that ignores unknown members would break.
const VERSION: u32 = 1;

/// The report as JSON.
#[must_use]
pub fn json(reports: &[TestReport], seed: u64) -> String {
    #[derive(Serialize)]
    struct Document<'a> {
        version: u32,
        qkprobe: &'static str,
        seed: u64,
        totals: BTreeMap<&'static str, usize>,
        tests: &'a [TestReport],
    }
    let mut totals = BTreeMap::new();
    for report in reports {
        *totals.entry(report.verdict.word()).or_insert(0) += 1;
    }
    let document = Document { version: VERSION, qkprobe: env!("CARGO_PKG_VERSION"), seed, totals, tests: reports };
    // These types always serialise: no map keys, no failing implementations.
    let mut text = serde_json::to_string_pretty(&document).unwrap_or_default();
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot_test::report::tests::report;
    use crate::boot_test::verdict::{ExpectationReport, GuestTest, Outcome, Verdict};

    #[test]
    fn members() {
        let mut failed = report(Verdict::NeverBooted, "why");
        let case = GuestTest {
            name: "case".into(),
            outcome: Outcome::NotOk,
            reason: "TIMEOUT 3 s".into(),
            subtests: Vec::new(),
        };
        failed.expectations.push(ExpectationReport {
            text: "the guest's KTAP passes".into(),
            line: 4,
            held: Some(false),
            reason: Some("1 of 1 failed: case".into()),
            events: Vec::new(),
            subtests: vec![case],
        });
        let all = [failed, report(Verdict::Skipped, "no QEMU")];
        let document: serde_json::Value = serde_json::from_str(&json(&all, 7)).expect("JSON");
        assert_eq!((&document["version"], &document["totals"]["never-booted"]), (&1.into(), &1.into()));
        let test = &document["tests"][0];
        assert_eq!(test["verdict"], "never-booted");
        assert_eq!(test["seconds"], 1.5);
        assert_eq!((&test["ran"], &document["tests"][1]["ran"]), (&true.into(), &false.into()));
        let subtest = &test["expectations"][0]["subtests"][0];
        assert_eq!((&subtest["outcome"], &subtest["reason"]), (&"not-ok".into(), &"TIMEOUT 3 s".into()));
    }
}
