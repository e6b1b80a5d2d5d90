//! One client: a thread that sleeps in `poll` until there is something to read, to send, or to forward.
//!
//! Each round: send what waits. Only when all is sent, answer one request and then take what the mailbox holds. So a
//! client that does not read is not read from either, and holds no more memory than one request, one reply and one
//! mailbox.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Serialize;
use serde_json::{Value, json};

use super::backend::{Backend, Held, Refusal, Status};
use super::buffers::{Inbox, Outbox, TooLong};
use super::feed::{Feed, Filter, Mailbox};
use super::protocol::{self, COMMANDS, Command, MAX_LINE, Request};
use super::reply::{self, Version};
use super::wake::Wake;
use super::{Limits, Shared};
use crate::message::say;

/// While events come, the mailbox is looked at this often, and the writer thread need not wake us for each.
const NAP: Duration = Duration::from_millis(1);
/// How long the reply to `quit` may take before QEMU ends without it.
const LAST_REPLY: Duration = Duration::from_millis(300);

/// A connected client.
pub(super) struct Client {
    socket: OwnedFd,
    wake: Arc<Wake>,
    mailbox: Arc<Mailbox>,
    feed: Arc<Feed>,
    backend: Arc<dyn Backend>,
    limits: Limits,
    inbox: Inbox,
    outbox: Outbox,
    subscribed: bool,
    /// Set while events come: when the mailbox is to be looked at again. It does not wake us until then.
    next_look: Option<Instant>,
    /// No request is read any more; what waits is still sent.
    finished: bool,
}

/// The results that are lists. Not `json!`: that would hold a long list several times as large as its text.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Listed<T> {
    Added(T),
    Removed(T),
    Probes(T),
}

/// `status`: what the plugin says, and who is held.
#[derive(Serialize)]
struct FullStatus {
    #[serde(flatten)]
    status: Status,
    held: Vec<Held>,
}

impl Client {
    pub(super) fn new(socket: OwnedFd, wake: Arc<Wake>, shared: &Shared) -> Self {
        Self {
            socket,
            mailbox: Arc::new(Mailbox::new(Arc::clone(&wake))),
            wake,
            feed: Arc::clone(&shared.feed),
            backend: Arc::clone(&shared.backend),
            limits: shared.limits,
            inbox: Inbox::default(),
            outbox: Outbox::new(),
            subscribed: false,
            next_look: None,
            finished: false,
        }
    }

    /// Serves until the client goes, does not read for too long, or the server stops.
    pub(super) fn run(&mut self, shared: &Shared) {
        self.outbox.put(|out| reply::line(&Version::OURS, out));
        loop {
            self.outbox.send(&self.socket);
            let deadline = shared.deadline();
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return;
            }
            let ending = self.finished || deadline.is_some();
            if self.outbox.is_empty() {
                let answered = !ending && self.next_request();
                self.take_events(deadline.is_some());
                if answered || !self.outbox.is_empty() {
                    continue;
                }
                if ending || (self.inbox.has_ended() && !self.subscribed) {
                    return;
                }
            }
            let stuck = self.outbox.stuck_for();
            if stuck >= self.limits.patience {
                say!("qkprobe: control: a client did not read for {} s: closed", self.limits.patience.as_secs_f32());
                return;
            }
            let event_or_patience = match self.outbox.is_empty() {
                true => self.next_look.map(|at| at.saturating_duration_since(Instant::now())),
                false => Some(self.limits.patience.saturating_sub(stuck)),
            };
            let end = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let timeout = event_or_patience.into_iter().chain(end).min();
            if self.wait(timeout) {
                return;
            }
        }
    }

    /// Moves events to the outbox, unless that was done just now: a burst is taken in pieces, not line by line.
    fn take_events(&mut self, at_once: bool) {
        let due = self.next_look.is_none_or(|at| at_once || Instant::now() >= at);
        if self.subscribed && !self.finished && due {
            let more = self.outbox.put(|out| self.mailbox.take(out));
            self.next_look = more.then(|| Instant::now() + NAP);
        }
    }

    /// Sleeps. `true` means that the client is gone altogether.
    fn wait(&mut self, timeout: Option<Duration>) -> bool {
        // Nothing is read while something waits to be sent: a client that does not read cannot pile up replies.
        let wanted = match (self.outbox.is_empty(), self.inbox.has_ended()) {
            (false, _) => PollFlags::OUT,
            (true, false) => PollFlags::IN,
            (true, true) => PollFlags::empty(),
        };
        let mut fds = [PollFd::new(&self.socket, wanted), PollFd::new(&*self.wake, PollFlags::IN)];
        // At least a millisecond: `poll` with 0 would not sleep at all.
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout.max(NAP)).ok());
        if poll(&mut fds, timeout.as_ref()).is_err() {
            // A signal; anything else would come again at once.
            std::thread::sleep(NAP);
            return false;
        }
        let [socket, wake] = fds.map(|fd| fd.revents());
        if !wake.is_empty() {
            self.wake.clear();
            self.next_look = None;
        }
        if wanted == PollFlags::IN && !socket.is_empty() {
            self.inbox.fill(&self.socket);
            return false;
        }
        // Both directions are closed, and all that came before was read.
        self.inbox.has_ended() && socket.intersects(PollFlags::HUP | PollFlags::ERR)
    }

    /// Answers the next request, if a whole one is there.
    fn next_request(&mut self) -> bool {
        let line = match self.inbox.next_line() {
            Ok(None) => return false,
            Ok(Some(line)) => line,
            Err(TooLong) => {
                let text = format!("the line is longer than {MAX_LINE} bytes; the connection is closed");
                let refusal = Refusal::new(libc::EMSGSIZE, text);
                self.outbox.put(|out| reply::bad(&Value::Null, &refusal, out));
                self.finished = true;
                return true;
            }
        };
        match protocol::decode(&line) {
            Ok(Request { id, command }) => self.serve(&id, command),
            Err(rejected) => self.outbox.put(|out| reply::bad(&rejected.id, &rejected.refusal, out)),
        }
        true
    }

    fn serve(&mut self, id: &Value, command: Command) {
        let backend = &*self.backend;
        match command {
            Command::Nothing => {}
            Command::Add(probes) => {
                let added = backend.add(&probes).map(Listed::Added);
                self.outbox.put(|out| reply::either(id, added, out));
            }
            Command::Delete(selector) => {
                let removed = backend.delete(&selector).map(Listed::Removed);
                self.outbox.put(|out| reply::either(id, removed, out));
            }
            Command::SetEnabled(selector, on) => {
                let count = backend.set_enabled(&selector, on).map(|count| json!({ "count": count }));
                self.outbox.put(|out| reply::either(id, count, out));
            }
            Command::List => self.good(id, &Listed::Probes(backend.list())),
            Command::Profile => self.good(id, &Listed::Probes(backend.profile())),
            Command::Status => {
                let status = FullStatus { status: backend.status(), held: backend.held() };
                self.good(id, &status);
            }
            Command::Subscribe(events) => {
                // The reply comes first: what the mailbox gets from here on is taken after it.
                self.feed.subscribe(&self.mailbox, Filter::new(events));
                if self.subscribed {
                    // But what an earlier subscription brought comes before it.
                    self.outbox.put(|out| self.mailbox.take(out));
                }
                self.subscribed = true;
                self.next_look = None;
                self.good(id, &json!({}));
            }
            Command::Unsubscribe => {
                let was_subscribed = self.feed.unsubscribe(&self.mailbox);
                self.subscribed = false;
                self.next_look = None;
                // Before the reply: after it no event comes.
                self.outbox.put(|out| self.mailbox.take(out));
                self.good(id, &json!({ "was_subscribed": was_subscribed }));
            }
            Command::Continue(vcpu) => self.good(id, &json!({ "released": backend.go_on(vcpu) })),
            Command::Quit(status) => self.quit(id, status),
            Command::Help => self.good(id, &help()),
            Command::Version => self.good(id, &Version::OURS),
        }
    }

    fn good(&mut self, id: &Value, result: &impl Serialize) {
        self.outbox.put(|out| reply::good(id, result, out));
    }

    /// The reply goes first, for a bounded time: after the call there may be nobody to send it.
    fn quit(&mut self, id: &Value, status: u8) {
        self.good(id, &json!({ "status": status }));
        let start = Instant::now();
        loop {
            self.outbox.send(&self.socket);
            if self.outbox.is_empty() || start.elapsed() > LAST_REPLY {
                break;
            }
            std::thread::sleep(NAP);
        }
        self.backend.quit(status);
        self.finished = true;
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.feed.unsubscribe(&self.mailbox);
    }
}

fn help() -> Value {
    let commands = COMMANDS.map(|(cmd, keys, about)| json!({ "cmd": cmd, "keys": keys, "about": about }));
    json!({ "commands": commands })
}
