//! Sites in delay slots that begin a block: their callbacks must know where execution goes, which is a part of what the block
//! was translated for (`Spot::Slot`), so their userdata is a site and that.

use std::collections::HashMap;
use std::ffi::c_void;

use qkprobe_arch::GuestAddr;

use crate::engine::kprobe::Kprobe;
use crate::primitive::Mutex;
use crate::registry::Site;

/// The userdata.
#[derive(Debug)]
pub(super) struct DelaySlot {
    pub(super) site: *const c_void,
    pub(super) npc: GuestAddr,
}

// SAFETY: the pointer is only handed to whoever may use a site's userdata; nothing here follows it.
unsafe impl Send for DelaySlot {}

/// All of them: one for a site and a next program counter, as long as translated code may hold it.
#[derive(Debug, Default)]
pub(crate) struct DelaySlots(Mutex<HashMap<(usize, GuestAddr), Box<DelaySlot>>>);

impl DelaySlots {
    /// The userdata of such a callback. It stays where it is until the code cache is flushed, as the site does.
    pub(super) fn userdata(&self, site: &Site<Kprobe>, npc: GuestAddr) -> *const c_void {
        let site: *const c_void = std::ptr::from_ref(site).cast();
        let mut all = self.0.lock();
        let slot = all.entry((site as usize, npc)).or_insert_with(|| Box::new(DelaySlot { site, npc }));
        std::ptr::from_ref::<DelaySlot>(slot).cast()
    }

    /// The code cache was flushed, with all vCPUs stopped: no translated code holds any.
    pub(crate) fn flushed(&self) {
        self.0.lock().clear();
    }
}
