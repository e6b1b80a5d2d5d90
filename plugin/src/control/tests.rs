//! The server over a real socket: commands, events, the socket file. `Server` and `Peer` serve the other tests too.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::Shutdown;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;

/// A plugin that remembers what it was asked.
#[derive(Default)]
pub(super) struct Fake {
    pub(super) calls: AtomicUsize,
    /// `add` of a definition with `hang` in it has begun, and goes on when this says so.
    pub(super) hang: Hang,
    pub(super) added: Mutex<Vec<NewProbe>>,
    quit: Mutex<Option<u8>>,
    /// Whom `quit` stops, as the plugin's exit does.
    server: OnceLock<Weak<ControlServer>>,
}

/// Where somebody stands still until the test lets him go.
#[derive(Default)]
pub(super) struct Hang {
    state: Mutex<(bool, bool)>,
    changed: parking_lot::Condvar,
}

impl Hang {
    fn stand_still(&self) {
        let mut state = self.state.lock();
        state.0 = true;
        self.changed.wait_while_for(&mut state, |state| !state.1, PATIENCE);
    }

    pub(super) fn has_begun(&self) -> bool {
        self.state.lock().0
    }

    pub(super) fn go_on(&self) {
        self.state.lock().1 = true;
        self.changed.notify_all();
    }
}

/// How long something is waited for that must come.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);

fn found(selector: &Selector) -> Result<(), Refusal> {
    if selector.names("kprobes", "open") {
        return Ok(());
    }
    Err(Refusal::new(libc::ENOENT, format!("No such probe event: {selector}")))
}

impl Backend for Fake {
    fn add(&self, probes: &[NewProbe]) -> Result<Vec<AddedProbe>, Refusal> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        if let Some(bad) = probes.iter().find(|probe| probe.line.contains("nowhere")) {
            return Err(Refusal::invalid(format!(
                "trace_kprobe: error: Invalid\n  Command: {}\n             ^",
                bad.line
            )));
        }
        if probes.iter().any(|probe| probe.line.contains("panic")) {
            panic!("as the test wants it");
        }
        if probes.iter().any(|probe| probe.line.contains("hang")) {
            self.hang.stand_still();
        }
        self.added.lock().extend_from_slice(probes);
        let one = |probe: &NewProbe| AddedProbe {
            group: "kprobes".into(),
            event: probe.line.clone(),
            kind: "p",
            address: Some("0xffffffff81000000".into()),
            armed: true,
        };
        Ok(probes.iter().map(one).collect())
    }

    fn delete(&self, selector: &Selector) -> Result<Vec<Removed>, Refusal> {
        found(selector)?;
        Ok(vec![Removed { group: "kprobes".into(), event: "open".into(), hits: 3, missed: 1, dropped: 0 }])
    }

    fn set_enabled(&self, selector: &Selector, on: bool) -> Result<usize, Refusal> {
        found(selector).map(|()| if on { 1 } else { 2 })
    }

    fn list(&self) -> Vec<Listing> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        vec![Listing {
            address: Some("0xffffffff81445484".into()),
            letter: "k",
            symbol: "vfs_read+0x4".into(),
            module: None,
            flags: vec!["DISABLED"],
            group: "kprobes".into(),
            event: "open".into(),
            definition: "p:kprobes/open vfs_read+4".into(),
        }]
    }

    fn profile(&self) -> Vec<Profile> {
        vec![Profile {
            group: "kprobes".into(),
            event: "open".into(),
            hits: u64::MAX,
            missed: 1,
            filtered: 2,
            dropped: 3,
            reexecuted: 4,
            pending: 5,
            abandoned: 6,
        }]
    }

    fn held(&self) -> Vec<Held> {
        let event = "stop".into();
        vec![Held { vcpu: 1, group: "kprobes".into(), event, address: "0x1".into(), symbol: None }]
    }

    fn go_on(&self, vcpu: Option<u32>) -> usize {
        vcpu.map_or(2, |vcpu| usize::from(vcpu == 1))
    }

    fn status(&self) -> Status {
        Status {
            qemu: "11.1.3".into(),
            api: 7,
            target: "x86_64".into(),
            kernel_found: true,
            slide: Some("0x12000000".into()),
            armed_sites: 1,
            probes: 1,
            settled: true,
            problem: None,
        }
    }

    fn quit(&self, status: u8) {
        *self.quit.lock() = Some(status);
        if let Some(server) = self.server.get().and_then(Weak::upgrade) {
            server.stop();
        }
    }
}

/// A server on a socket in a folder of its own.
pub(super) struct Server {
    pub(super) path: PathBuf,
    pub(super) fake: Arc<Fake>,
    pub(super) feed: Arc<Feed>,
    pub(super) control: Arc<ControlServer>,
    _folder: TempDir,
}

impl Server {
    pub(super) fn start() -> Self {
        Self::start_with(LIMITS)
    }

    pub(super) fn start_with(limits: Limits) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("sock");
        let fake = Arc::new(Fake::default());
        let feed = Arc::new(Feed::new());
        let control = ControlServer::start_with(&path, Arc::clone(&fake) as Arc<_>, Arc::clone(&feed), limits);
        Self { path, fake, feed, control: Arc::new(control.expect("starts")), _folder: folder }
    }

    pub(super) fn connect(&self) -> Peer {
        Peer::connect(&self.path)
    }

    pub(super) fn clients(&self) -> usize {
        self.control.shared.state.lock().clients.len()
    }

    pub(super) fn wait_for_clients(&self, count: usize) {
        eventually(|| self.clients() == count);
    }
}

pub(super) fn eventually(mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "it does not come true");
        thread::sleep(Duration::from_millis(1));
    }
}

/// A client.
pub(super) struct Peer {
    pub(super) stream: UnixStream,
    pub(super) reader: BufReader<UnixStream>,
}

impl Peer {
    pub(super) fn connect(path: &Path) -> Self {
        let mut peer = Self::silent(path);
        assert_eq!(peer.next(), Some(json!({"qkprobe": env!("CARGO_PKG_VERSION"), "protocol": 1})));
        peer
    }

    /// Connects and reads nothing.
    pub(super) fn silent(path: &Path) -> Self {
        let stream = UnixStream::connect(path).expect("connects");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
        Self { reader: BufReader::new(stream.try_clone().expect("a copy")), stream }
    }

    pub(super) fn send(&mut self, text: impl AsRef<str>) {
        self.stream.write_all(text.as_ref().as_bytes()).expect("sends");
    }

    /// The next line; `None` at the end.
    pub(super) fn next(&mut self) -> Option<Value> {
        let mut line = String::new();
        match self.reader.read_line(&mut line) {
            Ok(0) => None,
            Ok(_) => Some(serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line:?}: {error}"))),
            // What was not read when the server closed.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => None,
            Err(error) => panic!("{error}"),
        }
    }

    pub(super) fn ask(&mut self, request: impl AsRef<str>) -> Value {
        self.send(format!("{}\n", request.as_ref()));
        self.next().expect("a reply")
    }

    fn result(&mut self, request: &str) -> Value {
        let reply = self.ask(request);
        assert_eq!(reply["ok"], true, "{request}: {reply}");
        reply["result"].clone()
    }

    fn error(&mut self, request: &str) -> (String, String) {
        let reply = self.ask(request);
        assert_eq!(reply["ok"], false, "{request}: {reply}");
        let text = |key: &str| reply["error"][key].as_str().expect("a string").to_owned();
        (text("code"), text("message"))
    }
}

#[test]
fn every_command_answers() {
    let server = Server::start();
    let mut peer = server.connect();
    assert_eq!(
        peer.ask(r#"{"id": {"a": [1]}, "cmd": "add", "def": "p:open vfs_read", "filter": "x == 1"}"#),
        json!({"id": {"a": [1]}, "ok": true, "result": {"added": [
            {"group": "kprobes", "event": "p:open vfs_read", "kind": "p", "address": "0xffffffff81000000", "armed": true}
        ]}})
    );
    let added = server.fake.added.lock().clone();
    assert_eq!(added.len(), 1);
    assert_eq!(Value::Object((*added[0].options).clone()), json!({"filter": "x == 1"}));
    let added = peer.result(r#"{"cmd": "add", "defs": ["p a", {"def": "r b", "enabled": false}]}"#);
    assert_eq!(added["added"].as_array().map(Vec::len), Some(2));
    assert_eq!(
        peer.result(r#"{"cmd": "delete", "event": "kprobes/open"}"#),
        json!({"removed": [{"group": "kprobes", "event": "open", "hits": 3, "missed": 1, "dropped": 0}]})
    );
    assert_eq!(peer.result(r#"{"cmd": "enable", "event": "open"}"#), json!({"count": 1}));
    assert_eq!(peer.result(r#"{"cmd": "disable", "event": "kprobes/"}"#), json!({"count": 2}));
    assert_eq!(
        peer.result(r#"{"cmd": "list"}"#),
        json!({"probes": [{"address": "0xffffffff81445484", "type": "k", "symbol": "vfs_read+0x4", "module": null,
            "flags": ["DISABLED"], "group": "kprobes", "event": "open", "definition": "p:kprobes/open vfs_read+4"}]})
    );
    assert_eq!(
        peer.result(r#"{"cmd": "profile"}"#),
        json!({"probes": [{"group": "kprobes", "event": "open", "hits": u64::MAX, "missed": 1, "filtered": 2,
            "dropped": 3, "reexecuted": 4, "pending": 5, "abandoned": 6}]})
    );
    assert_eq!(
        peer.result(r#"{"cmd": "status"}"#),
        json!({"qemu": "11.1.3", "api": 7, "target": "x86_64", "kernel_found": true, "slide": "0x12000000",
            "armed_sites": 1, "probes": 1, "settled": true, "problem": null,
            "held": [{"vcpu": 1, "group": "kprobes", "event": "stop", "address": "0x1", "symbol": null}]})
    );
    assert_eq!(peer.result(r#"{"cmd": "continue"}"#), json!({"released": 2}));
    assert_eq!(peer.result(r#"{"cmd": "continue", "vcpu": 7}"#), json!({"released": 0}));
    assert_eq!(peer.result(r#"{"cmd": "subscribe"}"#), json!({}));
    assert_eq!(peer.result(r#"{"cmd": "unsubscribe"}"#), json!({"was_subscribed": true}));
    assert_eq!(peer.result(r#"{"cmd": "unsubscribe"}"#), json!({"was_subscribed": false}));
    assert_eq!(peer.result(r#"{"cmd": "version"}"#), json!({"qkprobe": env!("CARGO_PKG_VERSION"), "protocol": 1}));
    let help = peer.result(r#"{"cmd": "help"}"#);
    let commands: Vec<_> = help["commands"].as_array().expect("a list").iter().map(|one| &one["cmd"]).collect();
    assert_eq!(
        commands,
        [
            "add",
            "delete",
            "enable",
            "disable",
            "list",
            "profile",
            "status",
            "subscribe",
            "unsubscribe",
            "continue",
            "quit",
            "help",
            "version"
        ]
    );
}

#[test]
fn errors_have_a_code_and_a_way_out() {
    let server = Server::start();
    let mut peer = server.connect();
    assert_eq!(
        peer.ask(r#"{"id": 7, "cmd": "delete", "event": "clos"}"#),
        json!({"id": 7, "ok": false, "error": {"code": "ENOENT", "errno": 2, "message": "No such probe event: clos"}})
    );
    let (code, message) = peer.error("p nowhere");
    assert_eq!(code, "EINVAL");
    assert_eq!(message, "trace_kprobe: error: Invalid\n  Command: p nowhere\n             ^");
    for (request, expected) in [
        (r#"{"cmd": "lsit"}"#, "did you mean 'list'?"),
        (r#"{"cmd": "xyzzyx"}"#, "these exist: add, delete,"),
        (r#"{"cmd": "enable", "evnt": "a"}"#, "unknown key 'evnt': did you mean 'event'?"),
        (r#"{"cmd": "list", "event": "a"}"#, "'list': unknown key 'event': it takes none"),
        (r#"{"cmd": "add", "deff": "p a"}"#, "unknown key 'deff': 'add' needs 'def'"),
        (r#"{"cmd": "add", "def": "p a", "defs": []}"#, "exclude each other"),
        (r#"{"cmd": "add", "defs": []}"#, "from 1 to 10000"),
        (r#"{"cmd": "add", "defs": ["p a", 3]}"#, "'defs[1]' must be a string or an object with 'def', not 3"),
        (r#"{"cmd": "add", "defs": [{"def": "p a"}], "filter": "x"}"#, "none beside 'defs'"),
        (r#"{"cmd": "add", "def": "p a\np b"}"#, "one line: give several as 'defs'"),
        (r#"{"cmd": "add", "def": "-:a"}"#, "this deletes"),
        (r#"{"cmd": "delete"}"#, "'delete' needs 'event': EVENT, GROUP/EVENT, GROUP/ or *"),
        (r#"{"cmd": "delete", "event": " "}"#, "No event name"),
        (r#"{"cmd": "subscribe", "events": ["a b"]}"#, "an event of a subscription is"),
        (r#"{"cmd": "continue", "vcpu": -1}"#, "'vcpu' must be a number from 0 to 4294967295, not -1"),
        (r#"{"cmd": "quit", "status": 256}"#, "from 0 to 255, not 256"),
        (r#"{"cdm": "list"}"#, "did you mean 'cmd'?"),
        (r#"{}"#, "a request has a 'cmd'"),
        (r#"{"cmd": 3}"#, "'cmd' must be a string"),
        (r#"{"cmd""#, "not JSON: EOF"),
        ("[1]", "neither a JSON object"),
        ("status", "write {\"cmd\": \"status\"}"),
        ("profile", "write {\"cmd\": \"profile\"}"),
        ("-e", "No event name to delete"),
        ("-: a", "directly behind the colon"),
    ] {
        let (code, message) = peer.error(request);
        assert!(message.contains(expected), "{request}: {message}");
        assert!(code == "EINVAL", "{request}: {code}");
    }
    let (code, _) = peer.error(&format!(r#"{{"cmd": "add", "defs": [{}"p"]}}"#, r#""p","#.repeat(10_000)));
    assert_eq!(code, "E2BIG");
    assert!(peer.error(&"[".repeat(60_000)).1.contains("neither"));
    assert!(peer.error(&format!("{{\"cmd\":{}", "[".repeat(60_000))).1.contains("recursion"));
}

#[test]
fn lines_of_tracefs_are_understood() {
    let server = Server::start();
    let mut peer = server.connect();
    // Blank lines and comments get no reply.
    peer.send("\n# a comment\r\n   \n");
    assert_eq!(peer.ask("p:open vfs_read +0($arg2):ustring\r")["ok"], true);
    assert_eq!(peer.ask(" r4 vfs_read")["ok"], true);
    assert_eq!(server.fake.added.lock()[0].line, "p:open vfs_read +0($arg2):ustring");
    assert_eq!(server.fake.added.lock()[1].line, "r4 vfs_read");
    assert_eq!(peer.ask("-:open # away")["result"]["removed"][0]["event"], "open");
    assert_eq!(peer.ask("-:kprobes/")["ok"], true);
    assert_eq!(peer.ask("-:/open")["error"]["code"], "ENOENT");
}

#[test]
fn quit_answers_first_and_may_stop_the_server_itself() {
    let server = Server::start();
    server.fake.server.set(Arc::downgrade(&server.control)).expect("once");
    let mut other = server.connect();
    let mut peer = server.connect();
    assert_eq!(peer.ask(r#"{"cmd": "quit", "status": 3}"#)["result"], json!({"status": 3}));
    assert_eq!(peer.next(), None);
    assert_eq!(other.next(), None);
    assert_eq!(*server.fake.quit.lock(), Some(3));
    assert!(!server.path.exists());
}

fn wanted_text(peer: &mut Peer, expected: &[&str]) {
    expected.iter().for_each(|text| assert_eq!(peer.next(), Some(json!(text))));
}

#[test]
fn two_clients_at_once_and_their_filters() {
    let server = Server::start();
    let (mut all, mut some, mut none) = (server.connect(), server.connect(), server.connect());
    assert!(!server.feed.wanted());
    all.result(r#"{"cmd": "subscribe"}"#);
    some.result(r#"{"cmd": "subscribe", "events": ["a/x", "y", "b/"]}"#);
    assert!(server.feed.wanted());
    for (group, event) in [("a", "x"), ("c", "x"), ("a", "y"), ("c", "y"), ("b", "z"), ("a", "z"), ("", "")] {
        server.feed.publish(group, event, format!("[\"{group}\",\"{event}\"]\n").as_bytes());
    }
    let wanted = |peer: &mut Peer, expected: &[(&str, &str)]| {
        for (group, event) in expected {
            assert_eq!(peer.next(), Some(json!([group, event])));
        }
    };
    wanted(&mut some, &[("a", "x"), ("a", "y"), ("c", "y"), ("b", "z"), ("", "")]);
    wanted(&mut all, &[("a", "x"), ("c", "x"), ("a", "y"), ("c", "y"), ("b", "z"), ("a", "z"), ("", "")]);
    // A reserved probe's lines go only to who names its group.
    let mut own = server.connect();
    own.result(r#"{"cmd": "subscribe", "events": ["b/"]}"#);
    server.feed.publish_reserved("b", "y", b"\"reserved\"");
    server.feed.publish("b", "last", b"\"last\"");
    wanted_text(&mut own, &["reserved", "last"]);
    wanted_text(&mut all, &["last"]);
    wanted_text(&mut some, &["reserved", "last"]);
    let mut by_event = server.connect();
    by_event.result(r#"{"cmd": "subscribe", "events": ["y", "*", "d/y"]}"#);
    server.feed.publish_reserved("b", "y", b"\"reserved\"");
    server.feed.publish_reserved("d", "y", b"\"by name\"");
    wanted_text(&mut by_event, &["by name"]);
    wanted_text(&mut some, &["reserved"]);
    // A second subscription replaces the first; requests go on meanwhile.
    some.result(r#"{"cmd": "subscribe", "events": ["c/x"]}"#);
    server.feed.publish("a", "x", b"1");
    server.feed.publish("c", "x", b"2");
    assert_eq!(some.next(), Some(json!(2)));
    assert_eq!(none.ask(r#"{"cmd": "version"}"#)["ok"], true);
    some.result(r#"{"cmd": "unsubscribe"}"#);
    drop((all, own, by_event));
    eventually(|| !server.feed.wanted());
}

#[test]
fn a_half_closed_client_is_served_to_the_end() {
    let server = Server::start();
    let mut peer = server.connect();
    // The last line has no line break.
    peer.send("{\"id\": 1, \"cmd\": \"list\"}\np vfs_read");
    peer.stream.shutdown(Shutdown::Write).expect("half closes");
    assert_eq!(peer.next().expect("a reply")["id"], 1);
    assert_eq!(peer.next().expect("a reply")["result"]["added"][0]["event"], "p vfs_read");
    assert_eq!(peer.next(), None);
    // One that subscribed stays until it goes altogether.
    let mut peer = server.connect();
    peer.send("{\"cmd\": \"subscribe\"}\n");
    peer.stream.shutdown(Shutdown::Write).expect("half closes");
    assert_eq!(peer.next().expect("a reply")["ok"], true);
    for number in 0..3 {
        server.feed.publish("g", "e", number.to_string().as_bytes());
        assert_eq!(peer.next(), Some(json!(number)));
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(server.clients(), 1);
    drop(peer);
    server.wait_for_clients(0);
}

#[test]
fn who_leaves_without_reading_is_still_obeyed() {
    let server = Server::start();
    // As `socat -u` does.
    for _ in 0..20 {
        let mut peer = Peer::silent(&server.path);
        peer.send("p vfs_read\np vfs_write\n");
    }
    eventually(|| server.fake.added.lock().len() == 40);
    server.wait_for_clients(0);
}

#[test]
fn the_end_of_the_stream_reaches_subscribers() {
    let server = Server::start();
    let mut peer = server.connect();
    peer.result(r#"{"cmd": "subscribe"}"#);
    for number in 0..1000 {
        server.feed.publish("g", "e", number.to_string().as_bytes());
    }
    server.feed.publish("", "", br#"{"type":"end"}"#);
    let control = Arc::clone(&server.control);
    let stop = thread::spawn(move || control.stop());
    for number in 0..1000 {
        assert_eq!(peer.next(), Some(json!(number)));
    }
    assert_eq!(peer.next(), Some(json!({"type": "end"})));
    assert_eq!(peer.next(), None);
    stop.join().expect("no panic");
    assert_eq!(server.clients(), 0);
}

#[test]
fn only_the_owner_can_connect() {
    let server = Server::start();
    let metadata = fs::symlink_metadata(&server.path).expect("a socket");
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o7777, 0o600);
    server.control.stop();
    assert!(!server.path.exists());
}

fn start_at(path: &Path) -> Result<ControlServer, String> {
    ControlServer::start(path, Arc::new(Fake::default()), Arc::new(Feed::new()))
}

#[test]
fn a_dead_socket_is_replaced_and_nothing_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("sock");
    drop(UnixListener::bind(&path).expect("binds"));
    assert!(path.exists());
    let server = start_at(&path).expect("replaces it");
    Peer::connect(&path);
    let live = start_at(&path).expect_err("somebody listens");
    assert!(live.starts_with(&format!("control={}: somebody listens", path.display())), "{live}");
    Peer::connect(&path);
    drop(server);
    assert!(!path.exists());

    for (name, expected) in [("file", "is a file"), ("dir", "is a folder"), ("link", "is a symbolic link")] {
        let path = folder.path().join(name);
        match name {
            "file" => fs::write(&path, "precious").expect("writes"),
            "dir" => fs::create_dir(&path).expect("makes"),
            _ => std::os::unix::fs::symlink("file", &path).expect("links"),
        }
        let error = start_at(&path).expect_err("must be refused");
        assert!(error.contains(expected), "{error}");
    }
    assert_eq!(fs::read_to_string(folder.path().join("file")).expect("untouched"), "precious");
    // A socket of another kind is somebody's.
    let path = folder.path().join("dgram");
    let _datagram = UnixDatagram::bind(&path).expect("binds");
    assert!(start_at(&path).expect_err("must be refused").contains("may be in use"));
    assert!(start_at(&folder.path().join("no/such")).expect_err("no folder").contains("No such file"));
    assert!(start_at(&folder.path().join("x".repeat(120))).expect_err("too long").contains("too long"));
}

#[test]
fn only_our_own_file_is_removed() {
    let server = Server::start();
    fs::remove_file(&server.path).expect("removes");
    let _other = UnixListener::bind(&server.path).expect("binds");
    server.control.stop();
    assert!(server.path.exists());
}

#[test]
fn servers_that_start_at_once_never_take_each_others_socket() {
    let folder = tempfile::tempdir().expect("a folder");
    for round in 0..20 {
        let path = folder.path().join(format!("sock{round}"));
        drop(UnixListener::bind(&path).expect("binds"));
        let started: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| start_at(&path).ok())).collect();
            threads.into_iter().filter_map(|thread| thread.join().expect("no panic")).collect()
        });
        assert_eq!(started.len(), 1);
        Peer::connect(&path);
    }
}
