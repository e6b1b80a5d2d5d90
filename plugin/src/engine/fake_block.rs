//! A block of instructions without QEMU, and what its translation planted and found.

use qkprobe_arch::{GuestAddr, RegisterId};

use super::Serving;
use super::hit::{Planted, Spot};
use super::kprobe::{Access, Kprobe};
use super::locate::Verdict;
use super::pending::landing::Landing;
use super::translate::{Block, Findings, TextChange};
use crate::qemu::host_memory::HostAddr;
use crate::registry::Site;

/// Instructions, with where they are for the guest and the host.
#[derive(Debug, Default)]
pub(crate) struct FakeBlock {
    pub(crate) vaddr: u64,
    pub(crate) host: Option<usize>,
    pub(crate) insns: Vec<Vec<u8>>,
    /// What the translating vCPU's registers hold.
    pub(crate) registers: Vec<(RegisterId, u64)>,
    /// (index, linked address, how it is served)
    pub(crate) callbacks: Vec<(usize, u64, Serving)>,
    /// (index, whether it waits for its successor, access)
    pub(crate) planted: Vec<(usize, bool, Access)>,
    /// (index, where it lies)
    pub(crate) spots: Vec<(usize, Spot)>,
    /// (index, linked address of the site before it, access)
    pub(crate) posts: Vec<(usize, u64, Access)>,
    /// (index, address, access)
    pub(crate) landings: Vec<(usize, u64, Access)>,
    /// QEMU's inline counters are not to be trusted.
    pub(crate) no_counters: bool,
    pub(crate) counts: Vec<usize>,
}

impl FakeBlock {
    fn offset(&self, index: usize) -> u64 {
        self.insns[..index].iter().map(|insn| insn.len() as u64).sum()
    }
}

impl Block for FakeBlock {
    fn len(&self) -> usize {
        self.insns.len()
    }

    fn vaddr(&self, index: usize) -> GuestAddr {
        GuestAddr(self.vaddr + self.offset(index))
    }

    fn host(&self, index: usize) -> Option<HostAddr> {
        self.host.map(|host| HostAddr(host + self.offset(index) as usize))
    }

    fn bytes(&self, index: usize, out: &mut [u8]) -> usize {
        let len = self.insns[index].len().min(out.len());
        out[..len].copy_from_slice(&self.insns[index][..len]);
        len
    }

    fn register(&self, id: RegisterId) -> Option<u64> {
        self.registers.iter().find(|(known, _)| *known == id).map(|(_, value)| *value)
    }

    fn plant_callback(&mut self, index: usize, site: &Site<Kprobe>, planted: Planted, access: Access) {
        self.callbacks.push((index, site.place().addr().0, planted.serving));
        self.planted.push((index, planted.lands, access));
        self.spots.push((index, planted.spot));
    }

    fn plant_post(&mut self, index: usize, site: &Site<Kprobe>, _serving: Serving, access: Access) {
        self.posts.push((index, site.place().addr().0, access));
    }

    fn plant_landing(&mut self, index: usize, landing: &Landing, access: Access) {
        self.landings.push((index, landing.addr().0, access));
    }

    fn can_count(&self) -> bool {
        !self.no_counters
    }

    fn plant_count(&mut self, index: usize, _counter: crate::qemu::inline_count::InlineCounter) {
        self.counts.push(index);
    }
}

/// What a translation reported.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) verdicts: Vec<Verdict>,
    pub(crate) changes: Vec<(u64, TextChange)>,
}

impl Findings for Found {
    fn verdict(&mut self, verdict: Verdict) {
        self.verdicts.push(verdict);
    }

    fn text_changed(&mut self, site: &Site<Kprobe>, change: TextChange) {
        self.changes.push((site.place().addr().0, change));
    }
}
