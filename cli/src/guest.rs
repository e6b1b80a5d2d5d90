//! A guest that runs, with its events as they come: a [`Running`] QEMU with the plugin's control socket, the trace, and QEMU's
//! monitor.

use std::ops::Deref;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use qkprobe_symbols::KernelImage;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::arch::GuestArch;
use crate::boot::{Boot, MONITOR, TRACE};
use crate::command::{Way, is_option};
use crate::control::Control;
use crate::error::Error;
use crate::event::Event;
use crate::folder::Folder;
use crate::qmp::Qmp;
use crate::running::{POLL, Running};
use crate::streams::{Happening, TracePipe};
use crate::summary::Quit;
use crate::watched::{self, Ended, WATCH_GROUP, Watched};

/// How many happenings may wait.
const QUEUE: usize = 4096;
/// How long QEMU may take until its sockets are there.
const START: Duration = Duration::from_secs(60);
/// How long an ended QEMU is listened to: what it wrote is in pipes.
const LINGER: Duration = Duration::from_secs(10);

/// How a guest ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The guest turned the power off.
    PowerOff,
    /// The guest rebooted, or its kernel did after a panic.
    Reset,
    /// This side ended it.
    Ended,
    /// A probe's `quit`, or a client's, ended QEMU with this status.
    Quit {
        /// The status.
        status: u8,
        /// `GROUP/EVENT` of the probe; `None`: a client of the control socket.
        by: Option<String>,
    },
    /// QEMU ended with this status though nobody asked it to.
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
            Self::Quit { status, by: Some(probe) } => write!(f, "quit={status} of the probe {probe}"),
            Self::Quit { status, by: None } => write!(f, "quit with status {status} by a client"),
            Self::Exit(status) => write!(f, "QEMU exited with status {status}"),
            Self::Killed(signal) => write!(f, "QEMU was killed by {}", watched::signal_name(*signal)),
        }
    }
}

/// A running guest: [`Boot::start`] makes one. Dropping it ends QEMU and removes its folder.
#[derive(Debug)]
pub struct Guest {
    running: Running,
    /// `None` only while it is dropped: a reader that waits for room in the queue must be let go.
    happenings: Option<Receiver<Happening>>,
    trace: TracePipe,
    qmp: Option<Qmp>,
    control: Option<Control>,
    /// Passes on what this crate's own probes see.
    watcher: Option<JoinHandle<()>>,
    watched: Watched,
    has_initrd: bool,
    image: Arc<KernelImage>,
    arch: &'static GuestArch,
    start: Instant,
    /// Why the machine stopped, in QEMU's words.
    reason: Option<String>,
    ended_by_us: bool,
}

/// What is to be known of its QEMU.
impl Deref for Guest {
    type Target = Running;

    fn deref(&self) -> &Running {
        &self.running
    }
}

impl Guest {
    pub(crate) fn start(boot: &Boot) -> Result<Self, Error> {
        let image = boot.load_image()?;
        let arch = boot.arch_for(&image)?;
        let folder = Folder::small().map_err(Error::io(std::env::temp_dir()))?;
        let command = boot.command(Some(&image), arch, folder.path(), Way::Guest)?;
        let stays_stopped = command.get_args().filter(|arg| is_option(arg, "S")).count() > 1;
        let (send, happenings) = sync_channel(QUEUE);
        let pipe = folder.path().join(TRACE);
        let mut trace = TracePipe::open(&pipe, send.clone()).map_err(Error::io(&pipe))?;
        let summary = boot.summary_file(folder.path());
        let running = Running::start(command, folder, summary, None, Some(&send)).inspect_err(|_| trace.finish())?;
        let mut guest = Self {
            running,
            happenings: Some(happenings),
            trace,
            qmp: None,
            control: None,
            watcher: None,
            watched: Watched::default(),
            has_initrd: boot.initrd.is_some() || boot.init.is_some(),
            image,
            arch,
            start: Instant::now(),
            reason: None,
            ended_by_us: false,
        };
        // A QEMU that dies meanwhile has said why.
        let begun = guest.begin(boot, &send, stays_stopped);
        begun.map_err(|error| guest.running.died_or(error)).map(|()| guest)
    }

    /// Connects to everything, and lets the machine run.
    fn begin(&mut self, boot: &Boot, send: &SyncSender<Happening>, stays_stopped: bool) -> Result<(), Error> {
        self.qmp = Some(self.talk(Path::new(MONITOR), |socket| Qmp::over(socket, send.clone()))?);
        let path = boot.control_socket(self.folder());
        let control = |socket| {
            let mut control = Control::over(socket)?;
            control.greet().map(|()| control)
        };
        self.control = Some(self.talk(&path, control)?);
        if boot.watch {
            self.watcher = Some(pass_on(self.talk(&path, control)?, send.clone())?);
        }
        self.start = Instant::now();
        if let Some(qmp) = self.qmp.as_mut().filter(|_| !stays_stopped) {
            qmp.execute("cont", Value::Null)?;
        }
        Ok(())
    }

    /// Connects to a socket and begins the conversation; again if QEMU is too busy for that.
    fn talk<T>(&self, socket: &Path, begin: impl Fn(UnixStream) -> Result<T, Error>) -> Result<T, Error> {
        let start = Instant::now();
        loop {
            let left = START.saturating_sub(start.elapsed());
            match begin(self.running.connect(socket, left)?) {
                Err(_) if !left.is_zero() => thread::sleep(POLL),
                outcome => return outcome,
            }
        }
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
        let event = match happening {
            Happening::Machine(event) => event,
            Happening::Watched(event) => return self.watched.note(event),
            Happening::Console(_) | Happening::Trace(_) | Happening::Stderr(_) => return,
        };
        if event.get("event").and_then(Value::as_str) == Some("SHUTDOWN") {
            let reason = event.get("data").and_then(|data| data.get("reason")).and_then(Value::as_str);
            self.reason = reason.map(str::to_owned);
        }
    }

    /// Whether QEMU has ended and everything that it left has been taken by [`Guest::next`].
    pub fn is_over(&mut self) -> bool {
        if self.running.status().is_none() {
            return false;
        }
        self.trace.end();
        let told = self.qmp.as_ref().is_none_or(Qmp::is_finished);
        let watched = self.watcher.as_ref().is_none_or(JoinHandle::is_finished);
        told && watched && self.trace.is_finished() && self.running.console.is_over() && self.running.stderr.is_over()
    }

    /// How it ended; `None` while it runs.
    #[must_use]
    pub fn end(&self) -> Option<End> {
        let status = self.running.status()?;
        if self.ended_by_us {
            return Some(End::Ended);
        }
        if let Some(signal) = status.signal() {
            return Some(End::Killed(signal));
        }
        if let Some(Quit { status, by }) = self.running.summary().and_then(|summary| summary.quit) {
            return Some(End::Quit { status, by });
        }
        Some(match (status.code(), self.reason.as_deref()) {
            (Some(0), Some("guest-shutdown")) => End::PowerOff,
            (Some(0), Some("guest-reset" | "guest-panic")) => End::Reset,
            (Some(code), _) => End::Exit(code),
            (None, _) => End::Exit(-1),
        })
    }

    /// What this crate's own probes saw so far, if the boot was told to [watch](Boot::watch).
    #[must_use]
    pub fn watched(&self) -> &Watched {
        &self.watched
    }

    /// How it ended and why, as far as that can be told, in one line; `None` while it runs.
    #[must_use]
    pub fn ending(&self) -> Option<String> {
        let console = self.console();
        let sees_start = self.watcher.is_some() && watched::sees_start(&self.image);
        let (watched, has_initrd) = (&self.watched, self.has_initrd);
        Some(Ended { end: self.end()?, watched, console: &console, sees_start, has_initrd }.tell())
    }

    /// Ends QEMU if it still runs; what it still writes is taken and handed to `each`.
    pub fn stop(&mut self, mut each: impl FnMut(&Happening)) {
        if self.running.status().is_none() {
            self.ended_by_us = true;
            self.running.process.signal(Signal::TERM);
            self.running.process.signal(Signal::CONT);
            let kill = Instant::now() + LINGER;
            while self.running.status().is_none() {
                // The plugin writes what it has before it ends: somebody must read.
                if let Some(happening) = self.next(POLL) {
                    each(&happening);
                }
                if Instant::now() > kill {
                    self.running.process.signal(Signal::KILL);
                }
            }
        }
        self.running.process.end();
        let give_up = Instant::now() + LINGER;
        loop {
            let over = self.is_over();
            match self.next(POLL) {
                Some(happening) => each(&happening),
                None if over || Instant::now() > give_up => break,
                None => {}
            }
        }
        if let Some(summary) = self.running.summary() {
            self.watched.complete(&summary);
        }
    }

    fn drain_ended(&mut self) {
        self.stop(|_| {});
    }

    /// Asks QEMU to end the machine, as [`Guest::stop`] does, without waiting for it.
    pub fn ask_to_end(&mut self) {
        self.ended_by_us = true;
        self.running.process.signal(Signal::TERM);
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
                return Err(self.running.timeout("the guest's end", patience));
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
                    return Err(Error::Ended { what: what.to_owned(), how, tail: self.running.tail() });
                }
                None => {}
            }
            if Instant::now() > give_up {
                return Err(self.running.timeout(what, patience));
            }
        }
    }
}

/// Makes happenings of what this crate's own probes see, until QEMU ends.
fn pass_on(mut control: Control, to: SyncSender<Happening>) -> Result<JoinHandle<()>, Error> {
    let refused = |error: std::io::Error| Error::Talk { what: "control socket", detail: error.to_string() };
    control.request(json!({ "cmd": "subscribe", "events": [format!("{WATCH_GROUP}/")] }))?;
    // A guest may live long without any.
    control.socket().set_read_timeout(None).map_err(refused)?;
    let read = move || {
        while let Ok(Some(line)) = control.line() {
            let Some(event) = Event::of(line) else { continue };
            if to.send(Happening::Watched(event)).is_err() {
                break;
            }
        }
    };
    thread::Builder::new().name("qkprobe-watched".into()).spawn(read).map_err(refused)
}

impl Drop for Guest {
    fn drop(&mut self) {
        if self.running.status().is_none() {
            self.drain_ended();
        }
        // A reader that waits for room would never end.
        self.happenings = None;
        self.qmp = None;
        self.control = None;
        self.trace.finish();
        self.running.console.finish();
        self.running.stderr.finish();
    }
}
