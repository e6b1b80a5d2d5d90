//! The code cache: which blocks must be translated again, and when that can be done.
//!
//! Writing a byte of code back onto itself makes QEMU drop the blocks that overlap it, and only those (API 5). It must
//! happen on a vCPU's thread at a safepoint, never in the translation callback. API 4 cannot write: there the whole code
//! cache is reset, at a safepoint as well.

use std::sync::atomic::{AtomicBool, Ordering};

use qkprobe_arch::GuestAddr;

use super::api::{Api, GByteArray, Id};
use super::entry::QemuEvents;
use super::host_memory::{self, HostAddr};
use super::shapes::Registrar;
use crate::primitive::Mutex;
use crate::registry::{CodeCache, Place};

/// Code that must be translated again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stale {
    pub(crate) vaddr: GuestAddr,
    pub(crate) host: HostAddr,
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
    queue: Mutex<Vec<Stale>>,
    /// The translation hook is on.
    hooked: AtomicBool,
}

impl QemuCache {
    pub(crate) fn new(api: &'static Api, id: Id) -> Self {
        Self {
            api,
            id,
            running: AtomicBool::new(false),
            pending: AtomicBool::new(false),
            queue: Mutex::new(Vec::new()),
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
        queue.extend(stale);
        if !queue.is_empty() {
            // Release, paired with the Acquire in `serve`; the lock orders the queue itself.
            self.pending.store(true, Ordering::Release);
        }
    }

    /// On a vCPU's thread, at a safepoint: does what was asked for. What is not mapped in the current address space
    /// (user page tables under page-table isolation) stays for the next safepoint.
    #[inline]
    pub(crate) fn serve(&self) {
        if self.pending.load(Ordering::Acquire) {
            self.serve_pending();
        }
    }

    #[cold]
    fn serve_pending(&self) {
        // Taken out, so that no lock is held while QEMU takes its own: a translation on another vCPU holds page locks
        // when it asks for more.
        let mut stale = {
            let mut queue = self.queue.lock();
            self.pending.store(false, Ordering::Relaxed);
            std::mem::take(&mut *queue)
        };
        let Some(write) = self.api.write_memory_vaddr else {
            if !stale.is_empty() {
                self.registrar().reset::<QemuEvents>();
            }
            return;
        };
        stale.retain(|stale| !rewrite(write, *stale));
        if !stale.is_empty() {
            self.request(stale);
        } else if !self.hooked.load(Ordering::Relaxed) {
            self.registrar().set_interrupt_safepoint::<QemuEvents>(false);
        }
    }
}

/// Copies one byte of guest code onto itself. The array's data *is* guest RAM, so no old value can come back over
/// what the guest patches at the same time, but for the few cycles of the copy itself.
fn rewrite(write: unsafe extern "C" fn(u64, *mut GByteArray) -> bool, stale: Stale) -> bool {
    let mut present = [0];
    if !host_memory::read(stale.host, &mut present) {
        // The RAM is gone (unplugged): so are its blocks.
        return true;
    }
    let mut array = GByteArray { data: stale.host.0 as *mut u8, len: 1 };
    // SAFETY: `array` has glib's public layout, QEMU only reads `data` and `len`; `data` is mapped, as just seen.
    unsafe { write(stale.vaddr.0, &raw mut array) }
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
