//! The other side of `control=SOCKET`.

use std::fmt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use qkprobe_harness::Error;
use qkprobe_harness::control::Control;
use serde_json::{Value, json};

use crate::PATIENCE;
use crate::boot::Boot;
use crate::running::Running;

/// The control socket of [`Boot::control`], in the boot's folder, which is QEMU's.
const SOCKET: &str = "control.sock";

impl Boot {
    /// Loads the plugin with a control socket: see [`ControlClient::connect`].
    #[must_use]
    pub fn control(self) -> Self {
        self.plugin_arg(format!("control={SOCKET}"))
    }
}

/// A refusal of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlError {
    /// `ENOENT`, ...
    pub code: String,
    /// The same as a number.
    pub errno: i64,
    /// For people.
    pub message: String,
}

impl fmt::Display for ControlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}", self.code, self.errno, self.message)
    }
}

/// A client of the control socket: the harness's, which panics where a test can only fail.
#[derive(Debug)]
pub struct ControlClient {
    inner: Control,
}

/// What a probe had counted when it was deleted, or has counted so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counts {
    /// The event's name.
    pub event: String,
    /// Hits, misses, dropped records.
    pub hits: u64,
    /// Calls that could not be tracked.
    pub missed: u64,
    /// Hits without a record.
    pub dropped: u64,
}

impl ControlClient {
    /// Connects to a boot with [`Boot::control`], and reads the greeting.
    ///
    /// # Panics
    /// There is no server.
    #[must_use]
    #[track_caller]
    pub fn connect(running: &Running) -> Self {
        let mut client = Self::connect_silently(running);
        client.inner.greet().expect("the server greets");
        client
    }

    /// Connects and reads nothing.
    ///
    /// # Panics
    /// There is no server.
    #[must_use]
    #[track_caller]
    pub fn connect_silently(running: &Running) -> Self {
        let socket = connect(running, SOCKET);
        Self { inner: Control::over(socket).expect("a socket can be prepared") }
    }

    /// The socket itself, for what no honest client does.
    #[must_use]
    pub fn socket(&self) -> &UnixStream {
        self.inner.socket()
    }

    /// The next line from the server; `None` when it closed the connection.
    ///
    /// # Panics
    /// The line is no JSON, or none comes.
    #[track_caller]
    pub fn line(&mut self) -> Option<Value> {
        self.inner.line().unwrap_or_else(|error| panic!("{error}"))
    }

    /// Sends a request without waiting for the reply; returns its id.
    ///
    /// # Panics
    /// The server is gone.
    #[track_caller]
    pub fn send(&mut self, request: Value) -> u64 {
        self.inner.send(request).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Sends a request and waits for its result.
    ///
    /// # Errors
    /// What the server refuses.
    ///
    /// # Panics
    /// No reply comes.
    #[track_caller]
    pub fn try_request(&mut self, request: Value) -> Result<Value, ControlError> {
        match self.inner.request(request.clone()) {
            Ok(result) => Ok(result),
            Err(Error::Refused { code, errno, message }) => Err(ControlError { code, errno, message }),
            Err(error) => panic!("{request}: {error}"),
        }
    }

    /// [`try_request`](Self::try_request) for what must succeed.
    ///
    /// # Panics
    /// It does not.
    #[track_caller]
    pub fn request(&mut self, request: Value) -> Value {
        self.try_request(request.clone()).unwrap_or_else(|error| panic!("{request}: {error}"))
    }

    /// Adds one probe, and waits until it is armed.
    ///
    /// # Panics
    /// The server refuses, or it does not arm.
    #[track_caller]
    pub fn add(&mut self, definition: &str) -> Value {
        self.add_with(json!({ "def": definition }))
    }

    /// Adds one probe with options, and waits until it is armed.
    ///
    /// # Panics
    /// The server refuses, or it does not arm.
    #[track_caller]
    pub fn add_with(&mut self, mut table: Value) -> Value {
        table["cmd"] = "add".into();
        let mut result = self.request(table.clone());
        let added = result["added"][0].take();
        assert!(added["address"].is_string(), "{table}: {added}");
        if added["armed"] != true {
            self.settle();
        }
        added
    }

    /// Switches probes on (`enable`) or off (`disable`), and waits until the guest runs so; returns how many.
    ///
    /// # Panics
    /// The server refuses, or the guest does not come by.
    #[track_caller]
    pub fn switch(&mut self, cmd: &str, event: &str) -> u64 {
        let count = self.request(json!({ "cmd": cmd, "event": event }))["count"].as_u64();
        self.settle();
        count.unwrap_or_else(|| panic!("{cmd} {event}: no count"))
    }

    /// A reply waits for the guest for a second, which a guest on a busy machine may spend without a CPU.
    #[track_caller]
    fn settle(&mut self) {
        let start = Instant::now();
        loop {
            let status = self.status();
            if status["settled"] == true && status["kernel_found"] == true {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "{status}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Deletes what a selector names.
    ///
    /// # Panics
    /// The server refuses.
    #[track_caller]
    pub fn delete(&mut self, event: &str) -> Vec<Counts> {
        counts(&self.request(json!({ "cmd": "delete", "event": event }))["removed"])
    }

    /// The counters of all probes.
    ///
    /// # Panics
    /// The server refuses.
    #[track_caller]
    pub fn profile(&mut self) -> Vec<Counts> {
        counts(&self.request(json!({ "cmd": "profile" }))["probes"])
    }

    /// How often a probe has hit.
    ///
    /// # Panics
    /// There is no such probe.
    #[track_caller]
    pub fn hits(&mut self, event: &str) -> u64 {
        let profile = self.profile();
        let found = profile.iter().find(|counts| counts.event == event);
        found.unwrap_or_else(|| panic!("no {event} in {profile:?}")).hits
    }

    /// What the run is.
    ///
    /// # Panics
    /// The server refuses.
    #[track_caller]
    pub fn status(&mut self) -> Value {
        self.request(json!({ "cmd": "status" }))
    }

    /// The next line that is no reply.
    ///
    /// # Panics
    /// None comes.
    #[track_caller]
    pub fn event(&mut self) -> Value {
        self.inner.event(Some(PATIENCE)).unwrap_or_else(|error| panic!("{error}"))
    }

    /// What came so far and is no reply.
    pub fn take_events(&mut self) -> Vec<Value> {
        self.inner.take_events()
    }
}

#[track_caller]
fn counts(list: &Value) -> Vec<Counts> {
    let one = |value: &Value| {
        let number = |key: &str| value[key].as_u64().unwrap_or_else(|| panic!("no {key} in {value}"));
        Counts {
            event: value["event"].as_str().unwrap_or_default().to_owned(),
            hits: number("hits"),
            missed: number("missed"),
            dropped: number("dropped"),
        }
    };
    list.as_array().unwrap_or_else(|| panic!("no list: {list}")).iter().map(one).collect()
}

/// Connects as soon as the socket is there.
#[track_caller]
pub(crate) fn connect(running: &Running, name: &str) -> UnixStream {
    running.connect(Path::new(name), PATIENCE).unwrap_or_else(|error| panic!("{name}: {error}"))
}
