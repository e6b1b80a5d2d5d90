//! Events on their way from the writer thread to the clients that subscribed.
//!
//! Each subscriber has a mailbox: a bounded queue of whole lines. The writer thread puts a line into every mailbox that
//! wants it and goes on; a full mailbox drops the line and counts it. The client's thread takes all that is there, and
//! with it a line that says how many were lost. The writer never touches a client's socket.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::selector::Selector;
use super::wake::Wake;

/// What a mailbox holds at most, in bytes.
pub(super) const MAILBOX: usize = 256 << 10;
/// Room for `{"type":"lost","records":N}` and its line break.
const LOST_LINE: usize = 64;

/// The subscribers. Shared by the writer thread, which publishes, and the server.
#[derive(Debug, Default)]
pub(crate) struct Feed {
    subscribers: AtomicUsize,
    mailboxes: Mutex<Vec<Arc<Mailbox>>>,
}

impl Feed {
    /// Without subscribers.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Whether anybody is subscribed: else nothing needs to be formatted.
    #[inline]
    pub(crate) fn wanted(&self) -> bool {
        // Pairs with nothing: who subscribes gets the events from soon after on.
        self.subscribers.load(Ordering::Relaxed) != 0
    }

    /// Hands one line of JSON, with or without its line break, to whom it concerns. A line without group and event is a
    /// notice: every subscriber gets it. Takes two short locks and never waits for a client.
    pub(crate) fn publish(&self, group: &str, event: &str, json_line: &[u8]) {
        self.hand_out(group, event, false, json_line);
    }

    /// The same with a line of a reserved probe, which concerns only those who name its group.
    pub(crate) fn publish_reserved(&self, group: &str, event: &str, json_line: &[u8]) {
        self.hand_out(group, event, true, json_line);
    }

    fn hand_out(&self, group: &str, event: &str, reserved: bool, json_line: &[u8]) {
        if !self.wanted() {
            return;
        }
        let line = json_line.strip_suffix(b"\n").unwrap_or(json_line);
        for mailbox in self.mailboxes.lock().iter() {
            mailbox.offer(group, event, reserved, line);
        }
    }

    /// From here on this mailbox gets what passes the filter.
    pub(super) fn subscribe(&self, mailbox: &Arc<Mailbox>, filter: Filter) {
        // The old one may be large: it is not dropped under the lock that the writer waits for.
        let _old = std::mem::replace(&mut mailbox.inner.lock().filter, filter);
        let mut mailboxes = self.mailboxes.lock();
        if !mailboxes.iter().any(|known| Arc::ptr_eq(known, mailbox)) {
            mailboxes.push(Arc::clone(mailbox));
        }
        self.subscribers.store(mailboxes.len(), Ordering::Relaxed);
    }

    /// From here on it gets nothing. Returns whether it got something before.
    pub(super) fn unsubscribe(&self, mailbox: &Arc<Mailbox>) -> bool {
        let mut mailboxes = self.mailboxes.lock();
        let before = mailboxes.len();
        mailboxes.retain(|known| !Arc::ptr_eq(known, mailbox));
        self.subscribers.store(mailboxes.len(), Ordering::Relaxed);
        mailboxes.len() != before
    }
}

/// Which events a subscriber wants. Hashed: a filter may name thousands, and is asked at every event.
#[derive(Debug, Default)]
pub(super) struct Filter {
    all: bool,
    groups: HashSet<String>,
    /// Event names, each with the groups in which it is meant; `None` for any.
    events: HashMap<String, Vec<Option<String>>>,
}

impl Filter {
    /// All events, or those that a selector means.
    pub(super) fn new(selectors: Option<Vec<Selector>>) -> Self {
        let Some(selectors) = selectors else { return Self { all: true, ..Self::default() } };
        let mut filter = Self::default();
        for Selector { group, event, .. } in selectors {
            match (group, event) {
                (None, None) => filter.all = true,
                (Some(group), None) => {
                    filter.groups.insert(group);
                }
                (group, Some(event)) => filter.events.entry(event).or_default().push(group),
            }
        }
        filter
    }

    fn passes(&self, group: &str, event: &str, reserved: bool) -> bool {
        let is_notice = group.is_empty() && event.is_empty();
        let in_group = |groups: &Vec<Option<String>>| {
            groups.iter().any(|wanted| wanted.as_ref().map_or(!reserved, |wanted| wanted == group))
        };
        (self.all && !reserved)
            || is_notice
            || self.groups.contains(group)
            || self.events.get(event).is_some_and(in_group)
    }
}

/// One client's queue of lines.
#[derive(Debug)]
pub(super) struct Mailbox {
    inner: Mutex<Inner>,
    wake: Arc<Wake>,
}

#[derive(Debug, Default)]
struct Inner {
    filter: Filter,
    lines: Vec<u8>,
    /// Lines that did not fit since the client was last told.
    lost: u64,
    /// The client knows that there is something: it looks again by itself.
    told: bool,
}

impl Mailbox {
    pub(super) fn new(wake: Arc<Wake>) -> Self {
        Self { inner: Mutex::default(), wake }
    }

    fn offer(&self, group: &str, event: &str, reserved: bool, line: &[u8]) {
        let mut inner = self.inner.lock();
        if !inner.filter.passes(group, event, reserved) {
            return;
        }
        let before = inner.lines.len();
        let notice = if inner.lost == 0 { 0 } else { LOST_LINE };
        if before + notice + line.len() + 1 > MAILBOX {
            inner.lost += 1;
        } else {
            inner.tell_lost();
            inner.lines.extend_from_slice(line);
            inner.lines.push(b'\n');
        }
        // One wake-up a burst, and one more if the queue fills faster than the client naps.
        let half = MAILBOX / 2;
        let wake = !inner.told || (before < half && inner.lines.len() >= half);
        inner.told = true;
        drop(inner);
        if wake {
            self.wake.wake();
        }
    }

    /// Appends all that is there to `out`. `false` means that nothing was, and that the next line wakes the client;
    /// after `true` the client must look again, a little later, without being woken.
    pub(super) fn take(&self, out: &mut Vec<u8>) -> bool {
        let mut inner = self.inner.lock();
        inner.told = !inner.lines.is_empty() || inner.lost != 0;
        if out.is_empty() {
            // The buffers change places: neither is allocated again.
            std::mem::swap(out, &mut inner.lines);
        } else {
            out.append(&mut inner.lines);
        }
        if inner.lost != 0 {
            inner.tell_lost();
            out.append(&mut inner.lines);
        }
        inner.told
    }
}

impl Inner {
    fn tell_lost(&mut self) {
        if self.lost != 0 {
            let line = format!("{{\"type\":\"lost\",\"records\":{}}}\n", self.lost);
            self.lines.extend_from_slice(line.as_bytes());
            self.lost = 0;
        }
    }
}
