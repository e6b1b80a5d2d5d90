//! KTAP, as the kernel's own reader (`tools/testing/kunit/kunit.py parse`) understands it.
//!
//! Each test that ran has subtests: one for each expectation, below which are the guest's own tests if it is about those, and
//! `boot` for everything else, because a reader judges a test by its subtests alone.

use std::io::{self, Write};

use crate::boot_test::verdict::{ExpectationReport, GuestTest, Outcome, TestReport, Verdict};

/// Characters of a name, and of what is said of a result; the other reports have everything.
const MAX_TEXT: usize = 300;
/// One level.
const INDENT: &str = "  ";
/// The subtest for how the guest started, lived and ended.
const BOOT: &str = "boot";

/// What readers act on wherever it stands in a line: where kunit.py takes the kernel to have ended, and a command to GitHub's
/// runner. They stand in what guests say.
const MAGIC: [&str; 4] =
    ["List of all partitions:", "Kernel panic - not syncing: VFS:", "reboot: System halted", "##["];

/// The lines before the first test.
///
/// # Errors
/// The writer's.
pub fn head(out: &mut dyn Write, tests: usize, seed: u64) -> io::Result<()> {
    writeln!(out, "KTAP version 1\n1..{tests}\n# qkprobe {}, seed {seed}", env!("CARGO_PKG_VERSION"))
}

/// One test: what ran, its subtests, what explains its result, its result.
///
/// # Errors
/// The writer's.
pub fn test(out: &mut dyn Write, number: usize, report: &TestReport) -> io::Result<()> {
    let TestReport { name, verdict, reason, seconds, qemu, kernel, seed, .. } = report;
    if *verdict != Verdict::Skipped {
        // Who built it, and with what, is in the other reports.
        let kernel = kernel.split(" (").next().unwrap_or_default();
        diagnostic(out, &format!("{name}: QEMU {qemu}, seed {seed}, {kernel}"))?;
    }
    if report.ran {
        subtests(out, report)?;
    }
    if !verdict.is_good() || *verdict == Verdict::Flaky {
        for line in report.explanation() {
            diagnostic(out, &line)?;
        }
    }
    for line in reason.lines().skip(1) {
        diagnostic(out, line)?;
    }
    let remark = match verdict {
        Verdict::Pass => format!("{:.1} s", seconds.as_secs_f64()),
        Verdict::Flaky => format!("flaky: {}", first_line(reason)),
        Verdict::Skipped => format!("SKIP {}", first_line(reason)),
        _ => remark(report),
    };
    result(out, 0, verdict.is_good(), number, name, &remark)?;
    out.flush()
}

/// The last line.
///
/// # Errors
/// The writer's.
pub fn end(out: &mut dyn Write, reports: &[TestReport]) -> io::Result<()> {
    diagnostic(out, &super::totals(reports))?;
    if let Some(reason) = super::nothing_ran(reports) {
        diagnostic(out, &format!("nothing ran: {reason}"))?;
    }
    out.flush()
}

/// What stands beside a result that is not good: KTAP's directive where it has one, else the verdict.
fn remark(report: &TestReport) -> String {
    let (word, reason) = (report.verdict.word(), first_line(&report.reason));
    match report.verdict {
        Verdict::Timeout => format!("TIMEOUT {reason}"),
        Verdict::Hang => format!("TIMEOUT {word}: {reason}"),
        _ if report.is_error() => format!("ERROR {word}: {reason}"),
        _ => format!("{word}: {reason}"),
    }
}

fn subtests(out: &mut dyn Write, report: &TestReport) -> io::Result<()> {
    let expectations = &report.expectations;
    start(out, 1, expectations.len() + 1)?;
    // A flaky test's are those of the attempt that failed, and at the last one they held.
    let is_flaky = report.verdict == Verdict::Flaky;
    for (expectation, number) in expectations.iter().zip(1..) {
        let ExpectationReport { text, held, reason, subtests, .. } = expectation;
        if !is_flaky && !subtests.is_empty() {
            start(out, 2, subtests.len())?;
            for (subtest, number) in subtests.iter().zip(1..) {
                guest_test(out, 2, number, subtest)?;
            }
        }
        let reason = first_line(reason.as_deref().unwrap_or_default());
        match held {
            Some(held) => result(out, 1, *held || is_flaky, number, text, if is_flaky { "" } else { reason })?,
            None => result(out, 1, true, number, text, "SKIP not decided")?,
        }
    }
    // How a run ends is judged before what its probes saw.
    let is_about_expectations = report.verdict == Verdict::Fail && report.broken().next().is_some();
    let is_good = report.verdict.is_good() || is_about_expectations;
    let remark = if is_good { String::new() } else { remark(report) };
    result(out, 1, is_good, expectations.len() + 1, BOOT, &remark)
}

fn guest_test(out: &mut dyn Write, level: usize, number: usize, test: &GuestTest) -> io::Result<()> {
    let GuestTest { name, outcome, reason, subtests } = test;
    if !subtests.is_empty() {
        start(out, level + 1, subtests.len())?;
        for (subtest, number) in subtests.iter().zip(1..) {
            guest_test(out, level + 1, number, subtest)?;
        }
    }
    let remark = if *outcome == Outcome::Skipped { format!("SKIP {reason}") } else { reason.clone() };
    result(out, level, *outcome != Outcome::NotOk, number, name, &remark)
}

fn start(out: &mut dyn Write, level: usize, tests: usize) -> io::Result<()> {
    let indent = INDENT.repeat(level);
    writeln!(out, "{indent}KTAP version 1\n{indent}1..{tests}")
}

fn result(out: &mut dyn Write, level: usize, is_ok: bool, number: usize, name: &str, remark: &str) -> io::Result<()> {
    let (indent, word) = (INDENT.repeat(level), if is_ok { "ok" } else { "not ok" });
    let remark = plain(remark);
    let remark = if remark.is_empty() { remark } else { format!(" # {remark}") };
    writeln!(out, "{indent}{word} {number} {}{remark}", description(name))
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// A line that is no result, and is not taken for the head of a subtest either.
fn diagnostic(out: &mut dyn Write, text: &str) -> io::Result<()> {
    let text = harmless(text);
    match text.strip_prefix("Subtest:") {
        Some(rest) => writeln!(out, "# \\x53ubtest:{rest}"),
        None => writeln!(out, "# {text}"),
    }
}

/// A test's name, which is never empty and does not begin with what readers leave out.
fn description(name: &str) -> String {
    let name = plain(name);
    match name.strip_prefix("- ") {
        Some(rest) => format!("\\x2d {rest}"),
        None if name.is_empty() => "(no name)".to_owned(),
        None => name,
    }
}

/// A short line without `#`, which ends a name and begins a directive.
fn plain(text: &str) -> String {
    let text = harmless(text.trim()).replace('#', "\\x23");
    match text.char_indices().nth(MAX_TEXT) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

/// One line that no reader takes for more than it is. What is changed is written as all that is not printable: `\xNN`.
fn harmless(text: &str) -> String {
    let mut text = crate::escape::line(text.as_bytes());
    for magic in MAGIC {
        if let Some((last, begin)) = magic.as_bytes().split_last().filter(|_| text.contains(magic)) {
            text = text.replace(magic, &format!("{}\\x{last:02x}", String::from_utf8_lossy(begin)));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot_test::report::tests::report;

    fn expectation(text: &str, reason: Option<&str>) -> ExpectationReport {
        ExpectationReport {
            text: text.into(),
            line: 4,
            held: Some(reason.is_none()),
            reason: reason.map(str::to_owned),
            events: Vec::new(),
            subtests: Vec::new(),
        }
    }

    fn written(reports: &[TestReport]) -> String {
        let mut out = Vec::new();
        head(&mut out, reports.len(), 7).expect("memory");
        for (report, number) in reports.iter().zip(1..) {
            test(&mut out, number, report).expect("memory");
        }
        end(&mut out, reports).expect("memory");
        let text = String::from_utf8(out).expect("text");
        let begin = format!("KTAP version 1\n1..{}\n# qkprobe {}, seed 7\n", reports.len(), env!("CARGO_PKG_VERSION"));
        text.strip_prefix(&begin).expect("the head").to_owned()
    }

    #[test]
    fn subtests_and_what_explains_a_failure() {
        let mut failed = report(Verdict::Fail, "expected: x hits; found: 0 hits");
        failed.expectations.push(expectation("y hits", None));
        let mut broken = expectation("x hits", Some("0 hits"));
        broken.events.push("1.0 cpu0 y".into());
        let case = |name: &str, outcome, reason: &str| GuestTest {
            name: name.into(),
            outcome,
            reason: reason.into(),
            subtests: Vec::new(),
        };
        let cases = vec![case("one", Outcome::Skipped, "no disk"), case("two", Outcome::NotOk, "TIMEOUT 3 s")];
        broken.subtests.push(GuestTest { subtests: cases, ..case("suite", Outcome::NotOk, "") });
        failed.expectations.push(broken);
        failed.console.push("<1>\\x1b[2J".into());
        let all = [report(Verdict::Pass, ""), failed, report(Verdict::Skipped, "no QEMU")];
        assert_eq!(
            written(&all),
            r"# a # b: QEMU 11.1.3, seed 7, Linux version 6.1
  KTAP version 1
  1..1
  ok 1 boot
ok 1 a \x23 b # 1.5 s
# a # b: QEMU 11.1.3, seed 7, Linux version 6.1
  KTAP version 1
  1..3
  ok 1 y hits
    KTAP version 1
    1..1
      KTAP version 1
      1..2
      ok 1 one # SKIP no disk
      not ok 2 two # TIMEOUT 3 s
    not ok 1 suite
  not ok 2 x hits # 0 hits
  ok 3 boot
# t/a.toml:4: expected: x hits; found: 0 hits
#   1.0 cpu0 y
# console:
#   <1>\x1b[2J
not ok 2 a \x23 b # fail: expected: x hits; found: 0 hits
ok 3 a \x23 b # SKIP no QEMU
# 1 pass, 1 fail, 1 skipped
"
        );
    }

    #[test]
    fn every_verdict_has_its_directive() {
        let line = |verdict, ran: bool| {
            let mut report = report(verdict, "why # SKIP\nmore");
            report.ran = ran;
            let text = written(&[report]);
            text.lines().filter(|line| line.contains("ok 1 ")).map(str::to_owned).collect::<Vec<_>>()
        };
        for (verdict, ran, words) in [
            (Verdict::Timeout, true, "TIMEOUT why"),
            (Verdict::Hang, true, "TIMEOUT hang: why"),
            (Verdict::QemuFailed, true, "ERROR qemu-failed: why"),
            (Verdict::Interrupted, true, "ERROR interrupted: why"),
            (Verdict::Panic, true, "panic: why"),
            (Verdict::Fail, true, "fail: why"),
            (Verdict::Fail, false, "ERROR fail: why"),
        ] {
            let mut wanted = vec![format!("not ok 1 a \\x23 b # {words} \\x23 SKIP")];
            if ran {
                wanted.insert(0, format!("  not ok 1 boot # {words} \\x23 SKIP"));
            }
            assert_eq!(line(verdict, ran), wanted, "{verdict:?}");
        }
        assert_eq!(line(Verdict::Skipped, false), ["ok 1 a \\x23 b # SKIP why \\x23 SKIP"]);
        assert_eq!(line(Verdict::Flaky, true), ["  ok 1 boot", "ok 1 a \\x23 b # flaky: why \\x23 SKIP"]);
    }

    #[test]
    fn nothing_that_a_guest_or_a_file_says_is_taken_for_more() {
        for (name, wanted) in [
            ("", "(no name)"),
            (" \n ", "(no name)"),
            ("  a  ", "a"),
            ("- a", "\\x2d a"),
            ("a\nok 2 b", "a\\x0aok 2 b"),
            ("\u{1b}[2Jgr\u{fc}n \u{202e}", "\\x1b[2Jgr\u{fc}n \\xe2\\x80\\xae"),
            ("ok 1", "ok 1"),
            ("a\\#b", "a\\\\x23b"),
        ] {
            assert_eq!(description(name), wanted);
        }
        assert_eq!(description(&"\u{e4}".repeat(301)), "\u{e4}".repeat(300) + "...");
        let shown = |text: &str| {
            let mut out = Vec::new();
            diagnostic(&mut out, text).expect("memory");
            String::from_utf8(out).expect("text")
        };
        assert_eq!(shown("Subtest: a"), "# \\x53ubtest: a\n");
        assert_eq!(
            shown("  [ 1.0] Kernel panic - not syncing: VFS: Unable"),
            "#   [ 1.0] Kernel panic - not syncing: VFS\\x3a Unable\n"
        );
        assert_eq!(shown("reboot: System halted"), "# reboot: System halte\\x64\n");
        assert_eq!(shown("a ##[stop]"), "# a ##\\x5bstop]\n");
    }

    #[test]
    fn the_end_says_when_nothing_ran() {
        let skipped = report(Verdict::Skipped, "no QEMU");
        assert!(written(&[skipped]).ends_with("\n# 1 skipped\n# nothing ran: the only test was skipped: no QEMU\n"));
        assert!(written(&[]).ends_with("# no test\n# nothing ran: there is no test\n"));
    }
}
