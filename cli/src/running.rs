//! A QEMU that runs, whatever it was started with: its console, its own words, signals, its end.
//! However the program that started it ends, QEMU ends too, and its folder goes.

use std::fs;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::SyncSender;
use std::thread;
use std::time::{Duration, Instant};

use crate::capture::Capture;
use crate::error::Error;
use crate::escape;
use crate::folder::Folder;
use crate::process::Process;
use crate::streams::{Happening, Lines};
use crate::summary::Summary;
use crate::watched;

/// How often to look for what nobody tells.
pub(crate) const POLL: Duration = Duration::from_millis(5);
/// Between the last byte of a QEMU and its end.
const LINGER: Duration = Duration::from_secs(10);
/// How long a QEMU that has closed its sockets may take to end.
const DYING: Duration = Duration::from_secs(2);
/// What the plugin's lines begin with: all of them, the first of a refusal, the first of the summary's table.
const PLUGIN: &str = "qkprobe: ";
const REFUSAL: &str = "qkprobe: error: ";
const TABLE: &str = "qkprobe: QEMU ";
/// Lines of the console, and of QEMU's own words, in messages.
const TAIL: usize = 25;
/// How many of QEMU's own lines [`Running::stderr_text`] shows.
const STDERR_LINES: usize = 1000;

/// A signal for QEMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Ctrl-C.
    Interrupt,
    /// The polite request to end.
    Terminate,
    /// The terminal is gone.
    HangUp,
    /// The end, without a chance to clean up.
    Kill,
}

/// A QEMU that runs: [`Boot::launch`](crate::Boot::launch) makes one, and a [`Guest`](crate::Guest) is one. Dropping it ends QEMU and
/// removes its folder.
#[derive(Debug)]
pub struct Running {
    pub(crate) process: Process,
    pub(crate) console: Capture,
    pub(crate) stderr: Capture,
    folder: Folder,
    summary: PathBuf,
    program: PathBuf,
    command: String,
    start: Instant,
    last_words: Option<&'static str>,
}

/// What a QEMU that has ended left.
#[derive(Debug)]
pub struct Finished {
    /// How QEMU ended.
    pub status: ExitStatus,
    /// From QEMU's start to its end.
    pub duration: Duration,
    /// What the guest wrote to its console, without carriage returns: as [`Running::console`].
    pub console: String,
    /// What QEMU and the plugin wrote to standard error.
    pub stderr: String,
    /// QEMU's command line, for people.
    pub command: String,
    /// The guest's own folder: `trace`, `summary.json`, and what else the plugin was told to write there.
    pub folder: Folder,
    summary: PathBuf,
}

impl Finished {
    /// The plugin's summary, if there was a plugin and it came to its end.
    #[must_use]
    pub fn summary(&self) -> Option<Summary> {
        summary(&self.summary)
    }
}

fn summary(file: &Path) -> Option<Summary> {
    serde_json::from_str(&fs::read_to_string(file).ok()?).ok()
}

impl Running {
    /// Starts QEMU. What it writes becomes happenings too, if somebody listens. `last_words` on the console mean that the guest is
    /// over and QEMU does not know.
    pub(crate) fn start(
        mut command: Command,
        folder: Folder,
        summary: PathBuf,
        last_words: Option<&'static str>,
        listener: Option<&SyncSender<Happening>>,
    ) -> Result<Self, Error> {
        let program = PathBuf::from(command.get_program());
        let (stdout, out) = std::io::pipe().map_err(Error::io(&program))?;
        let (stderr, err) = std::io::pipe().map_err(Error::io(&program))?;
        command.stdin(Stdio::null()).stdout(out).stderr(err);
        let text = format!("{command:?}");
        // What is left of `command`, and with it this side's copies of the pipes' writing ends, goes when QEMU is started.
        let process = Process::start(command).map_err(Error::io(&program))?;
        let start = Instant::now();
        let to = listener.cloned();
        let console = Capture::start("console", stdout, move |bytes| {
            let Some(to) = to.as_ref().filter(|_| !bytes.is_empty()) else { return true };
            to.send(Happening::Console(bytes.to_vec())).is_ok()
        });
        let (to, mut lines) = (listener.cloned(), Lines::default());
        let stderr = Capture::start("stderr", stderr, move |bytes| {
            let Some(to) = &to else { return true };
            let each = |line| to.send(Happening::Stderr(line)).is_ok();
            if bytes.is_empty() { lines.end(each) } else { lines.feed(bytes, each) }
        });
        let console = console.map_err(Error::io(&program))?;
        let stderr = stderr.map_err(Error::io(&program))?;
        Ok(Self { process, console, stderr, folder, summary, program, command: text, start, last_words })
    }

    /// QEMU's process ID.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// QEMU's program.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// QEMU's command line, for people.
    #[must_use]
    pub fn command(&self) -> &str {
        &self.command
    }

    /// The guest's own folder, where its sockets, `trace` and `summary.json` are if nobody put them elsewhere.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Since QEMU was started.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// How QEMU ended; `None` while it runs.
    #[must_use]
    pub fn status(&self) -> Option<ExitStatus> {
        self.process.status()
    }

    /// Sends a signal to QEMU and its children. A QEMU that has ended gets none.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(match signal {
            Signal::Interrupt => rustix::process::Signal::INT,
            Signal::Terminate => rustix::process::Signal::TERM,
            Signal::HangUp => rustix::process::Signal::HUP,
            Signal::Kill => rustix::process::Signal::KILL,
        });
    }

    /// What the guest has written to its console so far, without carriage returns; of very much, the last 4 MiB at least.
    #[must_use]
    pub fn console(&self) -> String {
        self.console.text()
    }

    /// The console's last lines, fit for a terminal.
    #[must_use]
    pub fn console_tail(&self, lines: usize) -> Vec<String> {
        tail(escape::console_lines(&self.console.bytes()), lines)
    }

    /// What QEMU and the plugin have written to standard error so far, as it is; of very much, the last 4 MiB at least.
    #[must_use]
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.stderr.bytes()).into_owned()
    }

    /// The last thousand lines of the same, fit for a terminal.
    #[must_use]
    pub fn stderr_text(&self) -> String {
        tail(escape::lines(&self.stderr.bytes()), STDERR_LINES).join("\n")
    }

    /// The plugin's summary, when QEMU has ended in order.
    #[must_use]
    pub fn summary(&self) -> Option<Summary> {
        summary(&self.summary)
    }

    /// Waits until `text` is on the console, or was there before.
    ///
    /// # Errors
    /// [`Error::Timeout`], [`Error::Ended`].
    pub fn wait_for_console(&self, text: &str, patience: Duration) -> Result<(), Error> {
        self.wait_for(&self.console, "the console", text, patience)
    }

    /// The same for what QEMU and the plugin write to standard error.
    ///
    /// # Errors
    /// [`Error::Timeout`], [`Error::Ended`].
    pub fn wait_for_stderr(&self, text: &str, patience: Duration) -> Result<(), Error> {
        self.wait_for(&self.stderr, "standard error", text, patience)
    }

    fn wait_for(&self, output: &Capture, name: &str, text: &str, patience: Duration) -> Result<(), Error> {
        if output.wait_for(text, patience) {
            return Ok(());
        }
        let what = format!("{text:?} on {name}");
        if !output.is_over() {
            return Err(self.timeout(&what, patience));
        }
        let how = self.process.wait(LINGER).map(|status| status.to_string()).unwrap_or_default();
        self.hear_out();
        Err(Error::Ended { what, how, tail: self.tail() })
    }

    /// Connects to a socket that QEMU or the plugin makes, as soon as it is there. A relative path is one in the guest's folder.
    ///
    /// # Errors
    /// [`Error::Refused`]: the plugin's words. [`Error::Start`]: QEMU has ended without any. [`Error::Timeout`].
    pub fn connect(&self, socket: &Path, patience: Duration) -> Result<UnixStream, Error> {
        let (path, start) = (self.folder().join(socket), Instant::now());
        loop {
            // Asked before the attempt: what was there before the end is found.
            let status = self.status();
            match UnixStream::connect(&path) {
                Ok(stream) => return Ok(stream),
                Err(_) if status.is_none() && start.elapsed() < patience => thread::sleep(POLL),
                Err(_) => {}
            }
            if let Some(status) = status {
                return Err(self.start_error(status));
            }
            if start.elapsed() >= patience {
                return Err(self.timeout(&format!("{} of QEMU", path.display()), patience));
            }
        }
    }

    /// Waits until what an ended QEMU has written is here, so that messages can show it.
    fn hear_out(&self) {
        let start = Instant::now();
        while !(self.console.is_over() && self.stderr.is_over()) && start.elapsed() < LINGER {
            thread::sleep(POLL);
        }
    }

    /// Why a QEMU that has ended did not come up.
    fn start_error(&self, status: ExitStatus) -> Error {
        self.hear_out();
        let words = self.words();
        // A plugin that was loaded says other things as well.
        let refusal = words.iter().skip_while(|line| !line.starts_with(REFUSAL));
        let own = refusal.filter_map(|line| line.strip_prefix(REFUSAL).or_else(|| line.strip_prefix(PLUGIN)));
        let own: Vec<&str> = own.collect();
        if own.is_empty() {
            let status = status.signal().map_or_else(|| status.to_string(), watched::signal_name);
            return Error::Start { status, stderr: words.join("\n") };
        }
        Error::Refused { code: "EINVAL".to_owned(), errno: 22, message: own.join("\n") }
    }

    /// What QEMU and the plugin have said, fit for a terminal, without the summary's table.
    pub(crate) fn words(&self) -> Vec<String> {
        let mut lines = tail(escape::lines(&self.stderr.bytes()), STDERR_LINES);
        if let Some(start) = lines.iter().rposition(|line| line.starts_with(TABLE)) {
            let is_table = |line: &&String| line.starts_with("  ") || line.starts_with(PLUGIN);
            let rows = lines.iter().skip(start).take_while(is_table).count();
            lines.drain(start..start + rows);
        }
        lines
    }

    /// The error of a QEMU that ended while somebody began to speak to it; `error` where it runs on.
    pub(crate) fn died_or(&self, error: Error) -> Error {
        self.process.wait(DYING).map_or(error, |status| self.start_error(status))
    }

    /// Waits for QEMU's end, at most until it has run so long, and takes what it left.
    ///
    /// # Errors
    /// [`Error::Timeout`]: it ran on, and is ended.
    pub fn finish(mut self, limit: Duration) -> Result<Finished, Error> {
        let status = loop {
            if let Some(status) = self.process.wait(10 * POLL) {
                break status;
            }
            if self.last_words.take_if(|words| self.console.text().contains(*words)).is_some() {
                self.signal(Signal::Terminate);
            }
            if self.elapsed() > limit {
                return Err(self.timeout("QEMU's end", limit));
            }
        };
        let duration = self.elapsed();
        self.end();
        let Self { process, console, stderr, folder, summary, command, .. } = self;
        drop(process);
        let stderr = String::from_utf8_lossy(&stderr.bytes()).into_owned();
        Ok(Finished { status, duration, console: console.text(), stderr, command, folder, summary })
    }

    /// Waits until everything that an ended QEMU wrote has been read.
    fn end(&mut self) {
        self.process.end();
        self.console.finish();
        self.stderr.finish();
    }

    pub(crate) fn timeout(&self, what: &str, patience: Duration) -> Error {
        Error::Timeout { what: what.to_owned(), seconds: patience.as_secs_f64(), tail: self.tail() }
    }

    /// What console and standard error say last.
    pub(crate) fn tail(&self) -> String {
        let section = |what: &str, lines: Vec<String>| {
            if lines.is_empty() { String::new() } else { format!("; {what} last lines:\n{}", lines.join("\n")) }
        };
        section("the console's", self.console_tail(TAIL))
            + &section("QEMU's own", tail(escape::lines(&self.stderr.bytes()), TAIL))
    }
}

fn tail(mut lines: Vec<String>, count: usize) -> Vec<String> {
    lines.split_off(lines.len().saturating_sub(count))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(60);

    /// A shell in QEMU's place.
    fn shell(script: &str, last_words: Option<&'static str>) -> Running {
        let folder = Folder::large().expect("a folder");
        let mut command = Command::new("sh");
        command.args(["-c", script]).current_dir(folder.path());
        let summary = folder.path().join("summary.json");
        Running::start(command, folder, summary, last_words, None).expect("it starts")
    }

    #[test]
    fn console_words_signal_and_end() {
        let script = "trap 'echo bye; exit 3' TERM; printf 'on the\\r\\nline'; echo words >&2; sleep 1000 & wait";
        let running = shell(script, None);
        running.wait_for_console("the\nline", SOON).expect("it comes");
        running.wait_for_stderr("words\n", SOON).expect("it comes");
        let error = running.wait_for_console("never", Duration::from_millis(100)).expect_err("it does not").to_string();
        let told = "\"never\" on the console did not come within 0.1 s; the console's last lines:\non the\nline; \
                    QEMU's own last lines:\nwords";
        assert_eq!(error, told);
        assert_eq!(running.status(), None);
        running.signal(Signal::Terminate);
        let folder = running.folder().to_owned();
        let left = running.finish(SOON).expect("it ends");
        assert_eq!(
            (left.status.code(), left.console.as_str(), left.stderr.as_str()),
            (Some(3), "on the\nlinebye\n", "words\n")
        );
        assert!(folder.is_dir() && left.summary().is_none());
        drop(left);
        assert!(!folder.exists());
    }

    #[test]
    fn what_cannot_come_any_more() {
        let running = shell("echo 'qkprobe: error: no such place' >&2; echo '  ^ here' >&2; exit 1", None);
        let error = running.wait_for_console("never", SOON).expect_err("it has ended").to_string();
        assert!(error.starts_with("the guest ended (exit status: 1) before \"never\" on the console; "), "{error}");
        let error = running.connect(Path::new("none.sock"), SOON).expect_err("nobody listens");
        assert!(matches!(&error, Error::Refused { message, .. } if message == "no such place"), "{error}");
        let error = shell("echo cannot >&2; exit 1", None).connect(Path::new("none.sock"), SOON).expect_err("the same");
        assert_eq!(error.to_string(), "QEMU ended at once (exit status: 1)\ncannot");
    }

    #[test]
    fn who_does_not_end_is_ended() {
        let error = shell("sleep 1000", None).finish(Duration::from_millis(200)).expect_err("it does not").to_string();
        assert!(error.starts_with("QEMU's end did not come within 0.2 s"), "{error}");
        let script = "trap 'exit 0' TERM; echo last words; sleep 1000 & wait";
        assert!(shell(script, Some("last words")).finish(SOON).expect("it ends").status.success());
    }
}
