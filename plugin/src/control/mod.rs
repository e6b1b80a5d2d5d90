//! The control server: `control=SOCKET`, one JSON object a line in both directions (docs/control.md).
//!
//! Rooms: `socket` makes the file that only its owner can open; `protocol`, `selector` and `suggest` turn a line into a
//! request, `reply` an answer into a line; `backend` is what the plugin answers; `client` serves one connection on a
//! thread of its own, over `buffers`; `feed` brings events from the writer thread to those who subscribed.
//!
//! A vCPU's thread never comes here. The writer thread comes as far as a mailbox. What a client can make the server
//! hold is bounded: see `client`.

mod backend;
mod buffers;
mod client;
mod feed;
mod protocol;
mod reply;
mod selector;
mod socket;
mod suggest;
mod wake;

#[cfg(test)]
mod decode_tests;
#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::collections::HashMap;
use std::fmt;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use serde_json::Value;

pub(crate) use crate::message::say;
pub(crate) use backend::{AddedProbe, Backend, Held, Listing, NewProbe, Profile, Refusal, Removed, Status};
use buffers::Outbox;
use client::Client;
pub(crate) use feed::Feed;
pub(crate) use selector::Selector;
pub(crate) use socket::Listener;
use wake::Wake;

/// How long `stop` lets clients take what waits for them, and how long it waits for their threads at most.
const STOP_SENDING: Duration = Duration::from_millis(500);
const STOP_PATIENCE: Duration = Duration::from_millis(900);
/// After a failed `accept` (no descriptor is left) this long passes before the next.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// What a client may do. Constant but for tests.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// Connections at the same time.
    clients: usize,
    /// How long a client may take nothing of what waits for it.
    patience: Duration,
}

const LIMITS: Limits = Limits { clients: 32, patience: Duration::from_secs(10) };

/// What all threads of the server share.
struct Shared {
    backend: Arc<dyn Backend>,
    feed: Arc<Feed>,
    limits: Limits,
    listener: Listener,
    /// Wakes the thread that accepts.
    wake: Wake,
    stopping: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The connected clients, each with what wakes it.
    clients: HashMap<u64, Arc<Wake>>,
    next: u64,
    /// The thread that accepts has not ended yet.
    accepting: bool,
    /// Until when clients may still take what waits for them.
    deadline: Option<Instant>,
}

impl Shared {
    /// `Some` once the server stops.
    fn deadline(&self) -> Option<Instant> {
        if !self.stopping.load(Ordering::Acquire) {
            return None;
        }
        self.state.lock().deadline
    }
}

thread_local! {
    /// Set on clients' threads: one that ends QEMU must not wait for itself.
    static SERVES: Cell<bool> = const { Cell::new(false) };
}

/// The running server. Dropping it stops it.
pub(crate) struct ControlServer {
    shared: Arc<Shared>,
}

impl fmt::Debug for ControlServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ControlServer").field("listener", &self.shared.listener).finish_non_exhaustive()
    }
}

impl ControlServer {
    /// Makes the socket and starts the thread that accepts.
    ///
    /// # Errors
    /// One message: the path, the reason, what to do.
    #[cfg(test)]
    pub(crate) fn start(path: &Path, backend: Arc<dyn Backend>, feed: Arc<Feed>) -> Result<Self, String> {
        Self::serve(path, Listener::bind(path)?, backend, feed)
    }

    /// The same on a socket that was made before.
    ///
    /// # Errors
    /// As `start`.
    pub(crate) fn serve(
        path: &Path,
        listener: Listener,
        backend: Arc<dyn Backend>,
        feed: Arc<Feed>,
    ) -> Result<Self, String> {
        Self::start_on(path, listener, backend, feed, LIMITS)
    }

    #[cfg(test)]
    fn start_with(path: &Path, backend: Arc<dyn Backend>, feed: Arc<Feed>, limits: Limits) -> Result<Self, String> {
        Self::start_on(path, Listener::bind(path)?, backend, feed, limits)
    }

    fn start_on(
        path: &Path,
        listener: Listener,
        backend: Arc<dyn Backend>,
        feed: Arc<Feed>,
        limits: Limits,
    ) -> Result<Self, String> {
        let wake = Wake::new().map_err(|error| format!("control={}: {error}", path.display()))?;
        let shared = Arc::new(Shared {
            backend,
            feed,
            limits,
            listener,
            wake,
            stopping: AtomicBool::new(false),
            state: Mutex::new(State { accepting: true, ..State::default() }),
        });
        let server = Self { shared: Arc::clone(&shared) };
        let accept = move || {
            let _end = OnDrop(|| shared.state.lock().accepting = false);
            if catch_unwind(AssertUnwindSafe(|| accept_all(&shared))).is_err() {
                say!("qkprobe: control: an internal error: no further client can connect");
            }
        };
        let started = thread::Builder::new().name("qkprobe-control".into()).spawn(accept);
        if let Err(error) = started {
            return Err(format!("control={}: cannot start a thread: {error}", path.display()));
        }
        Ok(server)
    }

    /// Removes the socket, lets clients take what waits for them, closes all. Takes at most a second; a thread that is
    /// inside the backend then is left behind. May be called from the backend's `quit`, and more than once.
    pub(crate) fn stop(&self) {
        let shared = &self.shared;
        shared.listener.remove();
        let start = Instant::now();
        let mut state = shared.state.lock();
        state.deadline.get_or_insert(start + STOP_SENDING);
        // Under the lock: a client that is not in the list yet sees the flag when it is.
        shared.stopping.store(true, Ordering::Release);
        shared.wake.wake();
        state.clients.values().for_each(|wake| wake.wake());
        drop(state);
        let ourselves = usize::from(SERVES.get());
        while start.elapsed() < STOP_PATIENCE {
            let state = shared.state.lock();
            if !state.accepting && state.clients.len() <= ourselves {
                return;
            }
            drop(state);
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for ControlServer {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Runs something at the end of a scope, also of one that a panic leaves.
struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

fn accept_all(shared: &Arc<Shared>) {
    while !shared.stopping.load(Ordering::Acquire) {
        match shared.listener.accept() {
            Ok(socket) => begin(shared, socket),
            Err(Errno::AGAIN) => {
                let mut fds = [PollFd::new(&shared.listener, PollFlags::IN), PollFd::new(&shared.wake, PollFlags::IN)];
                if poll(&mut fds, None).is_err() {
                    thread::sleep(Duration::from_millis(1));
                }
            }
            // A signal, or a client that went away while it waited.
            Err(Errno::INTR | Errno::CONNABORTED) => {}
            Err(_) => thread::sleep(ACCEPT_RETRY),
        }
    }
}

/// Gives a client its thread, or turns it away.
fn begin(shared: &Arc<Shared>, socket: OwnedFd) {
    let Ok(wake) = Wake::new().map(Arc::new) else {
        return turn_away(socket, &Refusal::new(libc::EAGAIN, "QEMU has no descriptor left"));
    };
    let mut state = shared.state.lock();
    if state.clients.len() >= shared.limits.clients {
        drop(state);
        let text = format!("{} clients are connected: no more are possible", shared.limits.clients);
        return turn_away(socket, &Refusal::new(libc::EBUSY, text));
    }
    let key = state.next;
    state.next += 1;
    state.clients.insert(key, Arc::clone(&wake));
    drop(state);
    // A thread that cannot be started drops its closure: socket, subscription and entry go with it.
    let shared = Arc::clone(shared);
    let entry = OnDrop({
        let shared = Arc::clone(&shared);
        move || {
            shared.state.lock().clients.remove(&key);
        }
    });
    let serve = move || {
        // Moved in, and dropped last: a client is on the list until its socket is closed.
        let _entry = entry;
        SERVES.set(true);
        let mut client = Client::new(socket, wake, &shared);
        if catch_unwind(AssertUnwindSafe(|| client.run(&shared))).is_err() {
            say!("qkprobe: control: an internal error: a client was closed");
        }
    };
    if let Err(error) = thread::Builder::new().name("qkprobe-client".into()).spawn(serve) {
        say!("qkprobe: control: a client was closed: cannot start a thread: {error}");
    }
}

fn turn_away(socket: OwnedFd, refusal: &Refusal) {
    let mut outbox = Outbox::new();
    outbox.put(|out| reply::bad(&Value::Null, refusal, out));
    // One line fits into the buffer of a fresh socket.
    outbox.send(&socket);
}
