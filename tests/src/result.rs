//! What a boot left behind.

use std::fs;
use std::process::ExitStatus;
use std::time::Duration;

use qkprobe_harness::folder::Folder;
use qkprobe_harness::{Finished, Summary};

use crate::boot::SECOND_SERIAL;

/// A QEMU run from its start to its end.
#[derive(Debug)]
pub struct BootResult {
    /// How QEMU ended.
    pub status: ExitStatus,
    /// From QEMU's start to its end.
    pub duration: Duration,
    /// What the guest wrote to its first serial port, without carriage returns.
    pub console: String,
    /// What QEMU and the plugin wrote to stderr.
    pub stderr: String,
    /// The plugin's `out=` file; empty if there is none.
    pub trace: String,
    /// What the guest wrote to its second serial port; empty if it has none.
    pub second_serial: String,
    /// The lines of the init program, in order.
    pub qk: Vec<QkLine>,
    summary: Option<String>,
    folder: Folder,
}

/// A line that the init program printed about one line of its script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QkLine {
    /// The line of the script, from 1.
    pub line: u32,
    /// Which of the workers that the line started; none for the line itself.
    pub part: Option<u32>,
    /// Whether it was done.
    pub ok: bool,
    /// The command's name.
    pub command: String,
    /// What follows: `key=value ...`, or the reason of a failure.
    pub text: String,
}

impl BootResult {
    pub(crate) fn collect(finished: Finished) -> Self {
        let Finished { status, duration, console, stderr, folder, .. } = finished;
        let read =
            |name: &str| fs::read(folder.path().join(name)).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        Self {
            status,
            duration,
            stderr,
            trace: read("trace").unwrap_or_default(),
            second_serial: read(SECOND_SERIAL).unwrap_or_default(),
            qk: console.lines().filter_map(QkLine::parse).collect(),
            summary: read("summary.json").ok(),
            console,
            folder,
        }
    }

    /// The boot's folder, with whatever else the plugin was told to write there. It goes with `self`.
    #[must_use]
    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// Asserts that the guest did its whole script without a failure and that QEMU ended well.
    ///
    /// # Panics
    /// Otherwise, with console and stderr.
    #[track_caller]
    pub fn assert_ok(&self) {
        let failed: Vec<&QkLine> = self.qk.iter().filter(|line| !line.ok).collect();
        assert!(
            self.status.success() && failed.is_empty() && self.reached_end(),
            "the guest did not do its script: {}, failed: {failed:?}\n--- console\n{}\n--- stderr\n{}",
            self.status,
            self.console,
            self.stderr
        );
    }

    /// Whether the init program came to the end of the script.
    #[must_use]
    pub fn reached_end(&self) -> bool {
        self.console.lines().any(|line| line == "QK end")
    }

    /// What the first `command` of the script reported.
    ///
    /// # Panics
    /// There is none.
    #[must_use]
    #[track_caller]
    pub fn qk(&self, command: &str) -> &QkLine {
        self.qk_all(command).next().unwrap_or_else(|| panic!("no line of {command}:\n{}", self.console))
    }

    /// What all `command`s reported.
    pub fn qk_all(&self, command: &str) -> impl Iterator<Item = &QkLine> {
        self.qk.iter().filter(move |line| line.command == command)
    }

    /// The content of a file that the script showed with `cat`: of the last time, if there were several.
    ///
    /// # Panics
    /// The script showed no such file.
    #[must_use]
    #[track_caller]
    pub fn file(&self, path: &str) -> &str {
        let shown = self.qk_all("cat").filter(|line| line.get("file") == Some(path)).last();
        let number = shown.unwrap_or_else(|| panic!("the script did not show {path}:\n{}", self.console)).line;
        let begin = format!("QK {number} begin\n");
        let start = self.console.rfind(&begin).map_or(0, |at| at + begin.len());
        let content = &self.console[start..];
        content.find(&format!("QK {number} end-of-file")).map_or(content, |end| &content[..end])
    }

    /// The plugin's summary.
    ///
    /// # Panics
    /// The plugin wrote none, or one that is no summary.
    #[must_use]
    #[track_caller]
    pub fn summary(&self) -> Summary {
        self.try_summary().unwrap_or_else(|error| panic!("{error}"))
    }

    /// The plugin's summary.
    ///
    /// # Errors
    /// The plugin wrote none, or one that is no summary; for people.
    pub fn try_summary(&self) -> Result<Summary, String> {
        let missing = || format!("the plugin wrote no summary; stderr:\n{}", self.stderr);
        let text = self.summary.as_ref().ok_or_else(missing)?;
        serde_json::from_str(text).map_err(|error| format!("{error} in the summary:\n{text}"))
    }
}

impl QkLine {
    /// Parses a line of the console; none if it is no such line, or one of the marks (`QK begin`, `QK end`).
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.strip_prefix("QK ")?.splitn(4, ' ');
        let (id, verdict, command) = (words.next()?, words.next()?, words.next()?);
        let ok = match verdict {
            "ok" => true,
            "FAIL" => false,
            _ => return None,
        };
        let (line, part) = match id.split_once('.') {
            Some((line, part)) => (line, Some(part.parse().ok()?)),
            None => (id, None),
        };
        let command = command.trim_end_matches(':').to_owned();
        Some(Self { line: line.parse().ok()?, part, ok, command, text: words.next().unwrap_or_default().to_owned() })
    }

    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.text.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
    }

    /// The value of a key as a number.
    ///
    /// # Panics
    /// There is no such key, or it is no number.
    #[must_use]
    #[track_caller]
    pub fn number(&self, key: &str) -> f64 {
        self.get(key).and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no number {key} in {self:?}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_init_program() {
        let line = |text: &str| QkLine::parse(text);
        let getppid = line("QK 3.1 ok getppid n=1000 ns=790.5").unwrap();
        assert_eq!((getppid.line, getppid.part, getppid.ok), (3, Some(1), true));
        assert_eq!((getppid.get("n"), getppid.number("ns")), (Some("1000"), 790.5));
        let failed = line("QK 4 FAIL write: ENOENT").unwrap();
        assert_eq!((failed.ok, failed.command.as_str(), failed.text.as_str()), (false, "write", "ENOENT"));
        assert_eq!(line("QK 5 ok uname").unwrap().text, "");
        for other in ["QK end", "QK begin", "QK 4 begin", "QK 4 end-of-file", "[    0.1] QK 3 ok x"] {
            assert_eq!(line(other), None, "{other}");
        }
    }
}
