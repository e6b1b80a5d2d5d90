//! JUnit's XML, with `file` and `line`, by which GitLab and others lead to what failed.

use quick_junit::{NonSuccessKind, Property, Report, TestCase, TestCaseStatus, TestRerun, TestSuite};

use crate::boot_test::verdict::{TestReport, Verdict};

/// The report as JUnit's XML.
///
/// # Errors
/// Never in practice: it is written to memory.
pub fn junit(reports: &[TestReport], seed: u64) -> Result<String, String> {
    let mut suite = TestSuite::new("qkprobe");
    suite.add_property(Property::new("seed", seed.to_string()));
    for report in reports {
        let mut case = TestCase::new(report.name.as_str(), status(report));
        let file = report.file.display().to_string();
        case.set_classname(file.as_str()).set_time(report.seconds);
        case.extra.insert("file".into(), file.into());
        if let Some(expectation) = report.broken().next() {
            case.extra.insert("line".into(), expectation.line.to_string().into());
        }
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
            let kind = if report.is_error() { NonSuccessKind::Error } else { NonSuccessKind::Failure };
            let mut status = TestCaseStatus::non_success(kind);
            status.set_type(verdict.word()).set_message(report.reason.as_str()).set_description(detail);
            status
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot_test::report::tests::report;
    use crate::boot_test::verdict::ExpectationReport;

    #[test]
    fn xml() {
        let mut failed = report(Verdict::Fail, "expected: x hits; found: 0 hits");
        for (line, held) in [(4, true), (9, false), (12, false)] {
            failed.expectations.push(ExpectationReport {
                text: "x hits".into(),
                line,
                held: Some(held),
                reason: (!held).then(|| "0 hits".into()),
                events: Vec::new(),
                subtests: Vec::new(),
            });
        }
        let mut refused = report(Verdict::Fail, "no such symbol");
        refused.ran = false;
        let all = [
            report(Verdict::NeverBooted, "why"),
            report(Verdict::Flaky, "second"),
            report(Verdict::QemuFailed, "q"),
            failed,
            refused,
        ];
        let xml = junit(&all, 7).expect("XML");
        for part in [
            r#"<testsuite name="qkprobe" tests="5" disabled="0" errors="2" failures="2">"#,
            r#"<testcase name="a # b" classname="t/a.toml" time="1.500" file="t/a.toml">"#,
            r#"<testcase name="a # b" classname="t/a.toml" time="1.500" file="t/a.toml" line="9">"#,
            r#"<failure message="why" type="never-booted"></failure>"#,
            r#"<error message="q" type="qemu-failed"></error>"#,
            r#"<error message="no such symbol" type="fail"></error>"#,
            r#"<flakyFailure message="second" type="flaky">"#,
            r#"<property name="qemu" value="11.1.3"/>"#,
        ] {
            assert!(xml.contains(part), "{part}\n{xml}");
        }
    }
}
