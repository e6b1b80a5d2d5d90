//! Reports: KTAP for people and pipes, JUnit and JSON for machines. All of them name QEMU, kernel and seed.

use std::fmt::Write as _;
use std::io::{self, Write};

use quick_junit::{NonSuccessKind, Property, Report, TestCase, TestCaseStatus, TestRerun, TestSuite};
use serde::Serialize;

use super::verdict::{TestReport, Verdict};

/// The version of the JSON report. It grows when a reader that ignores unknown members would break.
const JSON_VERSION: u32 = 1;

/// The lines before the first test.
///
/// # Errors
/// The writer's.
pub fn ktap_head(out: &mut dyn Write, tests: usize, seed: u64) -> io::Result<()> {
    writeln!(out, "KTAP version 1\n1..{tests}\n# qkprobe {}, seed {seed}", env!("CARGO_PKG_VERSION"))
}

/// One test, with the lines that explain it before its result, as KTAP has them.
///
/// # Errors
/// The writer's.
pub fn ktap_test(out: &mut dyn Write, number: usize, report: &TestReport) -> io::Result<()> {
    let TestReport { name, verdict, reason, seconds, qemu, kernel, seed, .. } = report;
    if *verdict != Verdict::Skipped {
        // Who built it, and with what, is in the other reports.
        let kernel = kernel.split(" (").next().unwrap_or_default();
        writeln!(out, "# {}: QEMU {qemu}, seed {seed}, {}", plain(name), plain(kernel))?;
    }
    if !verdict.is_good() || *verdict == Verdict::Flaky {
        for line in report.explanation() {
            writeln!(out, "# {}", crate::escape::line(line.as_bytes()))?;
        }
    }
    let mut lines = reason.lines();
    let first = plain(lines.next().unwrap_or_default());
    for line in lines {
        writeln!(out, "# {}", plain(line))?;
    }
    let name = plain(name);
    match verdict {
        Verdict::Pass => writeln!(out, "ok {number} {name} # {:.1} s", seconds.as_secs_f64())?,
        Verdict::Flaky => writeln!(out, "ok {number} {name} # flaky: {first}")?,
        Verdict::Skipped => writeln!(out, "ok {number} {name} # SKIP {first}")?,
        other => writeln!(out, "not ok {number} {name} # {}: {first}", other.word())?,
    }
    out.flush()
}

/// The last line.
///
/// # Errors
/// The writer's.
pub fn ktap_end(out: &mut dyn Write, reports: &[TestReport]) -> io::Result<()> {
    writeln!(out, "# {}", totals(reports))?;
    out.flush()
}

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

/// One line without `#`, which KTAP takes for a directive.
fn plain(text: &str) -> String {
    crate::escape::line(text.as_bytes()).replace('#', "\\#")
}

/// The report as JSON.
#[must_use]
pub fn json(reports: &[TestReport], seed: u64) -> String {
    #[derive(Serialize)]
    struct Document<'a> {
        version: u32,
        qkprobe: &'static str,
        seed: u64,
        totals: std::collections::BTreeMap<&'static str, usize>,
        tests: &'a [TestReport],
    }
    let mut totals = std::collections::BTreeMap::new();
    for report in reports {
        *totals.entry(report.verdict.word()).or_insert(0) += 1;
    }
    let document = Document { version: JSON_VERSION, qkprobe: env!("CARGO_PKG_VERSION"), seed, totals, tests: reports };
    // These types always serialise: no map keys, no failing implementations.
    let mut text = serde_json::to_string_pretty(&document).unwrap_or_default();
    text.push('\n');
    text
}

/// The report as JUnit's XML.
///
/// # Errors
/// Never in practice: it is written to memory.
pub fn junit(reports: &[TestReport], seed: u64) -> Result<String, String> {
    let mut suite = TestSuite::new("qkprobe");
    suite.add_property(Property::new("seed", seed.to_string()));
    for report in reports {
        let mut case = TestCase::new(report.name.as_str(), status(report));
        case.set_classname(report.file.display().to_string()).set_time(report.seconds);
        for (name, value) in
            [("qemu", &report.qemu), ("kernel", &report.kernel), ("arch", &report.arch), ("end", &report.end)]
        {
            case.add_property(Property::new(name, value.as_str()));
        }
        case.add_property(Property::new("seed", report.seed.to_string()));
        case.add_property(Property::new("verdict", report.verdict.word()));
        suite.add_test_case(case);
    }
    let mut junit = Report::new("qkprobe");
    junit.add_test_suite(suite);
    junit.to_string().map_err(|error| error.to_string())
}

fn status(report: &TestReport) -> TestCaseStatus {
    let detail = report.explanation().join("\n");
    match report.verdict {
        Verdict::Pass => TestCaseStatus::success(),
        Verdict::Flaky => {
            let mut status = TestCaseStatus::success();
            let mut rerun = TestRerun::new(NonSuccessKind::Failure);
            rerun.set_type("flaky").set_message(report.reason.as_str()).set_description(detail);
            status.add_rerun(rerun);
            status
        }
        Verdict::Skipped => {
            let mut status = TestCaseStatus::skipped();
            status.set_message(report.reason.as_str());
            status
        }
        verdict => {
            // An error is what says nothing about the kernel.
            let kind = match verdict {
                Verdict::QemuFailed | Verdict::Interrupted => NonSuccessKind::Error,
                _ => NonSuccessKind::Failure,
            };
            let mut status = TestCaseStatus::non_success(kind);
            status.set_type(verdict.word()).set_message(report.reason.as_str()).set_description(detail);
            status
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::boot_test::verdict::ExpectationReport;

    fn report(verdict: Verdict, reason: &str) -> TestReport {
        let mut report = TestReport::new("a # b".into(), "t/a.toml".into(), 7);
        report.verdict = verdict;
        reason.clone_into(&mut report.reason);
        report.seconds = Duration::from_millis(1500);
        "11.1.3".clone_into(&mut report.qemu);
        "Linux version 6.1".clone_into(&mut report.kernel);
        report
    }

    #[test]
    fn ktap() {
        let mut failed = report(Verdict::Fail, "expected: x hits; found: 0 hits");
        failed.expectations.push(ExpectationReport {
            text: "x hits".into(),
            line: 4,
            held: Some(false),
            reason: Some("0 hits".into()),
            events: vec!["1.0 cpu0 y".into()],
        });
        failed.console.push("<1>\\x1b[2J".into());
        let all = [report(Verdict::Pass, ""), failed, report(Verdict::Skipped, "no QEMU")];
        let mut out = Vec::new();
        ktap_head(&mut out, all.len(), 7).expect("memory");
        for (index, report) in all.iter().enumerate() {
            ktap_test(&mut out, index + 1, report).expect("memory");
        }
        ktap_end(&mut out, &all).expect("memory");
        let head = format!("KTAP version 1\n1..3\n# qkprobe {}, seed 7\n", env!("CARGO_PKG_VERSION"));
        assert_eq!(
            String::from_utf8(out).expect("text"),
            head + "# a \\# b: QEMU 11.1.3, seed 7, Linux version 6.1\n\
             ok 1 a \\# b # 1.5 s\n\
             # a \\# b: QEMU 11.1.3, seed 7, Linux version 6.1\n\
             # t/a.toml:4: expected: x hits; found: 0 hits\n\
             #   1.0 cpu0 y\n\
             # console:\n\
             #   <1>\\x1b[2J\n\
             not ok 2 a \\# b # fail: expected: x hits; found: 0 hits\n\
             ok 3 a \\# b # SKIP no QEMU\n\
             # 1 pass, 1 fail, 1 skipped\n"
        );
    }

    #[test]
    fn json_and_junit() {
        let all =
            [report(Verdict::NeverBooted, "why"), report(Verdict::Flaky, "second"), report(Verdict::QemuFailed, "q")];
        let document: serde_json::Value = serde_json::from_str(&json(&all, 7)).expect("JSON");
        assert_eq!(document["totals"]["never-booted"], 1);
        assert_eq!(document["tests"][0]["verdict"], "never-booted");
        assert_eq!(document["tests"][0]["seconds"], 1.5);
        let xml = junit(&all, 7).expect("XML");
        for part in [
            r#"<testsuite name="qkprobe" tests="3" disabled="0" errors="1" failures="1">"#,
            r#"<failure message="why" type="never-booted"></failure>"#,
            r#"<error message="q" type="qemu-failed"></error>"#,
            r#"<flakyFailure message="second" type="flaky">"#,
            r#"<property name="qemu" value="11.1.3"/>"#,
        ] {
            assert!(xml.contains(part), "{part}\n{xml}");
        }
    }
}
