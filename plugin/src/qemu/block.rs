//! A block that QEMU is translating.

use qkprobe_arch::GuestAddr;

use super::api::{Api, CB_R_REGS, Insn, Tb};
use super::host_memory::HostAddr;
use super::inline_count::{InlineCounter, InlineCounters};
use super::shapes::{Events, exec_callback};
use crate::engine::translate::Block;
use crate::engine::{Event, Serving};
use crate::registry::Site;

/// Valid during the translation callback only.
pub(crate) struct QemuBlock<'a, E> {
    pub(crate) api: &'a Api,
    pub(crate) counters: &'a InlineCounters,
    tb: *mut Tb,
    len: usize,
    can_count: bool,
    events: std::marker::PhantomData<E>,
}

impl<'a, E: Events> QemuBlock<'a, E> {
    pub(crate) fn new(api: &'a Api, counters: &'a InlineCounters, tb: *mut Tb, can_count: bool) -> Self {
        // SAFETY: `tb` is the block of the running translation callback.
        let len = unsafe { (api.tb_n_insns)(tb) };
        Self { api, counters, tb, len, can_count, events: std::marker::PhantomData }
    }

    fn insn(&self, index: usize) -> *mut Insn {
        assert!(index < self.len, "instruction {index} of {}", self.len);
        // SAFETY: as in `new`, and the index is in range.
        unsafe { (self.api.tb_get_insn)(self.tb, index) }
    }
}

impl<E: Events> Block for QemuBlock<'_, E> {
    fn len(&self) -> usize {
        self.len
    }

    fn vaddr(&self, index: usize) -> GuestAddr {
        // SAFETY: a valid instruction of the block.
        GuestAddr(unsafe { (self.api.insn_vaddr)(self.insn(index)) })
    }

    fn host(&self, index: usize) -> Option<HostAddr> {
        // SAFETY: as above.
        let host = unsafe { (self.api.insn_haddr)(self.insn(index)) };
        (!host.is_null()).then_some(HostAddr(host as usize))
    }

    fn bytes(&self, index: usize, out: &mut [u8]) -> usize {
        let insn = self.insn(index);
        // SAFETY: as above; QEMU writes at most `out.len()` bytes. It returns how many it copied (API 4 and later).
        unsafe { (self.api.insn_data)(insn, out.as_mut_ptr().cast(), out.len()) }
    }

    fn plant_callback(&mut self, index: usize, site: &Site<Event>, serving: Serving) {
        let userdata = std::ptr::from_ref(site).cast_mut().cast();
        // SAFETY: the site outlives every block that holds its address: the registry frees it only after a flush.
        unsafe {
            (self.api.register_vcpu_insn_exec_cb)(self.insn(index), exec_callback::<E>(serving), CB_R_REGS, userdata);
        }
    }

    fn can_count(&self) -> bool {
        self.can_count
    }

    fn plant_count(&mut self, index: usize, counter: InlineCounter) {
        self.counters.plant(self.insn(index), counter);
    }
}
