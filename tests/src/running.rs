//! A QEMU that runs. Whatever happens, it does not outlive its [`Running`].

use std::fmt;
use std::io::{self, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::cache::CacheError;
use crate::result::BootResult;

/// How often to look whether QEMU has ended.
const POLL: Duration = Duration::from_millis(5);
/// How many lines of the console an error shows.
const TAIL_LINES: usize = 25;

/// Why there is no [`BootResult`].
#[derive(Debug)]
pub enum BootError {
    /// Something of the set-up is missing.
    Cache(CacheError),
    /// A file or QEMU itself could not be used.
    Io(io::Error),
    /// The plugin was not built.
    NoPlugin,
    /// It took too long; QEMU was killed. `waited_for` is the text that did not come, if it was about one.
    Timeout {
        /// How long.
        after: Duration,
        /// The text of [`Running::wait_for_console`].
        waited_for: Option<String>,
        /// The end of the console and of QEMU's stderr.
        tail: String,
    },
    /// QEMU ended before it wrote the text that [`Running::wait_for_console`] waited for.
    Ended {
        /// That text.
        waited_for: String,
        /// The end of the console and of QEMU's stderr.
        tail: String,
    },
}

impl fmt::Display for BootError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cache(error) => error.fmt(f),
            Self::Io(error) => error.fmt(f),
            Self::NoPlugin => {
                f.write_str("the plugin is not built: `cargo build --release -p qkprobe-plugin`, or set QKPROBE_PLUGIN")
            }
            Self::Timeout { after, waited_for, tail } => {
                write!(f, "QEMU was killed after {} s", after.as_secs())?;
                if let Some(text) = waited_for {
                    write!(f, " without {text:?} on the console")?;
                }
                write!(f, "; its last words:\n{tail}")
            }
            Self::Ended { waited_for, tail } => {
                write!(f, "QEMU ended without {waited_for:?} on the console; its last words:\n{tail}")
            }
        }
    }
}

impl std::error::Error for BootError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Cache(error) => Some(error),
            Self::Io(error) => Some(error),
            Self::NoPlugin | Self::Timeout { .. } | Self::Ended { .. } => None,
        }
    }
}

impl From<CacheError> for BootError {
    fn from(error: CacheError) -> Self {
        Self::Cache(error)
    }
}

impl From<io::Error> for BootError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

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

/// A QEMU that runs. Dropping it kills QEMU.
#[derive(Debug)]
pub struct Running {
    child: Child,
    console: Arc<Console>,
    reader: Option<JoinHandle<()>>,
    folder: Option<TempDir>,
    command: String,
    start: Instant,
    timeout: Duration,
    last_words: Option<&'static str>,
}

/// What the guest wrote so far.
#[derive(Debug, Default)]
struct Console {
    state: Mutex<ConsoleState>,
    grown: Condvar,
}

#[derive(Debug, Default)]
struct ConsoleState {
    text: String,
    ended: bool,
}

impl Console {
    fn lock(&self) -> MutexGuard<'_, ConsoleState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_all(&self, mut from: impl Read) {
        let mut buffer = [0; 4096];
        let mut pending = Vec::new();
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            pending.extend_from_slice(&buffer[..count]);
            // A character may be cut in two; firmware also writes bytes that are no UTF-8 at all.
            let whole = match std::str::from_utf8(&pending) {
                Err(error) if error.error_len().is_none() => error.valid_up_to(),
                _ => pending.len(),
            };
            let text = String::from_utf8_lossy(&pending[..whole]).replace('\r', "");
            pending.drain(..whole);
            self.lock().text.push_str(&text);
            self.grown.notify_all();
        }
        self.lock().ended = true;
        self.grown.notify_all();
    }
}

impl Running {
    /// `last_words` on the console, if any, mean that the guest is over and QEMU does not know.
    pub(crate) fn start(
        mut command: Command,
        folder: TempDir,
        timeout: Duration,
        last_words: Option<&'static str>,
    ) -> Result<Self, BootError> {
        let stderr = std::fs::File::create(folder.path().join("stderr"))?;
        let mut child = command.stdout(Stdio::piped()).stderr(stderr).spawn()?;
        let start = Instant::now();
        let console = Arc::new(Console::default());
        let stdout = child.stdout.take().expect("stdout is a pipe");
        let reader = thread::spawn({
            let console = Arc::clone(&console);
            move || console.read_all(stdout)
        });
        let command = format!("{command:?}");
        Ok(Self { child, console, reader: Some(reader), folder: Some(folder), command, start, timeout, last_words })
    }

    /// The process ID of QEMU itself.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The boot's own folder: `trace`, `summary.json`, `stderr`. It is removed with the [`BootResult`].
    ///
    /// # Panics
    /// Never: the folder leaves only when `self` does.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.as_ref().expect("the folder is there until the end").path()
    }

    /// What the guest wrote to its console so far, without carriage returns.
    #[must_use]
    pub fn console(&self) -> String {
        self.console.lock().text.clone()
    }

    /// Waits until `text` is on the console, or was there before.
    ///
    /// # Errors
    /// The time is over, or QEMU ended; it is killed then.
    pub fn wait_for_console(&mut self, text: &str, timeout: Duration) -> Result<(), BootError> {
        let give_up = |state: &mut ConsoleState| !state.ended && !state.text.contains(text);
        let (state, _) = self
            .console
            .grown
            .wait_timeout_while(self.console.lock(), timeout, give_up)
            .unwrap_or_else(PoisonError::into_inner);
        if state.text.contains(text) {
            return Ok(());
        }
        let ended = state.ended;
        drop(state);
        let waited_for = text.to_owned();
        self.stop();
        let tail = self.tail();
        if ended {
            return Err(BootError::Ended { waited_for, tail });
        }
        Err(BootError::Timeout { after: timeout, waited_for: Some(waited_for), tail })
    }

    /// Sends a signal. A QEMU that has ended gets none.
    ///
    /// # Errors
    /// The signal could not be sent.
    pub fn signal(&mut self, signal: Signal) -> Result<(), BootError> {
        if self.child.try_wait()?.is_some() {
            return Ok(());
        }
        let name = match signal {
            Signal::Interrupt => "INT",
            Signal::Terminate => "TERM",
            Signal::HangUp => "HUP",
            Signal::Kill => return Ok(self.child.kill()?),
        };
        // Built into every shell; the program of that name is not on every machine.
        Command::new("sh").args(["-c", &format!("kill -{name} {}", self.pid())]).status()?;
        Ok(())
    }

    /// Whether QEMU has ended, and how.
    ///
    /// # Errors
    /// The system cannot say.
    pub fn try_wait(&mut self) -> Result<Option<ExitStatus>, BootError> {
        Ok(self.child.try_wait()?)
    }

    /// Waits for QEMU's end and collects what it left.
    ///
    /// # Errors
    /// It takes longer than the boot's timeout (counted from the start); QEMU is killed then.
    pub fn finish(mut self) -> Result<BootResult, BootError> {
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            if self.last_words.take_if(|words| self.console.lock().text.contains(*words)).is_some() {
                self.signal(Signal::Terminate)?;
            }
            if self.start.elapsed() > self.timeout {
                self.stop();
                return Err(BootError::Timeout { after: self.timeout, waited_for: None, tail: self.tail() });
            }
            thread::sleep(POLL);
        };
        let duration = self.start.elapsed();
        self.stop();
        let mut folder = self.folder.take().expect("the folder is there until the end");
        if std::env::var_os("QKPROBE_KEEP").is_some() {
            folder.disable_cleanup(true);
            eprintln!("kept {}: {}", folder.path().display(), self.command);
        }
        Ok(BootResult::collect(status, duration, self.console(), folder))
    }

    /// Kills QEMU if it is still there and waits until the console is read to its end.
    fn stop(&mut self) {
        // Both fail only for a process that is no more.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }

    fn tail(&self) -> String {
        let console = self.console();
        let lines: Vec<&str> = console.lines().collect();
        let stderr = std::fs::read_to_string(self.folder().join("stderr")).unwrap_or_default();
        format!(
            "--- console\n{}\n--- stderr\n{stderr}--- command\n{}",
            lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n"),
            self.command
        )
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}
