//! What GitHub's runners show: annotations beside the lines of the tests' files, and the job's summary.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::boot_test::verdict::{TestReport, Verdict};
use crate::escape;

/// GitHub shows no summary of more than 1 MiB.
const MAX_SUMMARY: usize = 900 << 10;
/// Characters of a name and of a reason in the summary's table, and of an annotation.
const MAX_TEXT: usize = 500;

/// One command to the runner for each expectation that did not hold, for each other test that did not pass, and for each that is
/// flaky; and one if nothing ran. `workspace` is the repository's folder: files in it are named as GitHub names them.
#[must_use]
pub fn annotations(reports: &[TestReport], workspace: Option<&Path>, flaky_fails: bool) -> String {
    let mut text = String::new();
    for report in reports {
        let level = match report.verdict {
            Verdict::Pass | Verdict::Skipped => continue,
            Verdict::Flaky if !flaky_fails => "warning",
            _ => "error",
        };
        let file = in_workspace(&report.file, workspace);
        let mut annotate = |line: Option<usize>, message: &str| {
            let line = line.map(|line| format!(",line={line}")).unwrap_or_default();
            let title = property(&short(&format!("{}: {}", report.name, report.verdict.word())));
            let _ = writeln!(text, "::{level} file={}{line},title={title}::{}", property(&file), data(&short(message)));
        };
        let mut broken = report.broken().peekable();
        // What went wrong before anybody looked at expectations.
        let is_about_expectations = matches!(report.verdict, Verdict::Fail | Verdict::Flaky);
        if !is_about_expectations || broken.peek().is_none() {
            annotate(broken.peek().map(|first| first.line), &report.reason);
            continue;
        }
        for expectation in broken {
            let reason = expectation.reason.as_deref().unwrap_or_default();
            annotate(Some(expectation.line), &format!("expected: {}; found: {reason}", expectation.text));
        }
    }
    if let Some(reason) = super::nothing_ran(reports) {
        let _ = writeln!(text, "::warning title=nothing ran::{}", data(&short(&reason)));
    }
    text
}

/// The job's summary in Markdown: a row for each test, and what explains those that did not pass.
#[must_use]
pub fn summary(reports: &[TestReport], seed: u64) -> String {
    let mut text = format!("### qkprobe test: {}\n\n", markdown(&super::totals(reports)));
    if let Some(reason) = super::nothing_ran(reports) {
        let _ = writeln!(text, "**Nothing ran**: {}\n", markdown(&short(&reason)));
    }
    let first = reports.iter().find(|report| !report.qemu.is_empty());
    let qemu = first.map(|report| format!("QEMU {}, ", report.qemu)).unwrap_or_default();
    let _ = writeln!(text, "qkprobe {}, {}seed {seed}\n", env!("CARGO_PKG_VERSION"), markdown(&qemu));
    text.push_str("| | test | verdict | seconds | |\n| --- | --- | --- | ---: | --- |\n");
    for report in reports {
        let mark = match report.verdict {
            Verdict::Pass => "\u{2705}",
            Verdict::Flaky | Verdict::Skipped => "\u{26a0}\u{fe0f}",
            _ => "\u{274c}",
        };
        let cell = |text: &str| markdown(&short(text.lines().next().unwrap_or_default()));
        let (name, reason) = (cell(&report.name), cell(&report.reason));
        let row = format!(
            "| {mark} | {name} | {} | {:.1} | {reason} |\n",
            report.verdict.word(),
            report.seconds.as_secs_f64()
        );
        if text.len() + row.len() > MAX_SUMMARY {
            text.push_str("\nThe rest is in the log.\n");
            return text;
        }
        text.push_str(&row);
    }
    for report in reports.iter().filter(|report| !matches!(report.verdict, Verdict::Pass | Verdict::Skipped)) {
        let lines: Vec<String> =
            report.reason.lines().map(str::to_owned).chain(report.explanation()).map(|line| html(&line)).collect();
        let title = format!("{}: {}", short(&report.name), report.verdict.word());
        let details = format!(
            "\n<details><summary>{}</summary>\n\n<pre>\n{}\n</pre>\n</details>\n",
            html(&title),
            lines.join("\n")
        );
        if text.len() + details.len() > MAX_SUMMARY {
            text.push_str("\nThe rest is in the log.\n");
            return text;
        }
        text.push_str(&details);
    }
    text.push('\n');
    text
}

/// The path from the repository's folder, as GitHub knows it.
fn in_workspace(file: &Path, workspace: Option<&Path>) -> String {
    let absolute = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    let inside = workspace.and_then(|workspace| absolute.strip_prefix(workspace).ok()).map(PathBuf::from);
    inside.unwrap_or_else(|| file.to_owned()).display().to_string()
}

/// The value of a command.
fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// The value of a command's property.
fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

/// Escaped line by line.
fn short(text: &str) -> String {
    let text = escape::lines(text.as_bytes()).join("\n");
    match text.char_indices().nth(MAX_TEXT) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

/// A line that Markdown leaves alone: what could be markup becomes a reference to the character.
fn markdown(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in escape::line(text.as_bytes()).chars() {
        match c {
            ' ' | ',' | '.' | ';' | '=' | '/' => out.push(c),
            c if c.is_ascii_punctuation() => {
                let _ = write!(out, "&#{};", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out
}

/// A line of a `<pre>`.
fn html(text: &str) -> String {
    escape::line(text.as_bytes()).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot_test::report::tests::report;
    use crate::boot_test::verdict::ExpectationReport;

    fn failed() -> TestReport {
        let mut failed = report(Verdict::Fail, "expected: x hits; found: 0 hits, and 1 more");
        failed.name = "a,b: 100%".into();
        for (line, reason) in [(4, None), (9, Some("0 hits")), (12, Some("50%\r\n\u{1b}[2J::error::x"))] {
            failed.expectations.push(ExpectationReport {
                text: "x hits".into(),
                line,
                held: Some(reason.is_none()),
                reason: reason.map(str::to_owned),
                events: Vec::new(),
                subtests: Vec::new(),
            });
        }
        failed
    }

    #[test]
    fn annotations_name_file_and_line() {
        let mut hang = report(Verdict::Hang, "no hit\nmore");
        hang.file = "/w/t/b:c.toml".into();
        let all = [report(Verdict::Pass, ""), failed(), hang, report(Verdict::Flaky, "second")];
        let workspace = Path::new("/w");
        assert_eq!(
            annotations(&all, Some(workspace), false),
            "::error file=t/a.toml,line=9,title=a%2Cb%3A 100%25%3A fail::expected: x hits; found: 0 hits\n\
             ::error file=t/a.toml,line=12,title=a%2Cb%3A 100%25%3A fail::expected: x hits; found: 50%25%0A\\x1b[2J::error::x\n\
             ::error file=t/b%3Ac.toml,title=a # b%3A hang::no hit%0Amore\n\
             ::warning file=t/a.toml,title=a # b%3A flaky::second\n"
        );
        assert!(annotations(&all, None, true).ends_with("::error file=t/a.toml,title=a # b%3A flaky::second\n"));
        assert_eq!(
            annotations(&[report(Verdict::Skipped, "no QEMU")], None, false),
            "::warning title=nothing ran::the only test was skipped: no QEMU\n"
        );
        assert_eq!(annotations(&[report(Verdict::Pass, "")], None, false), "");
    }

    #[test]
    fn the_summary_is_markdown_that_a_guest_cannot_write() {
        let mut failed = failed();
        failed.name = "a|b `<img>` *@all* [x](y) \\".into();
        failed.console.push("</pre><script>".into());
        let text = summary(&[report(Verdict::Pass, ""), failed], 7);
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!(
            text,
            format!(
                "### qkprobe test: 1 pass, 1 fail\n\nqkprobe {version}, QEMU 11.1.3, seed 7\n\n\
                 | | test | verdict | seconds | |\n| --- | --- | --- | ---: | --- |\n\
                 | \u{2705} | a &#35; b | pass | 1.5 |  |\n\
                 | \u{274c} | a&#124;b &#96;&#60;img&#62;&#96; &#42;&#64;all&#42; &#91;x&#93;&#40;y&#41; &#92; | fail | 1.5 \
                 | expected&#58; x hits; found&#58; 0 hits, and 1 more |\n\
                 \n<details><summary>a|b `&lt;img&gt;` *@all* [x](y) \\: fail</summary>\n\n<pre>\n\
                 expected: x hits; found: 0 hits, and 1 more\n\
                 t/a.toml:9: expected: x hits; found: 0 hits\n\
                 t/a.toml:12: expected: x hits; found: 50%\\x0d\\x0a\\x1b[2J::error::x\n\
                 console:\n  &lt;/pre&gt;&lt;script&gt;\n</pre>\n</details>\n\n"
            )
        );
        let none = summary(&[], 7);
        assert!(none.starts_with("### qkprobe test: no test\n\n**Nothing ran**: there is no test\n"), "{none}");
    }

    #[test]
    fn a_summary_has_an_end() {
        let mut long = report(Verdict::Panic, "p");
        long.console = vec!["x".repeat(1000); 80];
        let text = summary(&vec![long; 5000], 7);
        assert!(text.len() <= MAX_SUMMARY + 100 && text.ends_with("\nThe rest is in the log.\n"), "{}", text.len());
    }
}
