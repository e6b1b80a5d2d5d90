//! A client of the plugin's control socket (docs/control.md).

use std::collections::{BTreeSet, VecDeque};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::Error;

/// How long a reply may take: the plugin waits up to a second for a vCPU, on a machine that does other things as well.
const PATIENCE: Duration = Duration::from_secs(60);
const CONTROL: &str = "control socket";

/// A connection.
#[derive(Debug)]
pub struct Control {
    socket: UnixStream,
    reader: BufReader<UnixStream>,
    /// Lines that came before a reply and are none.
    events: VecDeque<Value>,
    next: u64,
    /// Requests whose replies have not come.
    unanswered: BTreeSet<u64>,
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
    /// All changes that were asked for have taken effect in the guest.
    #[serde(default)]
    pub settled: bool,
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
        let mut control = Self::over(UnixStream::connect(path).map_err(Error::io(path))?)?;
        control.greet()?;
        Ok(control)
    }

    /// Takes a connection of which nothing has been read, not even the greeting: see [`Control::greet`].
    ///
    /// # Errors
    /// The system refuses to prepare the socket.
    pub fn over(socket: UnixStream) -> Result<Self, Error> {
        let prepared = socket.set_read_timeout(Some(PATIENCE)).and_then(|()| socket.set_write_timeout(Some(PATIENCE)));
        let reader = prepared.and_then(|()| socket.try_clone()).map_err(gone)?;
        let (events, unanswered) = (VecDeque::new(), BTreeSet::new());
        Ok(Self { socket, reader: BufReader::new(reader), events, next: 1, unanswered })
    }

    /// Reads the greeting.
    ///
    /// # Errors
    /// There is none, or it is of another protocol.
    pub fn greet(&mut self) -> Result<(), Error> {
        let (greeting, _) = self.expect_line()?;
        match greeting.get("protocol").and_then(Value::as_u64) {
            Some(1) => Ok(()),
            Some(other) => Err(talk(format!(
                "the plugin speaks protocol {other}, this command knows 1: use the qkprobe that belongs to the guest's plugin"
            ))),
            None => Err(refusal(&greeting).unwrap_or_else(|| talk("it does not greet".to_owned()))),
        }
    }

    /// The socket itself.
    #[must_use]
    pub fn socket(&self) -> &UnixStream {
        &self.socket
    }

    /// The next line, whatever it is; `None` when the other side has closed the connection.
    ///
    /// # Errors
    /// It is no JSON, or none comes within a minute or what [`Control::socket`] was told.
    pub fn line(&mut self) -> Result<Option<Value>, Error> {
        Ok(self.receive()?.map(|(line, _)| line))
    }

    /// The next line, and whether it is the reply to a request of ours.
    fn receive(&mut self) -> Result<Option<(Value, bool)>, Error> {
        let mut line = String::new();
        match self.reader.read_line(&mut line) {
            Ok(0) => return Ok(None),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
            Err(error) => return Err(gone(error)),
        }
        let line: Value = serde_json::from_str(&line).map_err(|error| talk(format!("no JSON: {error}: {line:?}")))?;
        let is_reply = line.get("id").and_then(Value::as_u64).is_some_and(|id| self.unanswered.remove(&id));
        Ok(Some((line, is_reply)))
    }

    fn expect_line(&mut self) -> Result<(Value, bool), Error> {
        self.receive()?.ok_or_else(|| talk("the guest is gone".to_owned()))
    }

    /// Sends a request without waiting for its reply; its id.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn send(&mut self, mut request: Value) -> Result<u64, Error> {
        let id = self.next;
        self.next += 1;
        if let Some(map) = request.as_object_mut() {
            map.insert("id".to_owned(), id.into());
        }
        self.socket.write_all(format!("{request}\n").as_bytes()).map_err(gone)?;
        self.unanswered.insert(id);
        Ok(id)
    }

    /// Sends a request and waits for its result. Replies to earlier requests are passed over.
    ///
    /// # Errors
    /// The plugin's refusal, a reply to something that nobody asked, or the connection is gone.
    pub fn request(&mut self, request: Value) -> Result<Value, Error> {
        let id = self.send(request)?;
        loop {
            let (mut line, is_reply) = self.expect_line()?;
            if line.get("ok").is_none() {
                self.events.push_back(line);
                continue;
            }
            if !is_reply {
                return Err(refusal(&line).unwrap_or_else(|| talk(format!("a reply to no request: {line}"))));
            }
            if line.get("id").and_then(Value::as_u64) != Some(id) {
                continue;
            }
            return match refusal(&line) {
                Some(error) => Err(error),
                None => Ok(line.get_mut("result").map(Value::take).unwrap_or_default()),
            };
        }
    }

    /// The next line that is no reply. Waits for it so long, or without an end.
    ///
    /// # Errors
    /// None comes, or the connection is gone.
    pub fn event(&mut self, patience: Option<Duration>) -> Result<Value, Error> {
        if let Some(event) = self.events.pop_front() {
            return Ok(event);
        }
        self.socket.set_read_timeout(patience).map_err(gone)?;
        let line = self.expect_line();
        self.socket.set_read_timeout(Some(PATIENCE)).map_err(gone)?;
        line.map(|(line, _)| line)
    }

    /// What came so far and is no reply.
    pub fn take_events(&mut self) -> Vec<Value> {
        self.events.drain(..).collect()
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

fn gone(error: io::Error) -> Error {
    talk(error.to_string())
}

/// The error that a reply carries.
fn refusal(line: &Value) -> Option<Error> {
    let error = line.get("error")?;
    let text = |key| error.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let errno = error.get("errno").and_then(Value::as_i64).unwrap_or_default();
    Some(Error::Refused { code: text("code"), errno, message: text("message") })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that has said all this already, and listens to nobody.
    fn after(lines: &str) -> Control {
        let (here, mut there) = UnixStream::pair().expect("a pair");
        there.write_all(lines.as_bytes()).expect("small");
        // It stays open: what is sent to it must go somewhere.
        std::mem::forget(there);
        Control::over(here).expect("prepared")
    }

    #[test]
    fn replies_find_their_requests() {
        let mut control = after(
            "{\"protocol\":1}\n{\"type\":\"event\",\"n\":1}\n{\"id\":1,\"ok\":true,\"result\":7}\n{\"type\":\"event\",\"n\":2}\n\
             {\"id\":2,\"ok\":true,\"result\":8}\n{\"id\":3,\"ok\":false,\"error\":{\"code\":\"ENOENT\",\"errno\":2,\"message\":\"no\"}}\n\
             {\"id\":2,\"ok\":true,\"result\":9}\n",
        );
        control.greet().expect("protocol 1");
        assert_eq!(control.send(json!({ "cmd": "a" })).expect("sent"), 1);
        assert_eq!(control.request(json!({ "cmd": "b" })).expect("a result"), 8);
        assert_eq!(control.event(None).expect("the first")["n"], 1);
        assert_eq!(control.take_events(), [json!({ "type": "event", "n": 2 })]);
        let refused = control.request(json!({ "cmd": "c" })).expect_err("refused");
        assert!(matches!(&refused, Error::Refused { code, errno: 2, message } if code == "ENOENT" && message == "no"));
        let error = control.request(json!({ "cmd": "d" })).expect_err("answered twice").to_string();
        assert!(error.starts_with("control socket: a reply to no request: "), "{error}");
    }

    #[test]
    fn greetings_of_others() {
        let greet = |line| after(line).greet().expect_err(line).to_string();
        assert!(greet("{\"protocol\":2}\n").starts_with("control socket: the plugin speaks protocol 2, "));
        assert_eq!(greet("{}\n"), "control socket: it does not greet");
        assert!(greet("hello\n").starts_with("control socket: no JSON: "));
        assert_eq!(greet("{\"error\":{\"code\":\"EUSERS\",\"message\":\"too many\"}}\n"), "too many");
    }
}
