//! A block that QEMU is translating.

use qkprobe_arch::{GuestAddr, RegisterId};

use super::api::{Api, CB_R_REGS, CB_RW_REGS, CB_RW_REGS_PC, ExecCallback, Insn, Tb};
use super::delay_slots::DelaySlots;
use super::guest::VcpuGuest;
use super::host_memory::HostAddr;
use super::inline_count::{InlineCounter, InlineCounters};
use super::shapes::{Events, exec_callback, landing_callback, post_callback};
use crate::engine::Serving;
use crate::engine::hit::{Planted, Spot};
use crate::engine::kprobe::{Access, Kprobe};
use crate::engine::pending::landing::Landing;
use crate::engine::translate::Block;
use crate::registry::Site;
use crate::running::Plugin;

/// Valid during the translation callback only.
pub(crate) struct QemuBlock<'a, E> {
    pub(crate) api: &'a Api,
    pub(crate) counters: &'a InlineCounters,
    pub(crate) delay_slots: &'a DelaySlots,
    /// The registers of the vCPU that translates.
    pub(crate) guest: Option<&'a VcpuGuest>,
    tb: *mut Tb,
    len: usize,
    can_count: bool,
    events: std::marker::PhantomData<E>,
}

impl<'a, E: Events> QemuBlock<'a, E> {
    /// Only in the translation callback of `tb`.
    pub(crate) fn new(plugin: &'a Plugin, tb: *mut Tb) -> Self {
        let (api, can_count) = (plugin.machine.api, !plugin.vcpus.share_a_thread());
        // SAFETY: `tb` is the block of the running translation callback.
        let len = unsafe { (api.tb_n_insns)(tb) };
        let guest = plugin.vcpus.here().map(|vcpu| &vcpu.guest);
        let (counters, delay_slots) = (&plugin.inline_counters, &plugin.delay_slots);
        Self { api, counters, delay_slots, guest, tb, len, can_count, events: std::marker::PhantomData }
    }

    fn insn(&self, index: usize) -> *mut Insn {
        assert!(index < self.len, "instruction {index} of {}", self.len);
        // SAFETY: as in `new`, and the index is in range.
        unsafe { (self.api.tb_get_insn)(self.tb, index) }
    }
}

impl<E: Events> QemuBlock<'_, E> {
    fn plant(&self, index: usize, callback: ExecCallback, access: Access, userdata: *const std::ffi::c_void) {
        let flags = match access {
            Access::Read => CB_R_REGS,
            Access::Write => CB_RW_REGS,
            Access::Pc => CB_RW_REGS_PC,
        };
        // SAFETY: an instruction of the block; the userdata stays valid while a translated block holds it (see the callers),
        // and registration refused an access that this QEMU lacks.
        unsafe { (self.api.register_vcpu_insn_exec_cb)(self.insn(index), callback, flags, userdata.cast_mut()) };
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

    fn register(&self, id: RegisterId) -> Option<u64> {
        // QEMU lets a plugin read registers here, and they are exact: no translated code runs.
        self.guest?.register(id)
    }

    fn plant_callback(&mut self, index: usize, site: &Site<Kprobe>, planted: Planted, access: Access) {
        // The site outlives every block that holds its address: the registry frees it only after a flush.
        let userdata = match planted.spot {
            Spot::Slot(npc) => self.delay_slots.userdata(site, npc),
            Spot::Any | Spot::Behind | Spot::First => std::ptr::from_ref(site).cast(),
        };
        self.plant(index, exec_callback::<E>(planted, access), access, userdata);
    }

    fn plant_post(&mut self, index: usize, site: &Site<Kprobe>, serving: Serving, access: Access) {
        self.plant(index, post_callback::<E>(serving), access.min(Access::Write), std::ptr::from_ref(site).cast());
    }

    fn plant_landing(&mut self, index: usize, landing: &Landing, access: Access) {
        // A landing's slot is given to another address only after a flush.
        self.plant(index, landing_callback::<E>(), access.min(Access::Write), std::ptr::from_ref(landing).cast());
    }

    fn can_count(&self) -> bool {
        self.can_count
    }

    fn plant_count(&mut self, index: usize, counter: InlineCounter) {
        self.counters.plant(self.insn(index), counter);
    }
}
