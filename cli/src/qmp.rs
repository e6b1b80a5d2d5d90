//! QEMU's machine protocol: to let the machine run, to ask where its vCPUs are, and to hear why it ended.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::{Value, json};

use crate::error::Error;
use crate::streams::Happening;

const QMP: &str = "QEMU's monitor";
/// A busy QEMU answers late; one that a probe holds does not answer at all.
const PATIENCE: Duration = Duration::from_secs(10);

/// A connection whose events go elsewhere.
#[derive(Debug)]
pub(crate) struct Qmp {
    socket: UnixStream,
    replies: Receiver<Value>,
    reader: JoinHandle<()>,
}

impl Qmp {
    /// Takes a new connection, and leaves the negotiation behind. Events become happenings.
    pub(crate) fn over(socket: UnixStream, happenings: SyncSender<Happening>) -> Result<Self, Error> {
        let refused = |error: std::io::Error| Error::Talk { what: QMP, detail: error.to_string() };
        let reader = socket.try_clone().map_err(refused)?;
        let (send, replies) = sync_channel(16);
        let read = move || {
            for line in BufReader::new(reader).lines() {
                let Ok(line) = line else { break };
                let Ok(line) = serde_json::from_str::<Value>(&line) else { continue };
                if line.get("event").is_some() {
                    // Nobody listens any more: what follows is of no interest either.
                    if happenings.send(Happening::Machine(line)).is_err() {
                        break;
                    }
                } else if line.get("QMP").is_none() && send.send(line).is_err() {
                    break;
                }
            }
        };
        let reader = thread::Builder::new().name("qkprobe-qmp".into()).spawn(read).map_err(refused)?;
        let mut qmp = Self { socket, replies, reader };
        qmp.execute("qmp_capabilities", Value::Null)?;
        Ok(qmp)
    }

    /// Whether every event has been passed on: QEMU has closed its side.
    pub(crate) fn is_finished(&self) -> bool {
        self.reader.is_finished()
    }

    /// Runs a command.
    pub(crate) fn execute(&mut self, command: &str, arguments: Value) -> Result<Value, Error> {
        let talk = |detail: String| Error::Talk { what: QMP, detail: format!("{command}: {detail}") };
        // Replies that came too late for the one before.
        while self.replies.try_recv().is_ok() {}
        let mut request = json!({ "execute": command });
        if let (Some(map), false) = (request.as_object_mut(), arguments.is_null()) {
            map.insert("arguments".to_owned(), arguments);
        }
        self.socket.write_all(format!("{request}\n").as_bytes()).map_err(|error| talk(error.to_string()))?;
        let mut reply = self.replies.recv_timeout(PATIENCE).map_err(|error| talk(error.to_string()))?;
        match reply.get_mut("return") {
            Some(value) => Ok(value.take()),
            None => Err(talk(reply.to_string())),
        }
    }

    /// A line for the human monitor.
    pub(crate) fn monitor(&mut self, line: &str) -> Result<String, Error> {
        let reply = self.execute("human-monitor-command", json!({ "command-line": line }))?;
        Ok(reply.as_str().unwrap_or_default().to_owned())
    }
}
