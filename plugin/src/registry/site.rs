//! The one instrumentation point of an address, and the list of its probes.

use std::sync::Arc;

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

/// The probe list of a site: newest first, never changed once published.
type ProbeList<P> = Vec<Arc<Probe<P>>>;

/// The one instrumentation point of an address.
#[derive(Debug)]
pub struct Site<P> {
    place: Place,
    /// The out-of-line copy, unless the image holds no text for the place.
    slot: Option<InsnSlot>,
    probes: Atomic<ProbeList<P>>,
    armed: AtomicBool,
}

impl<P: Send + Sync + 'static> Site<P> {
    pub(super) fn new(place: Place, slot: Option<InsnSlot>) -> Self {
        Self { place, slot, probes: Atomic::new(Vec::new()), armed: AtomicBool::new(false) }
    }

    /// Where it is.
    pub fn place(&self) -> Place {
        self.place
    }

    /// The copy of the instruction, made when the first probe came.
    pub fn slot(&self) -> Option<&InsnSlot> {
        self.slot.as_ref()
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
    }
}
