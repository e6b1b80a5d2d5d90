//! The page tables of a sparc64 kernel, and the parts of its address space that need none.
//!
//! 1. `kern_base` holds the physical address of the kernel image, which is linked at `KERNBASE` and lies in one piece. It is in the
//!    image itself, so its place is guessed (firmware loads the kernel at the bottom of memory) and believed if what
//!    is read there confirms the guess.
//! 2. From `PAGE_OFFSET` on, all memory is mapped in a row. The value is a variable since the address space
//!    depends on the CPU; a kernel without the symbol has the constant of UltraSPARC.
//! 3. Everything else of the kernel (modules, vmalloc, vmemmap) is in the tables at `swapper_pg_dir`, and a process's memory in those
//!    that `trap_block[cpu].pgd_paddr` points to: four levels of 1,024 entries of 8 bytes, as kernels have them since v3.18.
//!
//! Linux `arch/sparc/include/asm/pgtable_64.h` (layout, entries), `tsb.h` (the walk of the miss handlers), `trap_block.h`,
//! `arch/sparc/mm/init_64.c` (`paging_init`, `setup_page_offset`). The firmware's own mappings (from 0xf0000000) are in no table.
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::{AddressSpace, GuestAddr, NoSuchSymbol, Paging, PhysicalMemory, Translate};

/// Where the kernel image is linked (`page.h`).
const KERNBASE: u64 = 0x40_0000;
/// What ends the region of the image: `TLBTEMP_BASE` (`pgtable_64.h`).
const IMAGE_LIMIT: u64 = 0x600_0000;
/// The image's locked mappings are so large.
const IMAGE_PAGE: u64 = 4 << 20;
/// `PAGE_OFFSET` of UltraSPARC I and II, and of all kernels before it became a variable.
const PAGE_OFFSET_ULTRA: u64 = 0xffff_f800_0000_0000;

const PAGE_SHIFT: u32 = 13;
const INDEX_BITS: u32 = PAGE_SHIFT - 3;
/// What an entry of each level maps, from the top: PGD, PUD, PMD, PTE.
const SHIFTS: [u32; 4] = [43, 33, 23, PAGE_SHIFT];
/// Addresses of so many bits reach the tables; the ones above must be copies of the highest.
const ADDRESS_BITS: u32 = 53;
const VALID: u64 = 1 << 63;
/// In an entry of the PUD or PMD: it maps memory itself.
const HUGE: u64 = 1 << 56;
/// Bits 42 to 13 of the physical address (sun4u), 55 to 13 (sun4v).
const FRAME_SUN4U: u64 = 0x07ff_ffff_e000;
const FRAME_SUN4V: u64 = 0x00ff_ffff_ffff_e000;
/// `tlb_type` of sun4v (`enum ultra_tlb_layout`, `spitfire.h`).
const HYPERVISOR: u64 = 3;

/// `struct trap_per_cpu`: its size, and where the physical address of the user's PGD lies.
const TRAP_BLOCK_SHIFT: u32 = 8;
const PGD_PADDR: u64 = 8;
/// `NR_CPUS` is at most 4096.
const MOST_CPUS: u32 = 4096;

/// Where firmware may have put the image: 4 MiB pages up to this one are tried. OpenBIOS of QEMU's sun4u takes the first that fits.
const MOST_GUESSES: u64 = 64;

/// Not known yet. No such address occurs: they are all multiples of something.
const UNKNOWN: u64 = u64::MAX;

impl Translate for super::Sparc64 {
    fn paging(&self, symbol: &dyn Fn(&str) -> Option<GuestAddr>) -> Result<Box<dyn Paging>, NoSuchSymbol> {
        Ok(Box::new(Tables::new(symbol)?))
    }
}

/// What is known of one kernel: the places of its variables as linked, and what they held.
#[derive(Debug)]
struct Tables {
    kern_base_at: u64,
    page_offset_at: Option<u64>,
    tlb_type_at: u64,
    swapper_at: u64,
    trap_block_at: u64,
    image: Range<u64>,
    /// Set once, and forgotten when a kernel starts. Relaxed: each stands for itself.
    kern_base: AtomicU64,
    page_offset: AtomicU64,
    frame_mask: AtomicU64,
}

impl Tables {
    fn new(symbol: &dyn Fn(&str) -> Option<GuestAddr>) -> Result<Self, NoSuchSymbol> {
        let needed = |name| symbol(name).map(|addr| addr.0).ok_or(NoSuchSymbol { name });
        let end = symbol("_end").map_or(IMAGE_LIMIT, |end| end.0.next_multiple_of(IMAGE_PAGE).min(IMAGE_LIMIT));
        Ok(Self {
            kern_base_at: needed("kern_base")?,
            page_offset_at: symbol("PAGE_OFFSET").map(|addr| addr.0),
            tlb_type_at: needed("tlb_type")?,
            swapper_at: needed("swapper_pg_dir")?,
            trap_block_at: needed("trap_block")?,
            image: KERNBASE..end,
            kern_base: AtomicU64::new(UNKNOWN),
            page_offset: AtomicU64::new(UNKNOWN),
            frame_mask: AtomicU64::new(UNKNOWN),
        })
    }

    /// The physical address of the image.
    fn kern_base(&self, memory: &mut dyn PhysicalMemory) -> Option<u64> {
        let known = self.kern_base.load(Ordering::Relaxed);
        if known != UNKNOWN {
            return Some(known);
        }
        let offset = self.kern_base_at.checked_sub(KERNBASE)?;
        // Zero last: a variable that is not set yet would confirm it.
        let guesses = (1..MOST_GUESSES).map(|guess| guess * IMAGE_PAGE);
        let found = guesses.into_iter().find(|guess| word(guess.wrapping_add(offset), memory) == Some(*guess))?;
        self.kern_base.store(found, Ordering::Relaxed);
        Some(found)
    }

    /// A place in the image.
    fn in_image(&self, addr: u64, memory: &mut dyn PhysicalMemory) -> Option<u64> {
        Some(self.kern_base(memory)?.wrapping_add(addr.checked_sub(KERNBASE)?))
    }

    fn page_offset(&self, memory: &mut dyn PhysicalMemory) -> Option<u64> {
        let Some(at) = self.page_offset_at else { return Some(PAGE_OFFSET_ULTRA) };
        let known = self.page_offset.load(Ordering::Relaxed);
        if known != UNKNOWN {
            return Some(known);
        }
        let at = self.in_image(at, memory)?;
        // A negative address; 0 until the kernel has set it.
        let found = word(at, memory).filter(|value| value >> 63 == 1)?;
        self.page_offset.store(found, Ordering::Relaxed);
        Some(found)
    }

    fn frame_mask(&self, memory: &mut dyn PhysicalMemory) -> Option<u64> {
        let known = self.frame_mask.load(Ordering::Relaxed);
        if known != UNKNOWN {
            return Some(known);
        }
        let mut bytes = [0; 4];
        let at = self.in_image(self.tlb_type_at, memory)?;
        let kind = memory.read(at, &mut bytes).then(|| u64::from(u32::from_be_bytes(bytes)))?;
        let found = if kind == HYPERVISOR { FRAME_SUN4V } else { FRAME_SUN4U };
        self.frame_mask.store(found, Ordering::Relaxed);
        Some(found)
    }

    /// Follows the tables that begin with the PGD at `table`.
    fn walk(&self, table: u64, addr: u64, memory: &mut dyn PhysicalMemory) -> Option<u64> {
        let above = addr.cast_signed() >> (ADDRESS_BITS - 1);
        if above != 0 && above != -1 {
            return None;
        }
        let frame_mask = self.frame_mask(memory)?;
        let mut table = table;
        for (level, shift) in SHIFTS.into_iter().enumerate() {
            let index = addr >> shift & ((1 << INDEX_BITS) - 1);
            let entry = word(table.wrapping_add(index * 8), memory)?;
            let is_last = shift == PAGE_SHIFT;
            // The PGD has no huge entries.
            let is_huge = level != 0 && entry & HUGE != 0;
            if is_last || is_huge {
                let within = (1 << shift) - 1;
                return (entry & VALID != 0).then_some(entry & frame_mask & !within | addr & within);
            }
            // The physical address of the next table, and nothing else.
            if entry == 0 || entry & !frame_mask != 0 {
                return None;
            }
            table = entry;
        }
        None
    }
}

fn word(physical: u64, memory: &mut dyn PhysicalMemory) -> Option<u64> {
    let mut bytes = [0; 8];
    memory.read(physical, &mut bytes).then(|| u64::from_be_bytes(bytes))
}

impl Paging for Tables {
    fn physical(
        &self,
        GuestAddr(addr): GuestAddr,
        space: AddressSpace,
        cpu: u32,
        memory: &mut dyn PhysicalMemory,
    ) -> Option<u64> {
        match space {
            AddressSpace::Kernel if self.image.contains(&addr) => self.in_image(addr, memory),
            AddressSpace::Kernel => match addr.checked_sub(self.page_offset(memory)?) {
                Some(physical) => Some(physical),
                None => {
                    let table = self.in_image(self.swapper_at, memory)?;
                    self.walk(table, addr, memory)
                }
            },
            AddressSpace::User => {
                if cpu >= MOST_CPUS {
                    return None;
                }
                let first = self.in_image(self.trap_block_at, memory)?;
                let block = first.wrapping_add(u64::from(cpu) << TRAP_BLOCK_SHIFT);
                let table = word(block.wrapping_add(PGD_PADDR), memory)?;
                let is_table = table != 0 && table.is_multiple_of(1 << PAGE_SHIFT);
                if is_table { self.walk(table, addr, memory) } else { None }
            }
        }
    }

    fn page_bytes(&self) -> u64 {
        1 << PAGE_SHIFT
    }

    fn forget(&self) {
        for known in [&self.kern_base, &self.page_offset, &self.frame_mask] {
            known.store(UNKNOWN, Ordering::Relaxed);
        }
    }
}
