//! The other end of a socket whose lines are JSON.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;

use super::PATIENCE;
use qkprobe_tests::{Boot, Running};
use serde_json::{Value, json};

/// A peer of which each line is JSON: the control socket, or QEMU's monitor (QMP).
pub(crate) struct Peer {
    stream: UnixStream,
    lines: BufReader<UnixStream>,
}

impl Peer {
    /// Connects when the socket is there, and reads the greeting.
    pub(crate) fn connect(running: &mut Running, name: &str) -> Self {
        let stream = running.connect(Path::new(name), PATIENCE).unwrap_or_else(|error| panic!("{error}"));
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut peer = Self { lines: BufReader::new(stream.try_clone().unwrap()), stream };
        peer.receive();
        peer
    }

    fn receive(&mut self) -> Value {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }

    pub(crate) fn send(&mut self, request: &Value) {
        writeln!(self.stream, "{request}").unwrap();
    }

    /// A command of the control socket, which must succeed.
    #[track_caller]
    pub(crate) fn control(&mut self, request: &Value) -> Value {
        self.send(request);
        let mut reply = self.receive();
        assert_eq!(reply["ok"], true, "{request}: {reply}");
        reply["result"].take()
    }

    /// A command of QMP; events that come before the reply are left out.
    #[track_caller]
    pub(crate) fn qmp(&mut self, command: &str, arguments: &Value) -> Value {
        self.send(&json!({"execute": command, "arguments": arguments}));
        self.reply(command)
    }

    /// What QMP answers to a command that was sent.
    #[track_caller]
    pub(crate) fn reply(&mut self, command: &str) -> Value {
        loop {
            let mut message = self.receive();
            assert!(message.get("error").is_none(), "{command}: {message}");
            if message.get("return").is_some() {
                return message["return"].take();
            }
        }
    }
}

/// With QEMU's monitor at `qmp.sock`.
pub(crate) fn with_qmp(boot: Boot) -> Boot {
    boot.extra_args(["-qmp", "unix:qmp.sock,server=on,wait=off"])
}
