//! The code cache: which blocks must be translated again, and when that can be done.
//!
//! Writing a byte of code back onto itself makes QEMU drop the blocks that overlap it, and only those (API 5). It must
//! happen on a vCPU's thread at a safepoint or in a hit, never in the translation callback. API 4 cannot write: there the
//! whole code cache is reset, at a safepoint as well. The same is done for code of which nobody knows where it lies in
//! the host's memory.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use qkprobe_arch::GuestAddr;

use super::api::{Api, GByteArray, Id};
use super::entry::QemuEvents;
use super::host_memory::{self, HostAddr};
use super::shapes::Registrar;
use crate::primitive::Mutex;
use crate::registry::{CodeCache, Place};

/// How often somebody who waits for a safepoint looks again.
const POLL: Duration = Duration::from_micros(100);

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

/// QEMU's code cache.
#[derive(Debug)]
pub(crate) struct QemuCache {
    api: &'static Api,
    id: Id,
    /// Set once the guest may have translated anything: until then there is nothing to drop.
    running: AtomicBool,
    /// `queue` is not empty: looked at without the lock.
    pending: AtomicBool,
    queue: Mutex<Queue>,
    /// The translation hook is on.
    hooked: AtomicBool,
}

#[derive(Debug, Default)]
struct Queue {
    stale: Vec<(u64, Stale)>,
    /// The oldest request of each batch that a vCPU is working on.
    in_service: Vec<u64>,
    /// The oldest request that waits for a reset to be done.
    resetting: Option<u64>,
    /// The number of the next request.
    next: u64,
}

impl QemuCache {
    pub(crate) fn new(api: &'static Api, id: Id) -> Self {
        Self {
            api,
            id,
            running: AtomicBool::new(false),
            pending: AtomicBool::new(false),
            queue: Mutex::new(Queue::default()),
            hooked: AtomicBool::new(false),
        }
    }

    pub(crate) fn registrar(&self) -> Registrar<'static> {
        Registrar { api: self.api, id: self.id }
    }

    /// A vCPU exists: from here on there may be translated code.
    pub(crate) fn set_running(&self) {
        self.running.store(true, Ordering::Relaxed);
    }

    /// Asks for new translation of these.
    pub(crate) fn request(&self, stale: impl IntoIterator<Item = Stale>) {
        let mut queue = self.queue.lock();
        for stale in stale {
            let number = queue.next;
            queue.next += 1;
            queue.stale.push((number, stale));
        }
        self.announce(&queue);
    }

    fn announce(&self, queue: &Queue) {
        if !queue.stale.is_empty() {
            // Release, paired with the Acquire in `serve`; the lock orders the queue itself.
            self.pending.store(true, Ordering::Release);
        }
    }

    /// Waits until all that was requested so far is done; false if that takes longer than `patience` (the guest stands
    /// still, or has no safepoint).
    pub(crate) fn settle(&self, patience: Duration) -> bool {
        let upto = self.queue.lock().next;
        let start = Instant::now();
        loop {
            {
                let queue = self.queue.lock();
                let open = queue.stale.iter().map(|(number, _)| number).chain(&queue.in_service).chain(&queue.resetting);
                if open.min().is_none_or(|oldest| *oldest >= upto) {
                    return true;
                }
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
    pub(crate) fn serve(&self, find: impl Fn(GuestAddr) -> HostPlace) {
        if self.pending.load(Ordering::Acquire) {
            self.serve_pending(find);
        }
    }

    #[cold]
    fn serve_pending(&self, find: impl Fn(GuestAddr) -> HostPlace) {
        // Taken out, so that no lock is held while QEMU takes its own: a translation on another vCPU holds page locks
        // when it asks for more.
        let (mut stale, oldest) = {
            let mut queue = self.queue.lock();
            self.pending.store(false, Ordering::Relaxed);
            let stale = std::mem::take(&mut queue.stale);
            let Some(oldest) = stale.iter().map(|(number, _)| *number).min() else { return };
            queue.in_service.push(oldest);
            (stale, oldest)
        };
        let mut reset = false;
        stale.retain(|(_, stale)| {
            let place = stale.host.map_or_else(|| find(stale.vaddr), HostPlace::Known);
            match self.drop_code(stale.vaddr, place) {
                Dropped::Done => false,
                Dropped::NotMapped => true,
                Dropped::ByReset => {
                    reset = true;
                    false
                }
            }
        });
        let mut queue = self.queue.lock();
        queue.in_service.retain(|other| *other != oldest);
        if reset {
            queue.resetting = Some(queue.resetting.map_or(oldest, |other| other.min(oldest)));
        }
        queue.stale.extend(stale);
        self.announce(&queue);
        let idle = queue.stale.is_empty() && queue.in_service.is_empty();
        drop(queue);
        if reset {
            self.registrar().reset::<QemuEvents>();
        } else if idle && !self.hooked.load(Ordering::Relaxed) {
            self.registrar().set_interrupt_safepoint::<QemuEvents>(false);
        }
    }

    /// On a vCPU's thread, in a hit: drops the code at `vaddr` at once. False where it is not mapped.
    pub(crate) fn retranslate_now(&self, vaddr: GuestAddr, place: HostPlace) -> bool {
        match self.drop_code(vaddr, place) {
            Dropped::Done => true,
            Dropped::NotMapped => false,
            Dropped::ByReset => {
                // Takes effect before the next block.
                self.registrar().reset::<QemuEvents>();
                true
            }
        }
    }

    fn drop_code(&self, vaddr: GuestAddr, place: HostPlace) -> Dropped {
        match (self.api.write_memory_vaddr, place) {
            (Some(_), HostPlace::Unmapped) => Dropped::NotMapped,
            (Some(write), HostPlace::Known(host)) => {
                if rewrite(write, vaddr, host) {
                    Dropped::Done
                } else {
                    Dropped::NotMapped
                }
            }
            (None, _) | (_, HostPlace::Unknown) => Dropped::ByReset,
        }
    }

    /// QEMU's reset is done.
    pub(crate) fn was_reset(&self) {
        self.queue.lock().resetting = None;
        self.registrar().register_lifetime::<QemuEvents>();
        if self.hooked.load(Ordering::Relaxed) {
            self.set_translation_hook(true);
        }
    }
}

enum Dropped {
    Done,
    NotMapped,
    ByReset,
}

/// Copies one byte of guest code onto itself. The array's data *is* guest RAM, so no old value can come back over
/// what the guest patches at the same time, but for the few cycles of the copy itself.
fn rewrite(write: unsafe extern "C" fn(u64, *mut GByteArray) -> bool, vaddr: GuestAddr, host: HostAddr) -> bool {
    let mut present = [0];
    if !host_memory::read(host, &mut present) {
        // The RAM is gone (unplugged): so are its blocks.
        return true;
    }
    let mut array = GByteArray { data: host.0 as *mut u8, len: 1 };
    // SAFETY: `array` has glib's public layout, QEMU only reads `data` and `len`; `data` is mapped, as just seen.
    unsafe { write(vaddr.0, &raw mut array) }
}

impl CodeCache for QemuCache {
    fn set_translation_hook(&self, on: bool) {
        self.hooked.store(on, Ordering::Relaxed);
        self.registrar().set_translation::<QemuEvents>(on);
        // Together with the translation hook and never from within a translation, which holds page locks. It stays
        // registered for what is still queued when the hook goes.
        if on {
            self.registrar().set_interrupt_safepoint::<QemuEvents>(true);
        }
    }

    fn retranslate(&self, place: Place) {
        if !self.running.load(Ordering::Relaxed) {
            return;
        }
        if let Some(stale) = super::entry::stale_code(place) {
            self.request([stale]);
        }
    }
}
