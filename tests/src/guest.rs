//! A guest that does its script step by step, when the test says so.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::PATIENCE;
use crate::boot::Boot;
use crate::control::ControlClient;
use crate::result::BootResult;
use crate::running::Running;

/// The host's end of the guest's `/dev/ttyS1`.
const GATE: &str = "gate.sock";
/// The same of a guest that asks for what it wants to read.
const ASKING_GATE: &str = "asking-gate.sock";
/// How it asks.
const QUESTION: u8 = b'?';

impl Boot {
    /// Gives the guest a port at which its script waits for [`Gate::open`]: the line [`gate`].
    #[must_use]
    pub fn gates(self) -> Self {
        let device = gate_device(self.kernel().arch().asks_at_gates());
        self.second_port(device)
    }
}

/// The character device of QEMU's behind the guest's second serial port, for who makes the command line by himself.
#[must_use]
pub fn gate_device(asks: bool) -> String {
    format!("socket,path={},server=on,wait=off", if asks { ASKING_GATE } else { GATE })
}

/// The line of a script that waits until the test opens this gate.
#[must_use]
pub fn gate(name: &str) -> String {
    format!("until 1000000 /dev/ttyS1 open-{name}.")
}

/// The test's hand on the gates of a guest ([`Boot::gates`]).
#[derive(Debug)]
pub struct Gate {
    port: UnixStream,
    /// How many questions are open, of a guest that asks.
    questions: Option<Arc<AtomicU32>>,
}

impl Gate {
    /// The gates of this guest.
    ///
    /// # Panics
    /// There are none.
    #[must_use]
    #[track_caller]
    pub fn of(running: &Running) -> Self {
        Self::within(running.folder(), || running.status().map(|_| running.stderr()))
    }

    /// The gates of a guest whose QEMU works in this folder; `over` tells what it said if it has ended.
    ///
    /// # Panics
    /// There are none.
    #[must_use]
    #[track_caller]
    pub fn within(folder: &Path, over: impl Fn() -> Option<String>) -> Self {
        let start = Instant::now();
        // Which of the two it is, is known when QEMU has made it.
        let (port, asks) = loop {
            let said = over();
            let connect = |name: &str| UnixStream::connect(folder.join(name)).ok();
            let port = connect(GATE).map(|port| (port, false)).or_else(|| Some((connect(ASKING_GATE)?, true)));
            if let Some(port) = port {
                break port;
            }
            assert!(said.is_none() && start.elapsed() < PATIENCE, "no gates: {said:?}");
            thread::sleep(Duration::from_millis(5));
        };
        let questions: Option<Arc<AtomicU32>> = asks.then(Arc::default);
        // The terminal's echo is of no use, and must not fill the socket.
        let mut echo = port.try_clone().expect("a socket can be cloned");
        let count = questions.clone();
        thread::spawn(move || -> std::io::Result<()> {
            let mut bytes = [0; 256];
            loop {
                let have = echo.read(&mut bytes)?;
                let asked = bytes[..have].iter().filter(|byte| **byte == QUESTION).count();
                if let (Some(count), Ok(asked)) = (&count, u32::try_from(asked)) {
                    count.fetch_add(asked, Ordering::Relaxed);
                }
                if have == 0 {
                    return Ok(());
                }
            }
        });
        Self { port, questions }
    }

    /// Opens a gate, and waits until `text` is on the console: what the script says some lines later.
    ///
    /// # Panics
    /// It does not come.
    #[track_caller]
    pub fn open(&mut self, running: &Running, name: &str, text: &str) {
        // Asked in this order: what an ended QEMU has left comes before its end.
        let seen = || running.status().is_some() || running.console().contains(text);
        let seen = self.open_until(name, seen) && (**running).wait_for_console(text, PATIENCE).is_ok();
        assert!(seen, "no {text:?} behind gate {name}:\n{}\n{}", running.console(), running.stderr());
    }

    /// Opens a gate, again and again until `seen`; returns whether that came.
    pub fn open_until(&mut self, name: &str, mut seen: impl FnMut() -> bool) -> bool {
        let start = Instant::now();
        let mut sent: Option<Instant> = None;
        while !seen() {
            if start.elapsed() > PATIENCE {
                return false;
            }
            // To a question, or again and again: what comes before the guest opens its port is lost.
            let due = match &self.questions {
                Some(questions) => questions.swap(0, Ordering::Relaxed) > 0,
                None => sent.is_none_or(|sent| sent.elapsed() > Duration::from_millis(300)),
            };
            if due {
                // The last byte ends a `read` like the end of a file. A QEMU that ends just now reads nothing any more.
                let _ = self.port.write_all(format!("open-{name}.\n\x04").as_bytes());
                sent = Some(Instant::now());
            }
            thread::sleep(Duration::from_millis(2));
        }
        true
    }
}

/// The gate behind the last step of a [`Guest`].
const LAST_GATE: &str = "end";

/// A guest whose script is in the test's hands: behind gate `i` it does step `i` and says so. Behind the last one it waits for
/// [`Guest::finish`], so that it can be asked until then.
#[derive(Debug)]
pub struct Guest {
    running: Option<Running>,
    gate: Gate,
    /// A client of the plugin's control socket.
    pub client: ControlClient,
    step: usize,
}

impl Guest {
    /// Boots with a control socket, to the first gate. The script of `boot` comes before; a step is a line of the
    /// script, or several.
    ///
    /// # Panics
    /// The guest does not come so far.
    #[must_use]
    #[track_caller]
    pub fn start<S: AsRef<str>>(boot: Boot, steps: impl IntoIterator<Item = S>) -> Self {
        // The first probe of a running guest is armed by the kernel's next block. In a guest that waits for its next step
        // that would be its next timer: here there is one a hundred times a second.
        let tick = "background expect-fail until 1000000 /proc/version never";
        let mut script = vec![tick.to_owned(), "say ready.".to_owned()];
        for (index, step) in steps.into_iter().enumerate() {
            script.extend([gate(&index.to_string()), step.as_ref().to_owned(), format!("say done-{index}.")]);
        }
        script.push(gate(LAST_GATE));
        let mut running = boot.gates().control().script(script).spawn().unwrap_or_else(|error| panic!("{error}"));
        let client = ControlClient::connect(&running);
        running.wait_for_console("ok say ready.", PATIENCE).unwrap_or_else(|error| panic!("{error}"));
        let gate = Gate::of(&running);
        Self { running: Some(running), gate, client, step: 0 }
    }

    /// The QEMU.
    ///
    /// # Panics
    /// Never: it leaves only when `self` does.
    #[must_use]
    pub fn running(&self) -> &Running {
        self.running.as_ref().expect("QEMU is there until the end")
    }

    /// Another client.
    ///
    /// # Panics
    /// There is no server.
    #[must_use]
    #[track_caller]
    pub fn connect(&self) -> ControlClient {
        ControlClient::connect(self.running())
    }

    /// Lets the guest do the next step, and waits until it is done.
    ///
    /// # Panics
    /// It takes too long.
    #[track_caller]
    pub fn step(&mut self) {
        let running = self.running.as_ref().expect("QEMU is there until the end");
        self.gate.open(running, &self.step.to_string(), &format!("ok say done-{}.", self.step));
        self.step += 1;
    }

    /// Lets the guest begin the next step.
    ///
    /// # Panics
    /// It takes too long until it does.
    #[track_caller]
    pub fn begin_step(&mut self, first_words: &str) {
        let running = self.running.as_ref().expect("QEMU is there until the end");
        self.gate.open(running, &self.step.to_string(), first_words);
        self.step += 1;
    }

    /// Waits for QEMU's end, whatever it is: somebody else brings it about.
    ///
    /// # Panics
    /// It does not come.
    #[must_use]
    #[track_caller]
    pub fn end(mut self) -> BootResult {
        let running = self.running.take().expect("QEMU is there until the end");
        running.finish().unwrap_or_else(|error| panic!("{error}"))
    }

    /// Lets a guest go that did its whole script, and waits for its end.
    ///
    /// # Panics
    /// It did not.
    #[must_use]
    #[track_caller]
    pub fn finish(mut self) -> BootResult {
        let running = self.running.as_ref().expect("QEMU is there until the end");
        self.gate.open_until(LAST_GATE, || running.status().is_some());
        let result = self.end();
        result.assert_ok();
        result
    }
}

impl Drop for Guest {
    /// A failed test shows what QEMU had to say.
    fn drop(&mut self) {
        if let Some(running) = self.running.as_ref().filter(|_| thread::panicking()) {
            // One that crashes takes its time.
            thread::sleep(Duration::from_secs(2));
            eprintln!("QEMU: {:?}\n{}{}", running.status(), running.stderr(), running.console());
        }
    }
}
