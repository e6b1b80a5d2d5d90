//! A client of the plugin's control socket (docs/control.md).

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::Error;

/// How long a reply may take: the plugin waits up to a second for a vCPU, on a machine that does other things as well.
const PATIENCE: Duration = Duration::from_secs(30);
const CONTROL: &str = "control socket";

/// A connection.
#[derive(Debug)]
pub struct Control {
    socket: UnixStream,
    reader: BufReader<UnixStream>,
    /// Lines that came before a reply and are none.
    events: VecDeque<Value>,
    next: u64,
}

/// One probe's counters, as `profile` shows them.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct Profile {
    /// Its group.
    pub group: String,
    /// Its name.
    pub event: String,
    /// Executions that passed the filter; returns for `r`.
    pub hits: u64,
    /// Calls that could not be tracked.
    pub missed: u64,
    /// Executions that the filter rejected.
    #[serde(default)]
    pub filtered: u64,
    /// Hits without a record.
    #[serde(default)]
    pub dropped: u64,
    /// Calls that have not returned.
    #[serde(default)]
    pub pending: u64,
    /// Calls that never will.
    #[serde(default)]
    pub abandoned: u64,
}

/// What a run is.
#[derive(Clone, Debug, Deserialize)]
pub struct Status {
    /// QEMU's release.
    pub qemu: String,
    /// The plugin API's version.
    pub api: i32,
    /// QEMU's target.
    pub target: String,
    /// Whether the kernel of the image was seen running.
    pub kernel_found: bool,
    /// Runtime minus linked address, `0x...`.
    pub slide: Option<String>,
    /// Addresses that are instrumented.
    pub armed_sites: usize,
    /// Probes that are registered.
    pub probes: usize,
    /// What keeps probes from arming.
    pub problem: Option<String>,
    /// vCPUs that a `stop` probe holds.
    #[serde(default)]
    pub held: Vec<Held>,
}

/// A vCPU that a `stop` probe holds.
#[derive(Clone, Debug, Deserialize)]
pub struct Held {
    /// The vCPU's index.
    pub vcpu: u32,
    /// The probe's group.
    pub group: String,
    /// The probe's name.
    pub event: String,
    /// Where it stands.
    pub address: String,
    /// The same by name.
    pub symbol: Option<String>,
}

impl Status {
    /// The slide as a number.
    #[must_use]
    pub fn slide(&self) -> Option<u64> {
        u64::from_str_radix(self.slide.as_deref()?.trim_start_matches("0x"), 16).ok()
    }
}

impl Control {
    /// Connects, and reads the greeting.
    ///
    /// # Errors
    /// Nobody listens, or somebody who speaks another protocol.
    pub fn connect(path: &Path) -> Result<Self, Error> {
        let socket = UnixStream::connect(path).map_err(Error::io(path))?;
        let prepared = socket.set_read_timeout(Some(PATIENCE)).and_then(|()| socket.set_write_timeout(Some(PATIENCE)));
        let reader = prepared.and_then(|()| socket.try_clone()).map_err(Error::io(path))?;
        let mut control = Self { socket, reader: BufReader::new(reader), events: VecDeque::new(), next: 1 };
        let greeting = control.line()?;
        match greeting.get("protocol").and_then(Value::as_u64) {
            Some(1) => Ok(control),
            Some(other) => Err(talk(format!(
                "{} speaks protocol {other}, this command knows 1: use the qkprobe that belongs to the guest's plugin",
                path.display()
            ))),
            None => Err(refusal(&greeting).unwrap_or_else(|| talk(format!("{} does not greet", path.display())))),
        }
    }

    fn line(&mut self) -> Result<Value, Error> {
        let mut line = String::new();
        match self.reader.read_line(&mut line) {
            Ok(0) => Err(talk("the guest is gone".to_owned())),
            Ok(_) => serde_json::from_str(&line).map_err(|error| talk(format!("no JSON: {error}"))),
            Err(error) => Err(talk(error.to_string())),
        }
    }

    /// Sends a request and waits for its result.
    ///
    /// # Errors
    /// The plugin's refusal, or the connection is gone.
    pub fn request(&mut self, mut request: Value) -> Result<Value, Error> {
        let id = self.next;
        self.next += 1;
        if let Some(map) = request.as_object_mut() {
            map.insert("id".to_owned(), id.into());
        }
        self.socket.write_all(format!("{request}\n").as_bytes()).map_err(|error| talk(error.to_string()))?;
        loop {
            let mut line = self.line()?;
            if line.get("ok").is_none() {
                self.events.push_back(line);
            } else if let Some(error) = refusal(&line) {
                return Err(error);
            } else if line.get("id").and_then(Value::as_u64) == Some(id) {
                return Ok(line.get_mut("result").map(Value::take).unwrap_or_default());
            }
        }
    }

    /// The next line that is no reply; waits without an end for it.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn event(&mut self) -> Result<Value, Error> {
        if let Some(event) = self.events.pop_front() {
            return Ok(event);
        }
        self.socket.set_read_timeout(None).map_err(|error| talk(error.to_string()))?;
        self.line()
    }

    /// Adds one line with options; `defs` of the protocol for several.
    ///
    /// # Errors
    /// As [`Control::request`].
    pub fn add(&mut self, definitions: &[String]) -> Result<Value, Error> {
        let mut result = self.request(json!({ "cmd": "add", "defs": definitions }))?;
        Ok(result.get_mut("added").map(Value::take).unwrap_or_default())
    }

    /// All counters.
    ///
    /// # Errors
    /// As [`Control::request`].
    pub fn profile(&mut self) -> Result<Vec<Profile>, Error> {
        let mut result = self.request(json!({ "cmd": "profile" }))?;
        let list = result.get_mut("probes").map(Value::take).unwrap_or_default();
        serde_json::from_value(list).map_err(|error| talk(error.to_string()))
    }

    /// What the run is.
    ///
    /// # Errors
    /// As [`Control::request`].
    pub fn status(&mut self) -> Result<Status, Error> {
        serde_json::from_value(self.request(json!({ "cmd": "status" }))?).map_err(|error| talk(error.to_string()))
    }
}

fn talk(detail: String) -> Error {
    Error::Talk { what: CONTROL, detail }
}

/// The error that a reply carries.
fn refusal(line: &Value) -> Option<Error> {
    let error = line.get("error")?;
    let text = |key| error.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    Some(Error::Refused { code: text("code"), message: text("message") })
}
