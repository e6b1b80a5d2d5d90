//! What became of a test.

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

/// What became of a test, told apart by what a person would do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Everything held.
    Pass,
    /// It passed, but not at the first attempt.
    Flaky,
    /// An expectation did not hold, the run ended in another way than it had to, or the probes saw nothing.
    Fail,
    /// It took too long, and the guest was busy.
    Timeout,
    /// The guest's kernel panicked.
    Panic,
    /// The guest's kernel had an oops and lived on.
    Oops,
    /// The guest did nothing any more.
    Hang,
    /// The guest rebooted.
    Reboot,
    /// The kernel never ran.
    NeverBooted,
    /// QEMU did not start, crashed, or was killed.
    QemuFailed,
    /// It was not run, for a reason.
    Skipped,
    /// Somebody ended the whole run.
    Interrupted,
}

impl Verdict {
    /// The word in reports.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Flaky => "flaky",
            Self::Fail => "fail",
            Self::Timeout => "timeout",
            Self::Panic => "panic",
            Self::Oops => "oops",
            Self::Hang => "hang",
            Self::Reboot => "reboot",
            Self::NeverBooted => "never-booted",
            Self::QemuFailed => "qemu-failed",
            Self::Skipped => "skipped",
            Self::Interrupted => "interrupted",
        }
    }

    /// Whether it is worth another attempt.
    #[must_use]
    pub const fn may_retry(self) -> bool {
        !matches!(self, Self::Pass | Self::Flaky | Self::Skipped | Self::Interrupted)
    }

    /// Whether the whole run may still be called a success.
    #[must_use]
    pub const fn is_good(self) -> bool {
        matches!(self, Self::Pass | Self::Flaky | Self::Skipped)
    }
}

/// What a result of the guest's own tests says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It passed, or failed as it was expected to.
    Ok,
    /// It failed, was cut off, or is missing.
    NotOk,
    /// It was not run.
    Skipped,
}

/// A result of the guest's own tests (KUnit, kselftest).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GuestTest {
    /// Its name.
    pub name: String,
    /// What became of it.
    pub outcome: Outcome,
    /// What the guest said of it.
    pub reason: String,
    /// What it consists of.
    pub subtests: Vec<GuestTest>,
}

/// One expectation of a test.
#[derive(Clone, Debug, Serialize)]
pub struct ExpectationReport {
    /// What was expected.
    pub text: String,
    /// Its line in the test's file.
    pub line: usize,
    /// Whether it held; `None` when the run ended before that was decided.
    pub held: Option<bool>,
    /// Why not.
    pub reason: Option<String>,
    /// The last events that it was about.
    pub events: Vec<String>,
    /// The guest's own tests that it was about.
    pub subtests: Vec<GuestTest>,
}

/// One probe of a test.
#[derive(Clone, Debug, Serialize)]
pub struct ProbeReport {
    /// Its group.
    pub group: String,
    /// Its event.
    pub event: String,
    /// How often it hit.
    pub hits: u64,
    /// How often it could not be tracked.
    pub missed: u64,
    /// Hits without a record.
    pub dropped: u64,
}

/// What a test's report says. docs/tests.md has the JSON's reference.
#[derive(Clone, Debug, Serialize)]
pub struct TestReport {
    /// The test's name.
    pub name: String,
    /// Its file.
    pub file: PathBuf,
    /// What became of it.
    pub verdict: Verdict,
    /// Why, in one line; empty for a pass.
    pub reason: String,
    /// Whether the guest was started. A failure without that is about the test, or what it was given.
    pub ran: bool,
    /// From the start of the first attempt to the end of the last.
    #[serde(serialize_with = "seconds")]
    pub seconds: Duration,
    /// QEMU's release; empty when it was not asked.
    pub qemu: String,
    /// The kernel: its banner, or the file.
    pub kernel: String,
    /// The architecture.
    pub arch: String,
    /// QEMU's seed of the last attempt.
    pub seed: u64,
    /// The verdict of every attempt.
    pub attempts: Vec<Verdict>,
    /// How QEMU ended.
    pub end: String,
    /// What was expected.
    pub expectations: Vec<ExpectationReport>,
    /// What the test's probes counted.
    pub probes: Vec<ProbeReport>,
    /// Where each vCPU was, for a hang and a time-out.
    pub vcpus: Vec<String>,
    /// The console's last lines, unless all is well.
    pub console: Vec<String>,
    /// What QEMU said, unless all is well.
    pub stderr: Vec<String>,
}

fn seconds<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    // To the millisecond.
    serializer.serialize_f64((duration.as_secs_f64() * 1000.0).round() / 1000.0)
}

impl TestReport {
    /// A report of nothing yet.
    pub(crate) fn new(name: String, file: PathBuf, seed: u64) -> Self {
        Self {
            name,
            file,
            verdict: Verdict::Skipped,
            reason: String::new(),
            ran: false,
            seconds: Duration::ZERO,
            qemu: String::new(),
            kernel: String::new(),
            arch: String::new(),
            seed,
            attempts: Vec::new(),
            end: String::new(),
            expectations: Vec::new(),
            probes: Vec::new(),
            vcpus: Vec::new(),
            console: Vec::new(),
            stderr: Vec::new(),
        }
    }

    /// The expectations that did not hold.
    pub fn broken(&self) -> impl Iterator<Item = &ExpectationReport> {
        self.expectations.iter().filter(|expectation| expectation.held == Some(false))
    }

    /// Whether it did not pass for a reason that says nothing about the kernel's conduct: QEMU failed, the run was interrupted,
    /// or the test does not fit the kernel that it was given.
    #[must_use]
    pub fn is_error(&self) -> bool {
        match self.verdict {
            Verdict::QemuFailed | Verdict::Interrupted => true,
            verdict => !verdict.is_good() && !self.ran,
        }
    }

    /// The lines that explain it: expectations that did not hold with the events that decided, vCPUs, console, QEMU's words.
    #[must_use]
    pub fn explanation(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for expectation in self.broken() {
            let ExpectationReport { text, line, reason, events, .. } = expectation;
            let reason = reason.as_deref().unwrap_or_default();
            lines.push(format!("{}:{line}: expected: {text}; found: {reason}", self.file.display()));
            lines.extend(events.iter().map(|event| format!("  {event}")));
        }
        lines.extend(self.vcpus.iter().cloned());
        for (title, part) in [("console", &self.console), ("QEMU", &self.stderr)] {
            if !part.is_empty() {
                lines.push(format!("{title}:"));
                lines.extend(part.iter().map(|line| format!("  {line}")));
            }
        }
        lines
    }
}
