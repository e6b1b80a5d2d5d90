//! The page tables of a sparc64 kernel, and the parts of its address space that need none.
//!
//! 1. `kern_base` holds the physical address of the kernel image, which is linked at `KERNBASE` and lies in one piece.
//!    It is in the image itself, so its place is guessed (firmware loads the kernel at the bottom of memory) and
//!    believed if what is read there confirms the guess.
//! 2. From `PAGE_OFFSET` on, all memory is mapped in a row. The value is a variable since the address space
//!    depends on the CPU; a kernel without the symbol has the constant of UltraSPARC.
//! 3. Everything else of the kernel (modules, vmalloc, vmemmap) is in the tables at `swapper_pg_dir`, and a process's
//!    memory in those that `trap_block[cpu].pgd_paddr` points to: four levels of 1,024 entries of 8 bytes, as kernels
//!    have them since v3.18.
//!
//! Linux `arch/sparc/include/asm/pgtable_64.h` (layout, entries), `tsb.h` (the walk of the miss handlers),
//! `trap_block.h`, `arch/sparc/mm/init_64.c` (`paging_init`, `setup_page_offset`). The firmware's own mappings (from
//! 0xf0000000) are in no table.
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

/// Where firmware may have put the image: 4 MiB pages up to this one are tried. OpenBIOS of QEMU's sun4u takes the
/// first that fits.
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
        let end = symbol("_end").map_or(IMAGE_LIMIT, |end| end.0.min(IMAGE_LIMIT).next_multiple_of(IMAGE_PAGE));
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

#[cfg(test)]
#[allow(clippy::expect_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::Arch;
    use crate::sparc64::Sparc64;

    const BASE: u64 = 0x40_0000;
    const KERN_BASE: u64 = 0x90_1000;
    const PAGE_OFFSET_AT: u64 = 0x90_2000;
    const TLB_TYPE: u64 = 0x90_3004;
    const SWAPPER: u64 = 0x90_4000;
    const TRAP_BLOCK: u64 = 0x90_8000;
    const LINEAR: u64 = 0xffff_f800_0000_0000;

    fn symbol(name: &str) -> Option<GuestAddr> {
        Some(GuestAddr(match name {
            "kern_base" => KERN_BASE,
            "PAGE_OFFSET" => PAGE_OFFSET_AT,
            "tlb_type" => TLB_TYPE,
            "swapper_pg_dir" => SWAPPER,
            "trap_block" => TRAP_BLOCK,
            "_end" => 0x95_1234,
            _ => return None,
        }))
    }

    /// 8-byte words by physical address; what is not here reads as 0, up to 1 GiB.
    #[derive(Default)]
    struct Ram {
        words: BTreeMap<u64, u64>,
        reads: u32,
    }

    impl PhysicalMemory for Ram {
        fn read(&mut self, physical: u64, bytes: &mut [u8]) -> bool {
            self.reads += 1;
            let word = self.words.get(&(physical & !7)).copied().unwrap_or(0).to_be_bytes();
            let at = (physical & 7) as usize;
            bytes.copy_from_slice(&word[at..at + bytes.len()]);
            physical < 1 << 30
        }
    }

    impl Ram {
        /// A kernel that lies at `base`, on UltraSPARC.
        fn with_kernel(base: u64) -> Self {
            let mut ram = Self::default();
            let image = |addr: u64| addr - KERNBASE + base;
            ram.words.insert(image(KERN_BASE), base);
            ram.words.insert(image(PAGE_OFFSET_AT), LINEAR);
            ram
        }

        /// Tables for `addr` below the PGD at `pgd`, which end at the level with `shift` in `entry`.
        fn map(mut self, pgd: u64, addr: u64, shift: u32, entry: u64) -> Self {
            let mut table = pgd;
            for level in SHIFTS {
                let at = table + (addr >> level & 0x3ff) * 8;
                if level == shift {
                    self.words.insert(at, entry);
                    break;
                }
                table = *self.words.entry(at).or_insert(pgd + 0x10_0000 + u64::from(level) * 0x2000);
            }
            self
        }
    }

    fn paging() -> Box<dyn Paging> {
        Sparc64.as_translate().expect("the ability").paging(&symbol).expect("all symbols")
    }

    fn kernel(addr: u64, ram: &mut Ram) -> Option<u64> {
        paging().physical(GuestAddr(addr), AddressSpace::Kernel, 0, ram)
    }

    #[test]
    fn the_image_lies_where_kern_base_says() {
        for base in [BASE, 0x80_0000, 0x300_0000] {
            let mut ram = Ram::with_kernel(base);
            assert_eq!(kernel(0x40_4000, &mut ram), Some(base + 0x4000));
            // Up to the end of its last locked page.
            assert_eq!(kernel(0xbf_ffff, &mut ram), Some(base + 0x7f_ffff));
            assert_eq!(kernel(0xc0_0000, &mut ram), None);
        }
        // Nothing there says where it lies.
        assert_eq!(kernel(0x40_4000, &mut Ram::default()), None);
    }

    #[test]
    fn what_was_learned_is_kept_until_a_kernel_starts() {
        let paging = paging();
        let mut ram = Ram::with_kernel(BASE);
        let ask = |ram: &mut Ram| {
            ram.reads = 0;
            (paging.physical(GuestAddr(LINEAR + 0x1234), AddressSpace::Kernel, 0, ram), ram.reads)
        };
        assert_eq!(ask(&mut ram), (Some(0x1234), 2));
        assert_eq!(ask(&mut ram), (Some(0x1234), 0));
        paging.forget();
        let mut other = Ram::with_kernel(0x80_0000);
        other.words.insert(PAGE_OFFSET_AT - KERNBASE + 0x80_0000, 0xfff8_0000_0000_0000);
        assert_eq!(
            paging.physical(GuestAddr(0xfff8_0000_0000_1234), AddressSpace::Kernel, 0, &mut other),
            Some(0x1234)
        );
        assert_eq!(paging.page_bytes(), 8192);
    }

    #[test]
    fn page_offset_is_not_known_before_the_kernel_sets_it() {
        let mut ram = Ram::with_kernel(BASE);
        ram.words.remove(&(PAGE_OFFSET_AT - KERNBASE + BASE));
        assert_eq!(kernel(LINEAR, &mut ram), None);
        assert_eq!(kernel(0x40_4000, &mut ram), Some(0x40_4000), "the image needs none");
        // A kernel that has it as a constant.
        let constant = |name: &str| symbol(name).filter(|_| name != "PAGE_OFFSET");
        let paging = Sparc64.paging(&constant).expect("all that is needed");
        assert_eq!(paging.physical(GuestAddr(LINEAR + 8), AddressSpace::Kernel, 0, &mut ram), Some(8));
    }

    #[test]
    fn vmalloc_and_modules_are_in_the_kernels_tables() {
        let swapper = SWAPPER - KERNBASE + BASE;
        let mut ram = Ram::with_kernel(BASE).map(swapper, 0x1000_0000, 13, 0x8000_0000_1234_60b6);
        assert_eq!(kernel(0x1000_0123, &mut ram), Some(0x1234_6123));
        assert_eq!(kernel(0x1000_2123, &mut ram), None, "the next page");
        let mut ram = Ram::with_kernel(BASE).map(swapper, 0x1_0000_4000, 13, 0x8000_0000_0222_40b6);
        assert_eq!(kernel(0x1_0000_5fff, &mut ram), Some(0x0222_5fff));
    }

    #[test]
    fn a_process_has_tables_of_its_own() {
        const PGD: u64 = 0x200_0000;
        let cpu = |cpu: u64| TRAP_BLOCK - KERNBASE + BASE + cpu * 256 + 8;
        let mut ram = Ram::with_kernel(BASE).map(PGD, 0x10_0000, 13, 0x8000_0000_0300_0fa0);
        ram.words.insert(cpu(2), PGD);
        let paging = paging();
        let mut ask = |addr, cpu| paging.physical(GuestAddr(addr), AddressSpace::User, cpu, &mut ram);
        assert_eq!(ask(0x10_0042, 2), Some(0x0300_0042));
        // Another CPU runs nothing; there is no such CPU; another address; neither half.
        assert_eq!(ask(0x10_0042, 0), None);
        assert_eq!(ask(0x10_0042, u32::MAX), None);
        assert_eq!(ask(0x12_0042, 2), None);
        assert_eq!(ask(1 << 53 | 0x10_0042, 2), None);
        // The stack of a 64-bit process is above the hole.
        let mut ram = Ram::with_kernel(BASE).map(PGD, 0xffff_fff0_0000_2000, 13, 0x8000_0000_0300_2fa0);
        ram.words.insert(cpu(0), PGD);
        let found = paging.physical(GuestAddr(0xffff_fff0_0000_2fff), AddressSpace::User, 0, &mut ram);
        assert_eq!(found, Some(0x0300_2fff));
    }

    #[test]
    fn huge_entries_map_at_their_own_level() {
        const PGD: u64 = 0x200_0000;
        let pgd_at = TRAP_BLOCK - KERNBASE + BASE + 8;
        let user = |addr: u64, shift, entry| {
            let mut ram = Ram::with_kernel(BASE).map(PGD, addr, shift, entry);
            ram.words.insert(pgd_at, PGD);
            paging().physical(GuestAddr(addr), AddressSpace::User, 0, &mut ram)
        };
        // 8 MiB of two hardware pages of 4 MiB, 0x6100... with the size and the huge bit; 8 GiB.
        assert_eq!(user(0x1050_1234, 23, 0xe100_0000_1080_0fb6), Some(0x10d0_1234));
        assert_eq!(user(0x2_4567_89ab, 33, 0xe100_0004_0000_0fb6), Some(0x4_4567_89ab));
        // Being split, or gone to swap: not valid.
        assert_eq!(user(0x1050_1234, 23, 0x6100_0000_1080_0fb6), None);
        // The PGD has none.
        assert_eq!(user(0x1050_1234, 43, 0xe100_0000_1080_0fb6), None);
    }

    #[test]
    fn sun4v_has_more_bits_of_address() {
        let swapper = SWAPPER - KERNBASE + BASE;
        let mut ram = Ram::with_kernel(BASE).map(swapper, 0x1000_0000, 13, 0x8420_0000_1234_67a3);
        assert_eq!(kernel(0x1000_0000, &mut ram), Some(0x1234_6000), "sun4u does not see bit 53");
        ram.words.insert((TLB_TYPE & !7) - KERNBASE + BASE, HYPERVISOR);
        assert_eq!(kernel(0x1000_0000, &mut ram), Some(0x0020_0000_1234_6000));
    }

    #[test]
    fn senseless_tables_end_the_walk() {
        let swapper = SWAPPER - KERNBASE + BASE;
        for (shift, entry) in
            [(43, swapper | 1), (43, 1 << 63 | swapper), (33, !HUGE), (23, 0x1001), (13, 0x1234_6000), (13, 0)]
        {
            let mut ram = Ram::with_kernel(BASE).map(swapper, 0x1_0000_4000, shift, entry);
            assert_eq!(kernel(0x1_0000_4000, &mut ram), None, "{shift} {entry:#x}");
        }
        // A table that is its own: four words are read, and the last is not valid.
        let mut ram = Ram::with_kernel(BASE);
        for index in 0..1024 {
            ram.words.insert(swapper + index * 8, swapper);
        }
        assert_eq!(kernel(0x1_0000_4000, &mut ram), None);
        assert!(ram.reads <= 10, "{}", ram.reads);
    }

    #[test]
    fn a_kernel_without_the_symbols_is_refused() {
        for missing in ["kern_base", "tlb_type", "swapper_pg_dir", "trap_block"] {
            let without = |name: &str| symbol(name).filter(|_| name != missing);
            assert_eq!(Sparc64.paging(&without).map(drop), Err(NoSuchSymbol { name: missing }));
        }
    }
}
