//! A guest that runs. Whatever happens, neither its QEMU nor its folder outlives it.

use std::collections::VecDeque;
use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use qkprobe_symbols::KernelImage;
use rustix::process::Signal;
use serde::Deserialize;
use serde_json::Value;
use tempfile::TempDir;

use crate::arch::GuestArch;
use crate::boot::{Boot, MONITOR, SUMMARY, TRACE, is_option};
use crate::control::Control;
use crate::error::Error;
use crate::event::Event;
use crate::process::Process;
use crate::qmp::Qmp;
use crate::streams::{self, Happening, TracePipe};
use crate::{escape, folder};

/// How much of the console is kept.
const CONSOLE_BYTES: usize = 4 << 20;
/// How many of QEMU's own lines are kept.
const STDERR_LINES: usize = 1000;
/// How many happenings may wait.
const QUEUE: usize = 4096;
/// How long QEMU may take until its sockets are there.
const START: Duration = Duration::from_secs(60);
/// How long an ended QEMU is listened to: what it wrote is in pipes.
const LINGER: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(5);
/// Lines of the console in messages.
const TAIL: usize = 25;

/// How a guest ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The guest turned the power off.
    PowerOff,
    /// The guest rebooted, or its kernel did after a panic.
    Reset,
    /// This side ended it.
    Ended,
    /// QEMU ended with this status though nobody asked it to: also what a `quit` probe says.
    Exit(i32),
    /// QEMU was killed.
    Killed(i32),
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::PowerOff => f.write_str("power-off"),
            Self::Reset => f.write_str("reset"),
            Self::Ended => f.write_str("ended by qkprobe"),
            Self::Exit(status) => write!(f, "QEMU exited with status {status}"),
            Self::Killed(signal) => write!(f, "QEMU was killed by signal {signal}"),
        }
    }
}

/// The plugin's summary, as docs/output.md has it.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Summary {
    /// QEMU's release.
    #[serde(default)]
    pub qemu: String,
    /// Runtime minus linked address.
    #[serde(default)]
    pub slide: Option<String>,
    /// What kept probes from arming.
    #[serde(default)]
    pub problem: Option<String>,
    /// Records that could not be written.
    #[serde(default)]
    pub lost: u64,
    /// All probes.
    #[serde(default)]
    pub probes: Vec<ProbeSummary>,
}

/// One probe of a [`Summary`].
#[derive(Clone, Debug, Default, Deserialize)]
pub struct ProbeSummary {
    /// The event's name.
    pub name: String,
    /// Its group.
    pub group: String,
    /// Executions that passed the filter.
    pub hits: u64,
    /// Executions that could not be tracked.
    #[serde(default)]
    pub missed: u64,
    /// Hits without a record.
    #[serde(default)]
    pub dropped: u64,
    /// Executions that the filter rejected.
    #[serde(default)]
    pub filtered: u64,
    /// Hits that changed the guest.
    #[serde(default)]
    pub effects: u64,
    /// Where it stands; `None` while its module was never seen.
    #[serde(default)]
    pub address: Option<String>,
}

/// A running guest: [`Boot::start`] makes one. Dropping it ends QEMU and removes its folder.
#[derive(Debug)]
pub struct Guest {
    process: Process,
    /// `None` only while it is dropped: a reader that waits for room in the queue must be let go.
    happenings: Option<Receiver<Happening>>,
    trace: TracePipe,
    readers: Vec<JoinHandle<()>>,
    qmp: Option<Qmp>,
    control: Option<Control>,
    folder: TempDir,
    image: Arc<KernelImage>,
    arch: &'static GuestArch,
    program: PathBuf,
    start: Instant,
    console: VecDeque<u8>,
    stderr: VecDeque<String>,
    /// Why the machine stopped, in QEMU's words.
    reason: Option<String>,
    ended_by_us: bool,
}

impl Guest {
    pub(crate) fn start(boot: &Boot) -> Result<Self, Error> {
        let image = boot.load_image()?;
        let arch = boot.arch_of(&image)?;
        let folder = folder::private().map_err(Error::io(std::env::temp_dir()))?;
        let (mut command, program) = boot.command(&image, arch, folder.path())?;
        let stays_stopped = command.get_args().filter(|arg| is_option(arg, "S")).count() > 1;
        let (send, happenings) = sync_channel(QUEUE);
        let trace = TracePipe::open(&folder.path().join(TRACE), send.clone()).map_err(Error::io(folder.path()))?;
        // Files that relative paths of a user's own QEMU arguments name are where the user is: no change of folder.
        let (stdout, out) = std::io::pipe().map_err(Error::io(&program))?;
        let (stderr, err) = std::io::pipe().map_err(Error::io(&program))?;
        command.stdin(Stdio::null()).stdout(out).stderr(err);
        let process = Process::start(command).map_err(Error::io(&program))?;
        let readers = [streams::console(stdout, send.clone()), streams::stderr(stderr, send.clone())];
        let readers: Result<Vec<_>, _> = readers.into_iter().collect();
        let mut guest = Self {
            process,
            happenings: Some(happenings),
            trace,
            readers: readers.map_err(Error::io(&program))?,
            qmp: None,
            control: None,
            folder,
            image,
            arch,
            program,
            start: Instant::now(),
            console: VecDeque::new(),
            stderr: VecDeque::new(),
            reason: None,
            ended_by_us: false,
        };
        let control = boot.control_socket(guest.folder.path());
        guest.connect(send, &control)?;
        guest.start = Instant::now();
        if let Some(qmp) = guest.qmp.as_mut().filter(|_| !stays_stopped) {
            qmp.execute("cont", Value::Null)?;
        }
        Ok(guest)
    }

    /// Waits for both sockets.
    fn connect(&mut self, send: SyncSender<Happening>, control: &Path) -> Result<(), Error> {
        let give_up = Instant::now() + START;
        let monitor = self.folder.path().join(MONITOR);
        loop {
            if self.qmp.is_none() && monitor.exists() {
                self.qmp = Qmp::connect(&monitor, send.clone()).ok();
            }
            if self.qmp.is_some() && self.control.is_none() {
                self.control = Control::connect(control).ok();
            }
            if self.qmp.is_some() && self.control.is_some() {
                return Ok(());
            }
            if let Some(status) = self.process.status() {
                return Err(self.start_error(status));
            }
            if Instant::now() > give_up {
                let seconds = START.as_secs_f64();
                return Err(Error::Timeout { what: "QEMU's sockets".to_owned(), seconds, tail: self.stderr_text() });
            }
            thread::sleep(POLL);
        }
    }

    fn start_error(&mut self, status: ExitStatus) -> Error {
        self.drain_ended();
        let own = self.stderr.iter().filter(|line| line.starts_with("qkprobe: "));
        let own: Vec<_> = own.map(|line| line.trim_start_matches("qkprobe: ").trim_start_matches("error: ")).collect();
        if own.is_empty() {
            return Error::Start { status: status.to_string(), stderr: self.stderr_text() };
        }
        Error::Refused { code: "EINVAL".to_owned(), message: own.join("\n") }
    }

    /// Takes the next happening, waiting at most so long for it.
    pub fn next(&mut self, patience: Duration) -> Option<Happening> {
        let happening = match self.happenings.as_ref()?.recv_timeout(patience) {
            Ok(happening) => happening,
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return None,
        };
        self.note(&happening);
        Some(happening)
    }

    fn note(&mut self, happening: &Happening) {
        match happening {
            Happening::Console(bytes) => {
                self.console.extend(bytes);
                let excess = self.console.len().saturating_sub(CONSOLE_BYTES);
                self.console.drain(..excess);
            }
            Happening::Stderr(line) => {
                self.stderr.push_back(line.clone());
                if self.stderr.len() > STDERR_LINES {
                    self.stderr.pop_front();
                }
            }
            Happening::Machine(event) if event.get("event").and_then(Value::as_str) == Some("SHUTDOWN") => {
                let reason = event.get("data").and_then(|data| data.get("reason")).and_then(Value::as_str);
                self.reason = reason.map(str::to_owned);
            }
            Happening::Machine(_) | Happening::Trace(_) => {}
        }
    }

    /// Whether QEMU has ended and everything that it left has been taken by [`Guest::next`].
    pub fn is_over(&mut self) -> bool {
        if self.process.status().is_none() {
            return false;
        }
        self.trace.end();
        let told = self.qmp.as_ref().is_none_or(Qmp::is_finished);
        told && self.trace.is_finished() && self.readers.iter().all(JoinHandle::is_finished)
    }

    /// How it ended; `None` while it runs.
    #[must_use]
    pub fn end(&self) -> Option<End> {
        let status = self.process.status()?;
        if self.ended_by_us {
            return Some(End::Ended);
        }
        if let Some(signal) = status.signal() {
            return Some(End::Killed(signal));
        }
        Some(match (status.code(), self.reason.as_deref()) {
            (Some(0), Some("guest-shutdown")) => End::PowerOff,
            (Some(0), Some("guest-reset" | "guest-panic")) => End::Reset,
            (Some(code), _) => End::Exit(code),
            (None, _) => End::Exit(-1),
        })
    }

    /// Ends QEMU if it still runs; what it still writes is taken and handed to `each`.
    pub fn stop(&mut self, mut each: impl FnMut(&Happening)) {
        if self.process.status().is_none() {
            self.ended_by_us = true;
            self.process.signal(Signal::TERM);
            self.process.signal(Signal::CONT);
            let kill = Instant::now() + LINGER;
            while self.process.status().is_none() {
                // The plugin writes what it has before it ends: somebody must read.
                if let Some(happening) = self.next(POLL) {
                    each(&happening);
                }
                if Instant::now() > kill {
                    self.process.signal(Signal::KILL);
                }
            }
        }
        self.process.end();
        let give_up = Instant::now() + LINGER;
        loop {
            let over = self.is_over();
            match self.next(POLL) {
                Some(happening) => each(&happening),
                None if over || Instant::now() > give_up => break,
                None => {}
            }
        }
    }

    fn drain_ended(&mut self) {
        self.stop(|_| {});
    }

    /// Asks QEMU to end the machine, as [`Guest::stop`] does, without waiting for it.
    pub fn ask_to_end(&mut self) {
        self.ended_by_us = true;
        self.process.signal(Signal::TERM);
    }

    /// The plugin's control socket.
    ///
    /// # Errors
    /// QEMU has ended.
    pub fn control(&mut self) -> Result<&mut Control, Error> {
        self.control.as_mut().ok_or(Error::Talk { what: "control socket", detail: "the guest is gone".to_owned() })
    }

    /// A line for QEMU's human monitor, and what it says.
    ///
    /// # Errors
    /// QEMU does not answer: it has ended, or a vCPU stands in a probe.
    pub fn monitor(&mut self, line: &str) -> Result<String, Error> {
        match &mut self.qmp {
            Some(qmp) => qmp.monitor(line),
            None => Err(Error::Talk { what: "QEMU's monitor", detail: "the guest is gone".to_owned() }),
        }
    }

    /// Stops the machine, or lets it go on.
    ///
    /// # Errors
    /// As [`Guest::monitor`].
    pub fn set_running(&mut self, on: bool) -> Result<(), Error> {
        match &mut self.qmp {
            Some(qmp) => qmp.execute(if on { "cont" } else { "stop" }, Value::Null).map(drop),
            None => Err(Error::Talk { what: "QEMU's monitor", detail: "the guest is gone".to_owned() }),
        }
    }

    /// QEMU's process ID.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Since the machine began to run.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// The kernel's image.
    #[must_use]
    pub fn image(&self) -> &Arc<KernelImage> {
        &self.image
    }

    /// The guest's architecture.
    #[must_use]
    pub fn arch(&self) -> &'static GuestArch {
        self.arch
    }

    /// QEMU's program.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// The guest's own folder: `control.sock`, `qmp.sock`, `summary.json`.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What the guest has written to its console so far, without carriage returns; the last 4 MiB of it.
    #[must_use]
    pub fn console(&self) -> String {
        let bytes: Vec<u8> = self.console.iter().copied().filter(|byte| *byte != b'\r').collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The console's last lines, fit for a terminal.
    #[must_use]
    pub fn console_tail(&self, lines: usize) -> Vec<String> {
        let bytes: Vec<u8> = self.console.iter().copied().collect();
        let all = escape::lines(&bytes);
        all.get(all.len().saturating_sub(lines)..).unwrap_or_default().to_vec()
    }

    /// What QEMU and the plugin wrote to standard error, fit for a terminal.
    #[must_use]
    pub fn stderr_text(&self) -> String {
        let lines: Vec<_> = self.stderr.iter().map(|line| escape::line(line.as_bytes())).collect();
        lines.join("\n")
    }

    /// The plugin's summary, when QEMU has ended in order.
    #[must_use]
    pub fn summary(&self) -> Option<Summary> {
        let text = fs::read_to_string(self.folder.path().join(SUMMARY)).ok()?;
        serde_json::from_str(&text).ok()
    }

    /// Adds a probe to the running guest.
    ///
    /// # Errors
    /// The plugin's refusal, with the kernel's text.
    pub fn add(&mut self, definition: &str) -> Result<(), Error> {
        self.control()?.add(&[definition.to_owned()]).map(drop)
    }

    /// How often a probe has hit so far; 0 for one that does not exist.
    ///
    /// # Errors
    /// QEMU has ended.
    pub fn hits(&mut self, event: &str) -> Result<u64, Error> {
        let profile = self.control()?.profile()?;
        Ok(profile.iter().filter(|probe| probe.event == event).map(|probe| probe.hits).sum())
    }

    /// Waits for the next event that `wanted` accepts. Events before it are passed over.
    ///
    /// # Errors
    /// [`Error::Timeout`], [`Error::Ended`].
    pub fn event(&mut self, patience: Duration, mut wanted: impl FnMut(&Event) -> bool) -> Result<Event, Error> {
        self.wait("the event", patience, |_, happening| match happening {
            Some(Happening::Trace(line)) => Event::parse(line).filter(|event| wanted(event)),
            _ => None,
        })
    }

    /// Waits until `text` is on the console, or was there before.
    ///
    /// # Errors
    /// [`Error::Timeout`], [`Error::Ended`].
    pub fn wait_for_console(&mut self, text: &str, patience: Duration) -> Result<(), Error> {
        let what = format!("{text:?} on the console");
        self.wait(&what, patience, |guest, happening| match happening {
            None | Some(Happening::Console(_)) => guest.console().contains(text).then_some(()),
            Some(_) => None,
        })
    }

    /// Waits until the guest ends by itself.
    ///
    /// # Errors
    /// [`Error::Timeout`]: it runs on.
    pub fn wait_for_end(&mut self, patience: Duration) -> Result<End, Error> {
        let give_up = Instant::now() + patience;
        loop {
            let over = self.is_over();
            let nothing = self.next(POLL).is_none();
            if let Some(end) = self.end().filter(|_| over && nothing) {
                return Ok(end);
            }
            if Instant::now() > give_up {
                return Err(self.timeout("the guest's end", patience));
            }
        }
    }

    /// `look` is asked once at the start, with nothing, and then for each happening.
    fn wait<T>(
        &mut self,
        what: &str,
        patience: Duration,
        mut look: impl FnMut(&Self, Option<&Happening>) -> Option<T>,
    ) -> Result<T, Error> {
        let give_up = Instant::now() + patience;
        if let Some(found) = look(self, None) {
            return Ok(found);
        }
        loop {
            let over = self.is_over();
            match self.next(POLL) {
                Some(happening) => {
                    if let Some(found) = look(self, Some(&happening)) {
                        return Ok(found);
                    }
                }
                None if over => {
                    let how = self.end().map(|end| end.to_string()).unwrap_or_default();
                    return Err(Error::Ended { what: what.to_owned(), how, tail: self.tail() });
                }
                None => {}
            }
            if Instant::now() > give_up {
                return Err(self.timeout(what, patience));
            }
        }
    }

    fn timeout(&self, what: &str, patience: Duration) -> Error {
        Error::Timeout { what: what.to_owned(), seconds: patience.as_secs_f64(), tail: self.tail() }
    }

    fn tail(&self) -> String {
        let lines = self.console_tail(TAIL);
        if lines.is_empty() { String::new() } else { format!("; the console's last lines:\n{}", lines.join("\n")) }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        if self.process.status().is_none() {
            self.drain_ended();
        }
        // A reader that waits for room would never end.
        self.happenings = None;
        self.qmp = None;
        self.control = None;
        self.trace.finish();
        self.readers.drain(..).for_each(|reader| drop(reader.join()));
    }
}
