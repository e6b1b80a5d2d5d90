//! Wakes a sleeping vCPU when code waits for a safepoint.
//!
//! A vCPU that sleeps calls the resume callback before it does anything else: a safepoint. But a reset frees the entry of
//! that callback at once, while a vCPU that wakes up at the same moment may be about to call it: a reset waits for vCPUs
//! that run code, not for one that has just slept (QEMU 10.0 died of that at one of some hundred thousand resets on a
//! busy machine). What QEMU holds there is its big lock. So the callback is registered only while something waits, and
//! goes by its own hand: in a resume callback we are under the big lock, and no other vCPU is about to call it.
//!
//! Registering any callback makes QEMU wake all vCPUs, and that is what wakes the sleepers. It does so without the big
//! lock, so a vCPU that was just falling asleep may not notice: hence again, less and less often.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Thread;
use std::time::{Duration, Instant};

use super::shapes::{Events, Registrar};
use crate::primitive::{Mutex, ThreadId, current_thread};

/// How soon the sleepers are woken again, and how seldom it gets.
const FIRST: Duration = Duration::from_millis(1);
const LAST: Duration = Duration::from_secs(1);
/// How long a reset waits for a vCPU to call back that may be about to. If none does, none is: they sleep, or run code, which
/// is to say that they wait for the reset.
const ABOUT_TO: Duration = Duration::from_millis(10);
/// How long nothing is registered after that, at most: until the reset is done, some microseconds later.
const QUIET: Duration = Duration::from_millis(100);
const POLL: Duration = Duration::from_micros(50);

/// When the sleepers are to be woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    Never,
    Now,
    In(Duration),
}

#[derive(Debug)]
pub(crate) struct Waker {
    registrar: Registrar<'static>,
    thread: OnceLock<Thread>,
    /// Until when a reset that is not done keeps anything from being registered. Held around each change of `registered` but
    /// the one by a reset.
    change: Mutex<Option<Instant>>,
    /// The resume callback may be registered.
    registered: AtomicBool,
    /// Who asked for a reset that is not done. Nothing else is locked while this is.
    resetting: Mutex<Option<ThreadId>>,
    about_to: Duration,
}

impl Waker {
    pub(crate) fn new(registrar: Registrar<'static>) -> Self {
        Self {
            registrar,
            thread: OnceLock::new(),
            change: Mutex::new(None),
            registered: AtomicBool::new(false),
            resetting: Mutex::new(None),
            about_to: ABOUT_TO,
        }
    }

    /// What the waker's thread does: it looks at what is `wanted`, and sleeps as long as that is nothing.
    pub(crate) fn run<E: Events>(&self, wanted: impl Fn() -> Wanted) -> ! {
        let _ = self.thread.set(std::thread::current());
        let (mut again, mut turn) = (FIRST, false);
        loop {
            let pause = match wanted() {
                Wanted::Never => None,
                Wanted::In(time) => Some(time),
                Wanted::Now => {
                    turn = !turn;
                    self.wake::<E>(turn);
                    Some(again)
                }
            };
            let since = Instant::now();
            match pause {
                Some(pause) => std::thread::park_timeout(pause),
                None => std::thread::park(),
            }
            let something_new = pause.is_none_or(|pause| since.elapsed() < pause);
            again = if something_new { FIRST } else { (again * 2).min(LAST) };
        }
    }

    /// Something new waits.
    pub(crate) fn notify(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    /// Registers the resume callback, and registers or removes another one that QEMU never calls, in `turn`: a callback that
    /// is there already wakes nobody.
    fn wake<E: Events>(&self, turn: bool) {
        {
            let quiet = self.change.lock();
            if self.resetting.lock().is_some() && quiet.is_some_and(|until| Instant::now() < until) {
                return;
            }
            self.registered.store(true, Ordering::SeqCst);
            self.registrar.set_resume::<E>(true);
            // A reset may have come between.
            self.registered.store(true, Ordering::SeqCst);
        }
        self.registrar.set_never_called(turn);
    }

    /// In the resume callback, under QEMU's big lock: it goes.
    pub(crate) fn resumed<E: Events>(&self) {
        let _change = self.change.lock();
        self.registrar.set_resume::<E>(false);
        self.registered.store(false, Ordering::SeqCst);
    }

    /// Drops all code and all callbacks, on a vCPU's thread, when that has left the block that it is in. False: another
    /// vCPU has asked for that, and QEMU forgets that this one did.
    pub(crate) fn reset<E: Events>(&self) -> bool {
        let me = current_thread();
        let first = *self.resetting.lock().get_or_insert(me);
        self.registrar.reset::<E>();
        first == me
    }

    /// The code cache was flushed. If that is for a reset, the callbacks go next: a vCPU that is about to call one comes
    /// first.
    pub(crate) fn flushed(&self) {
        if self.resetting.lock().is_none() {
            return;
        }
        let start = Instant::now();
        loop {
            {
                let mut quiet = self.change.lock();
                if !self.registered.load(Ordering::SeqCst) || start.elapsed() >= self.about_to {
                    *quiet = Some(Instant::now() + QUIET);
                    return;
                }
            }
            std::thread::sleep(POLL);
        }
    }

    /// All callbacks are gone.
    pub(crate) fn was_reset(&self) {
        self.registered.store(false, Ordering::SeqCst);
        *self.resetting.lock() = None;
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::c_void;
    use std::sync::atomic::AtomicU32;

    use super::*;
    use crate::engine::fake;
    use crate::qemu::api::{Api, Id};
    use crate::qemu::entry::QemuEvents;

    /// QEMU's list of resume callbacks: one entry or none.
    static LISTED: AtomicBool = AtomicBool::new(false);
    /// How often something was registered or removed that wakes the vCPUs.
    static WOKEN: AtomicU32 = AtomicU32::new(0);

    unsafe extern "C" fn resume(_id: Id, callback: *const c_void, _userdata: *mut c_void) {
        LISTED.store(!callback.is_null(), Ordering::SeqCst);
    }

    unsafe extern "C" fn syscall(_id: Id, _callback: *const c_void, _userdata: *mut c_void) {
        WOKEN.fetch_add(1, Ordering::SeqCst);
    }

    unsafe extern "C" fn reset(_id: Id, _callback: *const c_void, _userdata: *mut c_void) {}

    /// One thread resets, as a hit does; one sleeps and wakes up, and stands for a moment between the list and the call; and
    /// one wants to wake it.
    #[test]
    fn no_reset_frees_an_entry_that_is_about_to_be_called() {
        const RESETS: u32 = 3000;
        let api = Box::leak(Box::new(Api {
            register_vcpu_resume_cb: resume,
            register_vcpu_syscall_ret_cb: syscall,
            reset,
            ..fake::api()
        }));
        // However slow this machine is just now.
        let waker = Waker { about_to: Duration::from_secs(30), ..Waker::new(Registrar { api, id: 1 }) };
        let over = AtomicBool::new(false);
        let resumed = AtomicU32::new(0);
        std::thread::scope(|scope| {
            let sleeper = scope.spawn(|| {
                while !over.load(Ordering::SeqCst) {
                    if LISTED.load(Ordering::SeqCst) {
                        std::thread::sleep(Duration::from_micros(100));
                        assert!(LISTED.load(Ordering::SeqCst), "the entry was freed");
                        waker.resumed::<QemuEvents>();
                        resumed.fetch_add(1, Ordering::SeqCst);
                    }
                }
            });
            scope.spawn(|| {
                let mut turn = false;
                while !over.load(Ordering::SeqCst) {
                    turn = !turn;
                    waker.wake::<QemuEvents>(turn);
                    std::thread::sleep(Duration::from_micros(200));
                }
            });
            for _ in (0..RESETS).take_while(|_| !sleeper.is_finished()) {
                waker.reset::<QemuEvents>();
                waker.flushed();
                std::thread::sleep(Duration::from_micros(300));
                LISTED.store(false, Ordering::SeqCst);
                waker.was_reset();
                std::thread::sleep(Duration::from_micros(50));
            }
            over.store(true, Ordering::SeqCst);
        });
        let counts = [&resumed, &WOKEN].map(|count| count.load(Ordering::SeqCst));
        assert!(counts.iter().all(|count| *count >= 2), "{counts:?}");
    }
}
