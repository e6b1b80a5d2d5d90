//! The addresses where something awaited may arrive. Each is in the set from the first time that somebody waits there
//! until no probe needs it; translation plants a callback on every instruction in the set.
//!
//! Lock-free: a hit adds to it. Whoever finds an address not yet *armed* has its code translated again before going on,
//! so that two vCPUs that meet the same new address both arrive in instrumented code.
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use qkprobe_arch::GuestAddr;

use crate::primitive::Mutex;

/// Slots; a power of two. A large kernel has some 200,000 calls, and few of them are of probed functions.
const SLOTS: usize = 1 << 16;
/// How far an address may lie from where its hash points.
const MOST_STEPS: usize = 64;
/// Bits of the filter over pages.
const FILTER_BITS: usize = 1 << 16;
const PAGE_SHIFT: u32 = 12;

/// In the set, its code perhaps translated without it.
const NEW: u32 = 0;
/// In the set, and its code is translated with it.
const ARMED: u32 = 1;
/// In the set, and about to leave it.
const RETIRING: u32 = 3;
/// Not in the set; the slot stays, because translated code may hold its address.
const GONE: u32 = 2;

/// One address.
#[derive(Debug)]
pub(crate) struct Landing {
    /// 0: the slot is free.
    addr: AtomicU64,
    state: AtomicU32,
}

impl Landing {
    /// Where it is.
    #[inline]
    pub(crate) fn addr(&self) -> GuestAddr {
        GuestAddr(self.addr.load(Ordering::Relaxed))
    }
}

/// The set.
#[derive(Debug)]
pub(crate) struct Landings {
    slots: Box<[Landing]>,
    /// A bit per hash of a page: most blocks have no landing, and one look tells.
    pages: Box<[AtomicU64]>,
    /// A flush moves landings to other slots; nobody looks through all of them meanwhile.
    moving: Mutex<()>,
    /// Code is only dropped by a flush, which comes some time after it was asked for: until then a landing is not armed.
    by_flush: bool,
}

fn hash(value: u64, bits: u32) -> usize {
    (value.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - bits)) as usize
}

impl Landings {
    pub(crate) fn new(by_flush: bool) -> Self {
        Self {
            by_flush,
            slots: (0..SLOTS).map(|_| Landing { addr: AtomicU64::new(0), state: AtomicU32::new(NEW) }).collect(),
            pages: (0..FILTER_BITS / 64).map(|_| AtomicU64::new(0)).collect(),
            moving: Mutex::new(()),
        }
    }

    fn page_bit(&self, addr: GuestAddr) -> Option<(&AtomicU64, u64)> {
        let bit = hash(addr.0 >> PAGE_SHIFT, FILTER_BITS.ilog2());
        Some((self.pages.get(bit / 64)?, 1 << (bit % 64)))
    }

    /// The slots that may hold an address, in order.
    fn steps(&self, addr: GuestAddr) -> impl Iterator<Item = &Landing> {
        let start = hash(addr.0, SLOTS.ilog2());
        (0..MOST_STEPS).filter_map(move |step| self.slots.get((start + step) % SLOTS))
    }

    /// Whether a landing may lie on the page: false is certain.
    #[inline]
    pub(crate) fn may_be_on_page(&self, addr: GuestAddr) -> bool {
        self.page_bit(addr).is_some_and(|(word, bit)| word.load(Ordering::SeqCst) & bit != 0)
    }

    /// The landing at an address, if it is in the set.
    pub(crate) fn get(&self, addr: GuestAddr) -> Option<&Landing> {
        let found = self
            .steps(addr)
            .take_while(|slot| slot.addr.load(Ordering::Acquire) != 0)
            .find(|slot| slot.addr() == addr)?;
        (found.state.load(Ordering::SeqCst) != GONE).then_some(found)
    }

    /// Makes sure that whoever arrives at `addr` from now on is seen. `retranslate` drops the address's translated code at
    /// once; it is called unless that has been done. Call it after the instance was pushed. False: there is no room,
    /// or no way to retranslate.
    #[inline]
    pub(crate) fn ensure(&self, addr: GuestAddr, retranslate: impl FnOnce() -> bool) -> bool {
        let armed = self
            .steps(addr)
            .take_while(|slot| slot.addr.load(Ordering::Acquire) != 0)
            .find(|slot| slot.addr() == addr)
            .is_some_and(|slot| slot.state.load(Ordering::SeqCst) == ARMED);
        armed || self.add(addr, retranslate)
    }

    #[cold]
    fn add(&self, addr: GuestAddr, retranslate: impl FnOnce() -> bool) -> bool {
        if addr.0 == 0 {
            return false;
        }
        let claim = |slot: &&Landing| {
            let claimed = slot.addr.compare_exchange(0, addr.0, Ordering::SeqCst, Ordering::SeqCst);
            claimed.is_ok() || claimed == Err(addr.0)
        };
        let Some(slot) = self.steps(addr).find(claim) else { return false };
        if let Some((word, bit)) = self.page_bit(addr) {
            word.fetch_or(bit, Ordering::SeqCst);
        }
        // From here on translation plants it; the rest is code that was translated before.
        for old in [GONE, RETIRING] {
            let _ = slot.state.compare_exchange(old, NEW, Ordering::SeqCst, Ordering::SeqCst);
        }
        if !retranslate() {
            return false;
        }
        if self.by_flush {
            // Another vCPU that comes by asks as well.
            return true;
        }
        // Unless it was taken away meanwhile: whoever did that saw the caller's instance, and keeps the landing.
        let _ = slot.state.compare_exchange(NEW, ARMED, Ordering::SeqCst, Ordering::SeqCst);
        true
    }

    /// Takes away all landings but those that `keep` names; returns the others, whose code must be translated again.
    /// `keep` is called after they were taken away, so that a hit which comes in between is seen by one side.
    pub(crate) fn retire(&self, keep: impl FnOnce(&mut dyn FnMut(GuestAddr))) -> Vec<GuestAddr> {
        let change = |slot: &Landing, from, to| {
            slot.state.compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst).is_ok()
        };
        let armed = |slot: &&Landing| slot.addr.load(Ordering::Relaxed) != 0 && change(slot, ARMED, RETIRING);
        let _one = self.moving.lock();
        let taken: Vec<&Landing> = self.slots.iter().filter(armed).collect();
        if taken.is_empty() {
            return Vec::new();
        }
        keep(&mut |addr| {
            if let Some(slot) = self.steps(addr).find(|slot| slot.addr() == addr) {
                change(slot, RETIRING, ARMED);
            }
        });
        taken.into_iter().filter(|slot| change(slot, RETIRING, GONE)).map(Landing::addr).collect()
    }

    /// The code cache was flushed, with all vCPUs stopped: no translated code holds a slot, so those that are gone are
    /// given back. All that is translated from here on knows the others.
    pub(crate) fn flushed(&self) {
        let _one = self.moving.lock();
        let mut kept = Vec::new();
        for slot in &self.slots {
            let (addr, state) = (slot.addr.load(Ordering::Relaxed), slot.state.load(Ordering::Relaxed));
            if addr != 0 && state != GONE {
                kept.push((addr, if state == NEW { ARMED } else { state }));
            }
            slot.addr.store(0, Ordering::Relaxed);
            slot.state.store(NEW, Ordering::Relaxed);
        }
        self.pages.iter().for_each(|word| word.store(0, Ordering::Relaxed));
        for (addr, state) in kept {
            let free = self.steps(GuestAddr(addr)).find(|slot| slot.addr.load(Ordering::Relaxed) == 0);
            if let Some(slot) = free {
                slot.state.store(state, Ordering::Relaxed);
                slot.addr.store(addr, Ordering::SeqCst);
                if let Some((word, bit)) = self.page_bit(GuestAddr(addr)) {
                    word.fetch_or(bit, Ordering::SeqCst);
                }
            }
        }
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<GuestAddr> {
        let present =
            |slot: &&Landing| slot.addr.load(Ordering::Relaxed) != 0 && slot.state.load(Ordering::Relaxed) != GONE;
        self.slots.iter().filter(present).map(Landing::addr).collect()
    }
}
