//! The other side of `control=SOCKET`.

use std::collections::VecDeque;
use std::fmt;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::boot::Boot;
use crate::running::Running;

/// The control socket of [`Boot::control`], in the boot's folder, which is QEMU's.
const SOCKET: &str = "control.sock";
/// How long a reply may take, on a machine that does other things as well.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

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

/// A client of the control socket.
#[derive(Debug)]
pub struct ControlClient {
    socket: UnixStream,
    reader: BufReader<UnixStream>,
    /// Lines that are no replies, in their order.
    events: VecDeque<Value>,
    next: u64,
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
        let greeting = client.line().expect("the server greets");
        assert_eq!(greeting["protocol"], 1, "{greeting}");
        client
    }

    /// Connects and reads nothing.
    ///
    /// # Panics
    /// There is no server.
    #[must_use]
    #[track_caller]
    pub fn connect_silently(running: &Running) -> Self {
        let socket = connect(&running.folder().join(SOCKET));
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        let reader = BufReader::new(socket.try_clone().expect("a socket can be cloned"));
        Self { socket, reader, events: VecDeque::new(), next: 1 }
    }

    /// The socket itself, for what no honest client does.
    #[must_use]
    pub fn socket(&self) -> &UnixStream {
        &self.socket
    }

    /// The next line from the server; `None` when it closed the connection.
    ///
    /// # Panics
    /// The line is no JSON, or none comes.
    #[track_caller]
    pub fn line(&mut self) -> Option<Value> {
        let mut line = String::new();
        match self.reader.read_line(&mut line) {
            Ok(0) => None,
            Ok(_) => Some(serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => None,
            Err(error) => panic!("no line from the server: {error}"),
        }
    }

    /// Sends a request without waiting for the reply; returns its id.
    ///
    /// # Panics
    /// The server is gone.
    #[track_caller]
    pub fn send(&mut self, mut request: Value) -> u64 {
        let id = self.next;
        self.next += 1;
        request["id"] = id.into();
        self.socket.write_all(format!("{request}\n").as_bytes()).expect("the server reads");
        id
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
        let id = self.send(request.clone());
        loop {
            let mut line = self.line().unwrap_or_else(|| panic!("the server closed before its reply to {request}"));
            if line.get("ok").is_none() {
                self.events.push_back(line);
                continue;
            }
            assert_eq!(line["id"], id, "the reply to {request}: {line}");
            if line["ok"] == true {
                return Ok(line["result"].take());
            }
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let error = &line["error"];
            return Err(ControlError {
                code: text(&error["code"]),
                errno: error["errno"].as_i64().unwrap_or_default(),
                message: text(&error["message"]),
            });
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

    /// Adds one probe, which must be armed at once.
    ///
    /// # Panics
    /// Otherwise.
    #[track_caller]
    pub fn add(&mut self, definition: &str) -> Value {
        self.add_with(json!({ "def": definition }))
    }

    /// Adds one probe with options, which must be armed at once.
    ///
    /// # Panics
    /// Otherwise.
    #[track_caller]
    pub fn add_with(&mut self, mut table: Value) -> Value {
        table["cmd"] = "add".into();
        let mut result = self.request(table.clone());
        let added = result["added"][0].take();
        assert_eq!(added["armed"], true, "{table}: {added}");
        added
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
        self.events.pop_front().or_else(|| self.line()).expect("the server is there")
    }

    /// What came so far and is no reply.
    pub fn take_events(&mut self) -> Vec<Value> {
        self.events.drain(..).collect()
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

fn stderr_beside(path: &Path) -> String {
    std::fs::read_to_string(path.with_file_name("stderr")).unwrap_or_default()
}

/// Whether QEMU was refused its start.
fn says_error(path: &Path) -> bool {
    stderr_beside(path).contains("qkprobe: error: ")
}

/// Connects as soon as the socket is there.
#[track_caller]
pub(crate) fn connect(path: &Path) -> UnixStream {
    let start = Instant::now();
    loop {
        match UnixStream::connect(path) {
            Ok(socket) => return socket,
            Err(error) if start.elapsed() > PATIENCE || says_error(path) => {
                panic!("{}: {error}\n{}", path.display(), stderr_beside(path))
            }
            Err(_) => {}
        }
        thread::sleep(Duration::from_millis(5));
    }
}
