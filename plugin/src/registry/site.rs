//! The one instrumentation point of an address, and the list of its probes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32};

use crossbeam_epoch::{Atomic, Guard, Owned};
use qkprobe_arch::{GuestAddr, InsnSlot};

use super::Probe;
use crate::primitive::{AtomicBool, Ordering, preemption_point};

/// Where a site is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// An address of the kernel image as linked. Follows the image to wherever it is loaded, at all its aliases.
    Image(GuestAddr),
    /// A virtual address of the guest as it is.
    Virtual(GuestAddr),
}

impl Place {
    /// The address without its kind.
    #[must_use]
    pub fn addr(self) -> GuestAddr {
        match self {
            Self::Image(addr) | Self::Virtual(addr) => addr,
        }
    }

    /// The place of the page's first byte.
    #[must_use]
    pub(super) fn page(self) -> Self {
        self.with_addr(GuestAddr(self.addr().0 & !0xfff))
    }

    /// The same kind at another address.
    #[must_use]
    pub fn with_addr(self, addr: GuestAddr) -> Self {
        match self {
            Self::Image(_) => Self::Image(addr),
            Self::Virtual(_) => Self::Virtual(addr),
        }
    }
}

/// What translation has seen of the text under a site's probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Text {
    /// Nothing yet: the slot is the image's text, which the kernel may patch before it runs.
    Unseen = 0,
    /// An instruction.
    Present = 1,
    /// The inside of another instruction.
    Gone = 2,
}

/// The probe list of a site: newest first, never changed once published.
type ProbeList<P> = Vec<Arc<Probe<P>>>;

/// The one instrumentation point of an address.
#[derive(Debug)]
pub struct Site<P> {
    place: Place,
    /// The out-of-line copy; null as long as nobody has seen the place's text.
    slot: Atomic<InsnSlot>,
    /// What translation has seen of the text under the probes so far.
    text: AtomicU8,
    /// Exceptions that the instruction raised and that nobody has seen the end of.
    restarts: AtomicU32,
    probes: Atomic<ProbeList<P>>,
    armed: AtomicBool,
}

impl<P: Send + Sync + 'static> Site<P> {
    pub(super) fn new(place: Place, slot: Option<InsnSlot>) -> Self {
        Self {
            place,
            slot: slot.map_or_else(Atomic::null, Atomic::new),
            text: AtomicU8::new(Text::Unseen as u8),
            restarts: AtomicU32::new(0),
            probes: Atomic::new(Vec::new()),
            armed: AtomicBool::new(false),
        }
    }

    /// Where it is.
    pub fn place(&self) -> Place {
        self.place
    }

    /// The copy of the instruction: made when the first probe came, renewed when the text changes.
    #[inline]
    pub fn slot<'g>(&self, guard: &'g Guard) -> Option<&'g InsnSlot> {
        // Acquire, paired with the Release of `renew_slot`.
        let shared = self.slot.load(std::sync::atomic::Ordering::Acquire, guard);
        // SAFETY: null or a slot that is freed only through `defer_destroy`, after every guard that could have loaded it.
        unsafe { shared.as_ref() }
    }

    /// The text under the probes is another instruction now. Several translations may do this at once.
    pub fn renew_slot(&self, slot: InsnSlot, guard: &Guard) {
        let old = self.slot.swap(Owned::new(slot), std::sync::atomic::Ordering::AcqRel, guard);
        if !old.is_null() {
            // SAFETY: unreachable for later guards; the swap hands each slot to one thread only.
            unsafe { guard.defer_destroy(old) };
        }
    }

    /// Notes what translation saw; returns what was noted before.
    pub fn see_text(&self, text: Text) -> Text {
        match self.text.swap(text as u8, std::sync::atomic::Ordering::Relaxed) {
            0 => Text::Unseen,
            1 => Text::Present,
            _ => Text::Gone,
        }
    }

    /// Whether the address is inside another instruction now, so that no probe there can fire.
    pub fn is_gone(&self) -> bool {
        self.text.load(std::sync::atomic::Ordering::Relaxed) == Text::Gone as u8
    }

    /// How many exceptions of this instruction have not come back yet, or never will.
    #[inline]
    pub fn restarts(&self) -> &AtomicU32 {
        &self.restarts
    }

    /// Whether it has probes: an unarmed site only waits for the next flush.
    pub fn is_armed(&self) -> bool {
        self.armed.load(Ordering::Relaxed)
    }

    /// Returns whether this changed it. Only under the registry's mutex.
    pub(super) fn set_armed(&self, on: bool) -> bool {
        self.armed.swap(on, Ordering::Relaxed) != on
    }

    /// The probes of this moment. A hit walks one snapshot from start to end, so that a probe that comes or goes
    /// during the hit is seen wholly or not at all.
    #[inline]
    pub fn snapshot<'g>(&self, guard: &'g Guard) -> &'g [Arc<Probe<P>>] {
        preemption_point();
        // Acquire, paired with the Release of `publish`: the list's content is visible.
        let shared = self.probes.load(std::sync::atomic::Ordering::Acquire, guard);
        // SAFETY: the pointer is never null (`new` and `publish` store a list) and what it points to is freed only
        // through `defer_destroy`, after every guard that could have loaded it.
        unsafe { shared.deref() }
    }

    /// Replaces the list. Only under the registry's mutex.
    pub(super) fn publish(&self, list: ProbeList<P>, guard: &Guard) {
        let old = self.probes.swap(Owned::new(list), std::sync::atomic::Ordering::AcqRel, guard);
        // SAFETY: `old` is unreachable now for guards taken later, and this is the only place that retires it.
        unsafe { guard.defer_destroy(old) };
    }
}

impl<P> Drop for Site<P> {
    fn drop(&mut self) {
        // SAFETY: `&mut self`: nobody else can load the list any more, and it is never null.
        drop(unsafe { std::mem::take(&mut self.probes).into_owned() });
        let slot = std::mem::replace(&mut self.slot, Atomic::null());
        // SAFETY: as above, but it may be null.
        drop(unsafe { slot.try_into_owned() });
    }
}
