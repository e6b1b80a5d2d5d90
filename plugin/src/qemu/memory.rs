//! The guest's memory, as a callback on a vCPU's thread may read and write it: through QEMU's own translation, or, where
//! that disturbs the guest (sparc64), by a walk of the page tables in software and physical accesses.

use std::sync::Arc;

use qkprobe_arch::{AddressSpace, GuestAddr, Paging, PhysicalMemory, RegisterId};
use qkprobe_lang::Space;

use super::api::{Api, GByteArray};
use super::guest::{Buffer, VcpuGuest};
use super::host_memory::{self, HostAddr};

/// Most bytes of one read.
pub(super) const MAX_READ: usize = 4096;

/// How a vCPU's virtual addresses become memory.
#[derive(Debug)]
pub(crate) enum Translation {
    /// QEMU translates; one translation serves kernel and user. `lock` is the register that bars the kernel from user memory
    /// unless it is 0.
    Qemu { lock: Option<RegisterId> },
    /// By the guest's page tables; `cpu` is the kernel's number.
    Walk {
        /// The kernel's layout; none, and no memory can be read, while that is unknown.
        paging: Option<Arc<dyn Paging>>,
        cpu: u32,
    },
}

/// Physical reads for a walk.
struct Physical<'a> {
    api: &'a Api,
    buffer: Buffer,
}

impl PhysicalMemory for Physical<'_> {
    #[inline]
    fn read(&mut self, physical: u64, bytes: &mut [u8]) -> bool {
        let Some(read) = self.api.read_memory_hwaddr else { return false };
        // SAFETY: QEMU sets the length to what it read, within the reserved size; 0 means success.
        self.buffer.fill(bytes, |array, len| unsafe { read(physical, array, len) } == 0)
    }
}

impl VcpuGuest {
    /// Reads guest memory as the vCPU's current translation maps it; all or nothing. At most 4096 bytes.
    #[inline]
    pub(crate) fn read(&self, space: Space, addr: GuestAddr, out: &mut [u8]) -> bool {
        if out.len() > MAX_READ {
            return false;
        }
        match &self.translation {
            Translation::Qemu { lock } => self.unlocked(*lock, || {
                // SAFETY: QEMU sets the length to what it read, within the reserved size.
                self.buffer.fill(out, |array, len| unsafe { (self.api.read_memory_vaddr)(addr.0, array, len) })
            }),
            Translation::Walk { .. } => self.pieces(space, addr, out.len(), |from, to, physical| {
                let mut memory = Physical { api: self.api, buffer: self.buffer };
                out.get_mut(from..to).is_some_and(|piece| memory.read(physical, piece))
            }),
        }
    }

    /// Writes guest memory. Where several pages are meant and one of them is not mapped, nothing is written.
    pub(crate) fn write(&self, space: Space, addr: GuestAddr, bytes: &[u8]) -> bool {
        // SAFETY: `bytes` is readable for its length.
        unsafe { self.write_from(space, addr, bytes.as_ptr(), bytes.len()) }
    }

    /// Copies `len` bytes of the host's memory into the guest's.
    ///
    /// # Safety
    /// They can be read; they may be guest memory, which others write meanwhile.
    pub(super) unsafe fn write_from(&self, space: Space, addr: GuestAddr, from: *const u8, len: usize) -> bool {
        let array = |from: usize, to: usize, data: *const u8| GByteArray {
            data: data.wrapping_add(from).cast_mut(),
            len: u32::try_from(to - from).unwrap_or(0),
        };
        match &self.translation {
            Translation::Qemu { lock } => {
                let Some(write) = self.api.write_memory_vaddr else { return false };
                self.unlocked(*lock, || {
                    let mut array = array(0, len, from);
                    // SAFETY: QEMU only reads `data` and `len` of the array, which has glib's public layout.
                    unsafe { write(addr.0, &raw mut array) }
                })
            }
            Translation::Walk { .. } => {
                let Some(write) = self.api.write_memory_hwaddr else { return false };
                self.pieces(space, addr, len, |_, _, _| true)
                    && self.pieces(space, addr, len, |start, end, physical| {
                        let mut array = array(start, end, from);
                        // SAFETY: as above; 0 means success.
                        unsafe { write(physical, &raw mut array) == 0 }
                    })
            }
        }
    }

    /// Copies a byte of the host's memory to a physical address, if the guest has the same there already.
    ///
    /// # Safety
    /// As `write_from`.
    pub(super) unsafe fn write_physical(&self, physical: u64, from: *const u8) -> bool {
        const SAME: usize = 4;
        let mut memory = Physical { api: self.api, buffer: self.buffer };
        let (mut ours, mut theirs) = ([0; SAME], [0; SAME]);
        let same = host_memory::read(HostAddr(from as usize), &mut ours)
            && memory.read(physical, &mut theirs)
            && ours == theirs;
        let Some(write) = self.api.write_memory_hwaddr.filter(|_| same) else { return false };
        let mut array = GByteArray { data: from.cast_mut(), len: 1 };
        // SAFETY: QEMU only reads `data` and `len` of the array; 0 means success.
        unsafe { write(physical, &raw mut array) == 0 }
    }

    /// The physical address behind a virtual one.
    pub(crate) fn physical(&self, space: Space, addr: GuestAddr) -> Option<u64> {
        match &self.translation {
            Translation::Qemu { .. } => {
                let translate = self.api.translate_vaddr?;
                let mut physical = 0;
                // SAFETY: on a vCPU's thread; `physical` is ours.
                unsafe { translate(addr.0, &raw mut physical) }.then_some(physical)
            }
            Translation::Walk { paging, cpu } => {
                let mut memory = Physical { api: self.api, buffer: self.buffer };
                paging.as_ref()?.physical(addr, space_of(space), *cpu, &mut memory)
            }
        }
    }

    /// An access that is tried once more with the lock of user memory open, if it was closed. Nothing of the guest runs
    /// meanwhile on this vCPU, and the register is its own. Only in a callback that may write registers.
    #[inline]
    fn unlocked(&self, lock: Option<RegisterId>, mut access: impl FnMut() -> bool) -> bool {
        access() || lock.is_some_and(|lock| self.open(lock, access))
    }

    #[cold]
    fn open(&self, lock: RegisterId, mut access: impl FnMut() -> bool) -> bool {
        let Some(closed) = self.register(lock).filter(|value| *value != 0) else { return false };
        if !self.set_register(lock, 0) {
            return false;
        }
        let done = access();
        self.set_register(lock, closed);
        done
    }

    /// The pieces of an access that lie in one page each, as offsets and with their physical address, until one fails.
    fn pieces(
        &self,
        space: Space,
        addr: GuestAddr,
        len: usize,
        mut access: impl FnMut(usize, usize, u64) -> bool,
    ) -> bool {
        let Translation::Walk { paging: Some(paging), .. } = &self.translation else { return false };
        let page = paging.page_bytes();
        let mut done = 0;
        while done < len {
            let at = addr.wrapping_add(done as u64);
            let room = usize::try_from(page - at.0 % page).unwrap_or(1);
            let end = len.min(done + room);
            let Some(physical) = self.physical(space, at) else { return false };
            if !access(done, end, physical) {
                return false;
            }
            done = end;
        }
        true
    }
}

fn space_of(space: Space) -> AddressSpace {
    match space {
        Space::Kernel => AddressSpace::Kernel,
        Space::User => AddressSpace::User,
    }
}
