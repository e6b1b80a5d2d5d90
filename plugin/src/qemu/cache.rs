//! The code cache: which blocks must be translated again, and when that can be done.
//!
//! Writing a byte of code back onto itself makes QEMU drop the blocks that overlap it, and only those (API 5). It must
//! happen on a vCPU's thread at a safepoint or in a hit, never in the translation callback. API 4 cannot write: there the
//! whole code cache is reset, at a safepoint as well. The same is done for code of which nobody knows where it lies in
//! the host's memory.
//!
//! A callback may be registered at any time, but not removed: QEMU frees its entry at once, while another vCPU's thread
//! may be about to call it (QEMU 10.0 died of that at one in a hundred removals). Only a reset removes callbacks while no
//! vCPU translates or runs anything; for the one that a vCPU calls outside of that see `waker`. So some time after the
//! last probe went, when none came meanwhile, there is a reset, which also drops all code that was translated under the
//! hook: the guest runs as fast as without the plugin.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use qkprobe_arch::GuestAddr;

use super::entry::QemuEvents;
use super::host_memory::{self, HostAddr};
use super::shapes::Registrar;
use super::waker::{Waker, Wanted};
use crate::primitive::Mutex;
use crate::registry::{CodeCache, Place};

/// How often somebody who waits for a safepoint looks again.
const POLL: Duration = Duration::from_micros(100);
/// How long the translation hook stays after the last probe went: the next may come soon.
const LINGER: Duration = Duration::from_millis(300);
/// The least time from a reset to one that is asked for by others than a hit: in between the guest gets on.
const BETWEEN: Duration = Duration::from_millis(10);
/// How long another vCPU has for leaving its block and asking all to stop for its reset: then this one does, before its next
/// block.
const LEAVING: Duration = Duration::from_millis(5);

/// Code that must be translated again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stale {
    pub(crate) vaddr: GuestAddr,
    /// Where it lies in the host's memory, if that is known.
    pub(crate) host: Option<HostAddr>,
}

/// Where code lies in the host's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HostPlace {
    Known(HostAddr),
    /// Not mapped in the address space of this moment.
    Unmapped,
    Unknown,
}

/// Code, as a vCPU's thread finds and touches it.
pub(crate) trait CodeMemory {
    /// Where it lies in the host's memory.
    fn find(&self, vaddr: GuestAddr) -> HostPlace;
    /// Copies the byte at `host`, which can be read, to `vaddr`, where it already is.
    fn rewrite(&self, vaddr: GuestAddr, host: HostAddr) -> bool;
}

/// QEMU's code cache.
#[derive(Debug)]
pub(crate) struct QemuCache {
    pub(crate) registrar: Registrar<'static>,
    /// Set once the guest may have translated anything: until then there is nothing to drop.
    running: AtomicBool,
    /// `queue` is not empty: looked at without the lock.
    pending: AtomicBool,
    queue: Mutex<Queue>,
    /// The translation hook is on.
    hooked: AtomicBool,
    pub(crate) waker: Waker,
}

#[derive(Debug, Default)]
struct Queue {
    stale: Vec<(u64, Stale)>,
    /// The oldest request for code of which nobody knows where it is: everything must go.
    everything: Option<u64>,
    /// The oldest request of each batch that a vCPU is working on.
    in_service: Vec<u64>,
    /// The oldest request that waits for a reset to be done.
    resetting: Option<u64>,
    /// When the last reset was.
    reset: Option<Instant>,
    /// The hook is not wanted any more, since then.
    unhooked: Option<Instant>,
    /// The number of the next request.
    next: u64,
    /// Something came that the waker has not seen.
    fresh: bool,
}

impl Queue {
    fn waits(&self) -> bool {
        !self.stale.is_empty() || self.everything.is_some() || self.unhooked.is_some()
    }

    /// The number of the oldest request that is not done.
    fn oldest(&self) -> Option<u64> {
        let stale = self.stale.iter().map(|(number, _)| number);
        stale.chain(&self.everything).chain(&self.in_service).chain(&self.resetting).min().copied()
    }
}

impl QemuCache {
    pub(crate) fn new(registrar: Registrar<'static>) -> Self {
        Self {
            registrar,
            running: AtomicBool::new(false),
            pending: AtomicBool::new(false),
            queue: Mutex::new(Queue::default()),
            hooked: AtomicBool::new(false),
            waker: Waker::new(registrar),
        }
    }

    /// A vCPU exists: from here on there may be translated code.
    pub(crate) fn code_may_run(&self) {
        self.running.store(true, Ordering::Relaxed);
    }

    /// Starts what wakes sleeping vCPUs for the queue.
    ///
    /// # Errors
    /// No thread can be started.
    pub(crate) fn start_waker(self: &Arc<Self>) -> Result<(), String> {
        let cache = Arc::clone(self);
        let work = move || cache.waker.run::<QemuEvents>(|| cache.wants_vcpus());
        let started = std::thread::Builder::new().name("qkprobe-waker".into()).spawn(work);
        started.map(drop).map_err(|error| format!("cannot start a thread: {error}"))
    }

    /// When a sleeping vCPU is to come to a safepoint.
    fn wants_vcpus(&self) -> Wanted {
        let mut queue = self.queue.lock();
        queue.fresh = false;
        if !queue.stale.is_empty() || queue.everything.is_some() {
            let soon = self.too_soon(&queue);
            return if soon.is_zero() { Wanted::Now } else { Wanted::In(soon) };
        }
        // Where QEMU tells of interrupts, the reset can wait for one: a guest that sleeps has no use for it.
        let Some(since) = queue.unhooked.filter(|_| self.registrar.api.register_vcpu_discon_cb.is_none()) else {
            return Wanted::Never;
        };
        let left = LINGER.saturating_sub(since.elapsed());
        if left.is_zero() { Wanted::Now } else { Wanted::In(left) }
    }

    /// How long what waits has to wait, because a reset would be too soon after the last one.
    fn too_soon(&self, queue: &Queue) -> Duration {
        let by_reset = self.registrar.api.drops_code_by_reset() || queue.everything.is_some();
        let last = queue.reset.filter(|_| by_reset);
        last.map_or(Duration::ZERO, |reset| BETWEEN.saturating_sub(reset.elapsed()))
    }

    /// Asks for new translation of these.
    pub(crate) fn request(&self, stale: impl IntoIterator<Item = Stale>) {
        let mut queue = self.queue.lock();
        for stale in stale {
            let number = queue.next;
            queue.next += 1;
            queue.stale.push((number, stale));
        }
        self.announce(&mut queue);
    }

    /// Asks for new translation of everything: once, however often that is asked for until it is done.
    fn request_everything(&self) {
        let mut queue = self.queue.lock();
        let number = queue.next;
        queue.next += 1;
        queue.everything.get_or_insert(number);
        self.announce(&mut queue);
    }

    /// Something new may wait.
    fn announce(&self, queue: &mut Queue) {
        if queue.waits() {
            self.keep_pending(queue);
            if !std::mem::replace(&mut queue.fresh, true) {
                self.waker.notify();
            }
        }
    }

    fn keep_pending(&self, queue: &Queue) {
        if queue.waits() {
            // Release, paired with the Acquire in `serve`; the lock orders the queue itself.
            self.pending.store(true, Ordering::Release);
        }
    }

    /// Waits until all that was requested so far is done; false if that takes longer than `patience` (the guest has no
    /// safepoint).
    pub(crate) fn settle(&self, patience: Duration) -> bool {
        let upto = self.queue.lock().next;
        let start = Instant::now();
        loop {
            let done = self.queue.lock().oldest().is_none_or(|oldest| oldest >= upto);
            if done {
                return true;
            }
            if start.elapsed() > patience {
                return false;
            }
            std::thread::sleep(POLL);
        }
    }

    /// On a vCPU's thread, at a safepoint: does what was asked for. What is not mapped in the current address space
    /// (user page tables under page-table isolation) stays for the next safepoint.
    #[inline]
    pub(crate) fn serve(&self, code: &impl CodeMemory) {
        if self.pending.load(Ordering::Acquire) {
            self.serve_pending(code);
        }
    }

    #[cold]
    fn serve_pending(&self, code: &impl CodeMemory) {
        // Taken out, so that no lock is held while QEMU takes its own: a translation on another vCPU holds page locks
        // when it asks for more.
        let (mut stale, mut reset, oldest) = {
            let mut queue = self.queue.lock();
            if !self.too_soon(&queue).is_zero() {
                return;
            }
            let unhook = queue.unhooked.is_some_and(|since| since.elapsed() >= LINGER);
            if unhook {
                queue.unhooked = None;
            }
            self.pending.store(queue.unhooked.is_some(), Ordering::Relaxed);
            let stale = std::mem::take(&mut queue.stale);
            let everything = queue.everything.take();
            let oldest = stale.iter().map(|(number, _)| *number).chain(everything).min();
            let Some(oldest) = oldest.or(unhook.then_some(u64::MAX)) else { return };
            queue.in_service.push(oldest);
            (stale, everything.is_some() || unhook, oldest)
        };
        if reset {
            // That includes these.
            stale.clear();
        }
        stale.retain(|(_, stale)| {
            let place = stale.host.map_or_else(|| code.find(stale.vaddr), HostPlace::Known);
            match self.drop_code(stale.vaddr, place, code) {
                Dropped::Done => false,
                Dropped::NotMapped => true,
                Dropped::ByReset => {
                    reset = true;
                    false
                }
            }
        });
        let mut queue = self.queue.lock();
        if let Some(at) = queue.in_service.iter().position(|other| *other == oldest) {
            queue.in_service.swap_remove(at);
        }
        if reset {
            queue.resetting = Some(queue.resetting.map_or(oldest, |other| other.min(oldest)));
        }
        queue.stale.extend(stale);
        self.keep_pending(&queue);
        drop(queue);
        if reset {
            self.waker.reset::<QemuEvents>();
        }
    }

    /// On a vCPU's thread, in a hit: drops the code at `vaddr` at once. False where it is not mapped.
    pub(crate) fn retranslate_now(&self, vaddr: GuestAddr, code: &impl CodeMemory) -> bool {
        match self.drop_code(vaddr, code.find(vaddr), code) {
            Dropped::Done => true,
            Dropped::NotMapped => false,
            Dropped::ByReset => {
                // Takes effect before the next block; that of another vCPU when that has left its own.
                if !self.waker.reset::<QemuEvents>() {
                    std::thread::sleep(LEAVING);
                }
                true
            }
        }
    }

    fn drop_code(&self, vaddr: GuestAddr, place: HostPlace, code: &impl CodeMemory) -> Dropped {
        match place {
            _ if self.registrar.api.drops_code_by_reset() => Dropped::ByReset,
            HostPlace::Unknown => Dropped::ByReset,
            HostPlace::Known(host) if rewrite(code, vaddr, host) => Dropped::Done,
            HostPlace::Known(_) | HostPlace::Unmapped => Dropped::NotMapped,
        }
    }

    /// QEMU's reset is done: no code is translated, no callback registered, and no vCPU runs anything until this returns.
    pub(crate) fn was_reset(&self) {
        {
            let mut queue = self.queue.lock();
            queue.resetting = None;
            queue.reset = Some(Instant::now());
            queue.everything = None;
            queue.stale.clear();
        }
        self.waker.was_reset();
        self.registrar.register_lifetime::<QemuEvents>();
        // A thread that wants the hook just now sets the mark first and then registers it: once more does no harm.
        if self.hooked.load(Ordering::SeqCst) {
            self.register_hook();
        }
    }

    fn register_hook(&self) {
        self.registrar.set_translation::<QemuEvents>();
        // Together with the translation hook and never from within a translation, which holds page locks.
        self.registrar.set_interrupt_safepoint::<QemuEvents>();
    }
}

enum Dropped {
    Done,
    NotMapped,
    ByReset,
}

/// Copies one byte of guest code onto itself. The array's data *is* guest RAM, so no old value can come back over
/// what the guest patches at the same time, but for the few cycles of the copy itself.
fn rewrite(code: &impl CodeMemory, vaddr: GuestAddr, host: HostAddr) -> bool {
    let mut present = [0];
    // If the RAM is gone (unplugged), so are its blocks.
    !host_memory::read(host, &mut present) || code.rewrite(vaddr, host)
}

impl CodeCache for QemuCache {
    fn set_translation_hook(&self, on: bool) {
        self.hooked.store(on, Ordering::SeqCst);
        {
            let mut queue = self.queue.lock();
            queue.unhooked = (!on).then(Instant::now);
            self.announce(&mut queue);
        }
        if on {
            self.register_hook();
        }
    }

    fn retranslate(&self, place: Place) {
        if !self.running.load(Ordering::Relaxed) {
            return;
        }
        match super::entry::stale_code(place) {
            Some(stale) => self.request([stale]),
            // The kernel runs, but no block of it was translated since somebody looks for it.
            None => self.request_everything(),
        }
    }
}
