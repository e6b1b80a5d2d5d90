//! Finding the kernel: a made-up image in a made-up guest RAM, at every alias, moved, patched and exchanged.

use std::sync::Arc;

use qkprobe_arch::GuestAddr;
use qkprobe_symbols::{KernelImage, Machine, Segment, SymbolTable};

use super::fake::arch;
use super::locate::{Locator, Verdict};
use crate::qemu::host_memory::HostAddr;

const LINKED: u64 = 0xffff_ffff_8100_0000;
const PAGES: usize = 64;
const BANNER_AT: usize = 40 * 4096 + 64;
const BANNER: &str = "Linux version 6.1.0-test (builder) #1 SMP Debian";

/// Text without repetition: every page is told apart.
fn text(seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut bytes: Vec<u8> = (0..PAGES * 4096)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .collect();
    bytes[BANNER_AT..BANNER_AT + BANNER.len()].copy_from_slice(BANNER.as_bytes());
    bytes[BANNER_AT + BANNER.len()] = b'\n';
    bytes
}

fn image(bytes: &[u8]) -> KernelImage {
    let at = |offset: usize| GuestAddr(LINKED + offset as u64);
    let end = bytes.len();
    let rows = [
        (at(0), 'T', "_text", None),
        (at(0), 'T', "_stext", None),
        (at(0x1000), 'T', "do_one", None),
        (at(BANNER_AT), 'D', "linux_banner", None),
        (at(end), 'T', "_etext", None),
    ];
    let segments = vec![Segment { addr: at(0), phys: 0x100_0000, bytes: bytes.into(), executable: true }];
    let symbols = SymbolTable::from_rows(rows).expect("few names");
    KernelImage::from_parts(symbols, segments, Some(BANNER.to_owned()), Machine::X86_64)
}

/// Guest RAM: page-aligned host memory with the text at `offset`.
struct Ram {
    memory: Vec<u8>,
    start: usize,
}

impl Ram {
    fn new(text: &[u8], offset: usize) -> Self {
        let memory = vec![0; text.len() + offset + 3 * 4096];
        let start = (memory.as_ptr() as usize).next_multiple_of(4096) - memory.as_ptr() as usize;
        let mut ram = Self { memory, start };
        ram.at(offset, text.len()).copy_from_slice(text);
        ram
    }

    /// The same with nothing but zeros as far as a banner is looked for.
    fn alone(text: &[u8]) -> Self {
        const REACH: usize = 65 << 20;
        let mut memory = vec![0; 2 * REACH + text.len()];
        let start = (memory.as_ptr() as usize + REACH).next_multiple_of(4096) - memory.as_ptr() as usize;
        memory[start..start + text.len()].copy_from_slice(text);
        Self { memory, start }
    }

    fn at(&mut self, offset: usize, len: usize) -> &mut [u8] {
        &mut self.memory[self.start + offset..][..len]
    }

    fn host(&self, offset: usize) -> Option<HostAddr> {
        Some(HostAddr(self.memory.as_ptr() as usize + self.start + offset))
    }
}

/// The block at an offset of the RAM, translated under an address; its first instruction has four bytes.
fn look(locator: &Locator, vaddr: GuestAddr, ram: &Ram, offset: usize) -> (Option<GuestAddr>, Option<Verdict>) {
    locator.block(vaddr, ram.host(offset), &ram.memory[ram.start + offset..][..4])
}

fn linked(offset: usize) -> Option<GuestAddr> {
    Some(GuestAddr(LINKED + offset as u64))
}

#[test]
fn the_first_block_tells_where_the_kernel_is_at_every_alias() {
    let text = text(1);
    let locator = Locator::new(&image(&text), arch(), None);
    let ram = Ram::new(&text, 0x3000);
    // Identity mapped, as the boot code runs: found, but no slide yet.
    let low = GuestAddr(0x760_0000 + 0x120);
    assert_eq!(look(&locator, low, &ram, 0x3000 + 0x120), (linked(0x120), Some(Verdict::Found)));
    assert_eq!(locator.slide(), None);
    // The same code at its slid address.
    let high = GuestAddr(LINKED + 0x1a00_0000 + 0x5008);
    assert_eq!(look(&locator, high, &ram, 0x3000 + 0x5008), (linked(0x5008), None));
    assert_eq!(locator.slide(), Some(0x1a00_0000));
    assert_eq!(locator.linked(GuestAddr(LINKED + 0x1a00_0000)), linked(0));
    // The direct map, or any other alias.
    assert_eq!(look(&locator, GuestAddr(0xffff_8880_0100_0000), &ram, 0x3000 + 0x77).0, linked(0x77));
    let (vaddr, host) = locator.running(GuestAddr(LINKED + 0x40)).expect("found");
    assert_eq!((vaddr, Some(host)), (GuestAddr(LINKED + 0x1a00_0040), ram.host(0x3040)));
}

#[test]
fn relocations_and_patches_do_not_hide_the_kernel() {
    let text = text(2);
    let locator = Locator::new(&image(&text), arch(), None);
    let mut ram = Ram::new(&text, 0);
    // An eighth of the page's bytes differ, but not those of the block itself.
    for offset in (0x2100..0x3000).step_by(8) {
        ram.at(offset, 1)[0] ^= 0xff;
    }
    let (found, verdict) = look(&locator, GuestAddr(LINKED + 0x2010), &ram, 0x2010);
    assert_eq!((found, verdict), (linked(0x2010), Some(Verdict::Found)));
}

#[test]
fn other_code_is_not_taken_for_the_kernel() {
    let text = text(3);
    let locator = Locator::new(&image(&text), arch(), None);
    let firmware = Ram::new(&super::locate_tests::text(99), 0);
    for offset in (0..PAGES * 4096).step_by(999) {
        assert_eq!(look(&locator, GuestAddr(0xf_0000 + offset as u64), &firmware, offset), (None, None));
    }
    assert_eq!(locator.block(GuestAddr(0x1000), None, &[]), (None, None));
    // A host address that is not mapped at all.
    assert_eq!(locator.block(GuestAddr(0x1000), Some(HostAddr(0x10)), &[]), (None, None));
}

#[test]
fn another_build_is_recognised_by_its_banner() {
    let ours = text(4);
    let locator = Locator::new(&image(&ours), arch(), None);
    let mut theirs = ours.clone();
    theirs[BANNER_AT..][..24].copy_from_slice(b"Linux version 6.1.1-else");
    let ram = Ram::new(&theirs, 0);
    let (found, verdict) = look(&locator, GuestAddr(0x100_0100), &ram, 0x100);
    assert_eq!(found, None);
    let Some(Verdict::OtherKernel(banner)) = verdict else { panic!("{verdict:?}") };
    assert_eq!(banner, "Linux version 6.1.1-else (builder) #1 SMP Debian");
    // Told once.
    assert_eq!(look(&locator, GuestAddr(0x100_0200), &ram, 0x200), (None, None));
}

/// As on Debian's i386 kernels, whose kallsyms name only functions.
#[test]
fn a_banner_that_no_symbol_names_tells_another_build_too() {
    let ours = text(16);
    let KernelImage { symbols, segments, banner, machine, .. } = image(&ours);
    let rows = symbols.iter().filter(|symbol| symbol.name != "linux_banner");
    let rows = rows.map(|symbol| (symbol.addr, symbol.kind, symbol.name, None));
    let symbols = SymbolTable::from_rows(rows).expect("few names");
    let locator = Locator::new(&KernelImage::from_parts(symbols, segments, banner, machine), arch(), None);
    let ram = Ram::new(&other_kernel(16), 0);
    let told = Some(Verdict::OtherKernel(OTHER_BANNER.to_owned()));
    assert_eq!(look(&locator, GuestAddr(0x100_0100), &ram, 0x100), (None, told));
    let ram = Ram::new(&ours, 0);
    assert_eq!(look(&locator, GuestAddr(0x100_0100), &ram, 0x100), (linked(0x100), Some(Verdict::Found)));
}

#[test]
fn a_kernel_without_any_likeness_is_told_after_some_blocks() {
    let locator = Locator::new(&image(&text(5)), arch(), None);
    let ram = Ram::alone(&other_kernel(6));
    let verdicts: Vec<_> = (0..1000)
        .filter_map(|block| look(&locator, GuestAddr(LINKED + block * 64), &ram, block as usize * 64).1)
        .collect();
    assert_eq!(verdicts, [Verdict::OtherKernel(OTHER_BANNER.to_owned())], "told once");
    // It loads and starts the expected one.
    let ours = text(5);
    let second = Ram::new(&ours, 0);
    assert_eq!(look(&locator, GuestAddr(LINKED), &second, 0).1, Some(Verdict::Found));
    // And that one the other again.
    let again: Vec<_> = (0..1000)
        .filter_map(|block| look(&locator, GuestAddr(LINKED + block * 64), &ram, block as usize * 64).1)
        .collect();
    assert_eq!(again, [Verdict::OtherKernel(OTHER_BANNER.to_owned())]);
}

const OTHER_BANNER: &str = "Linux version 5.9.9-else (builder) #3 SMP Debian";

/// A kernel with other text and another name.
fn other_kernel(seed: u64) -> Vec<u8> {
    let mut bytes = text(seed);
    bytes[BANNER_AT..BANNER_AT + OTHER_BANNER.len()].copy_from_slice(OTHER_BANNER.as_bytes());
    bytes[BANNER_AT + OTHER_BANNER.len()] = 0;
    bytes
}

/// In a 32-bit PC with 3.3 GB the firmware lies at 0xce3..., where a kernel may be.
#[test]
fn firmware_where_a_kernel_is_linked_is_no_other_kernel() {
    let ours = text(13);
    let mut firmware = text(14);
    firmware[BANNER_AT] = b'l';
    // Alone, or with the expected kernel loaded near, which has not run yet.
    for near in [false, true] {
        let locator = Locator::new(&image(&ours), arch(), None);
        let mut ram = Ram::alone(&firmware);
        if near {
            ram.at(0x80_0000, ours.len()).copy_from_slice(&ours);
            // In its log, after an earlier run.
            ram.at(0x40_0000, BANNER.len()).copy_from_slice(BANNER.as_bytes());
            ram.at(0x40_0000 + BANNER.len(), 3).copy_from_slice(b"2)\0");
        }
        for block in 0..4000 {
            let (addr, offset) = (GuestAddr(LINKED + 0xe3_0000 + block * 64), block as usize * 64);
            assert_eq!(look(&locator, addr, &ram, offset), (None, None), "block {block}");
        }
        assert!(locator.never_found());
        let kernel = Ram::new(&ours, 0);
        assert_eq!(look(&locator, GuestAddr(0x100_0000), &kernel, 0), (linked(0), Some(Verdict::Found)));
        assert!(!locator.never_found());
    }
}

/// As on 32-bit x86 with little memory.
#[test]
fn modules_in_the_kernels_region_are_no_other_kernel() {
    let ours = text(11);
    let locator = Locator::new(&image(&ours), arch(), None);
    let (ram, modules) = (Ram::new(&ours, 0), Ram::alone(&other_kernel(12)));
    assert_eq!(look(&locator, GuestAddr(LINKED), &ram, 0).1, Some(Verdict::Found));
    for block in 0..2000 {
        let addr = GuestAddr(LINKED + 0x80_0000 + block * 64);
        assert_eq!(look(&locator, addr, &modules, block as usize * 64), (None, None), "block {block}");
        if block % 2 == 0 {
            assert_eq!(look(&locator, GuestAddr(LINKED + block * 64), &ram, block as usize * 64).1, None);
        }
    }
    // They would be with a banner near, were they alone, also after the kernel ran: one that it loaded and started.
    let verdicts: Vec<_> = (0..1000)
        .filter_map(|block| look(&locator, GuestAddr(LINKED + 0x80_0000 + block * 64), &modules, block as usize * 64).1)
        .collect();
    assert!(matches!(verdicts.as_slice(), [Verdict::OtherKernel(_)]), "{verdicts:?}");
}

#[test]
fn a_kernel_that_moves_is_found_again() {
    let text = text(7);
    let locator = Locator::new(&image(&text), arch(), None);
    let first = Ram::new(&text, 0);
    look(&locator, GuestAddr(LINKED + 0x20_0000), &first, 0);
    assert_eq!(locator.slide(), Some(0x20_0000));
    // After a reboot the random base is another, in RAM and in the address space.
    let second = Ram::new(&text, 0x8000);
    let (found, verdict) = look(&locator, GuestAddr(LINKED + 0x100_0000 + 0x40), &second, 0x8040);
    assert_eq!((found, verdict), (linked(0x40), Some(Verdict::Found)));
    assert_eq!(locator.slide(), Some(0x100_0000));
}

#[test]
fn a_kernel_loaded_over_the_old_one_is_not_taken_for_it() {
    let text = text(9);
    let locator = Locator::new(&image(&text), arch(), None);
    let mut ram = Ram::new(&text, 0);
    look(&locator, GuestAddr(LINKED + 0x20_0000), &ram, 0);
    // A reboot: the same kernel four pages further on, over the old one; the banner of the old one is overwritten or not.
    let old = ram.start;
    let moved = 4 * 4096;
    ram.memory[old..][..PAGES * 4096].copy_within(0..(PAGES - 4) * 4096, moved);
    // Its first block runs identity mapped, inside the old range.
    let (found, verdict) = look(&locator, GuestAddr(0x300_0000 + 0x120), &ram, moved + 0x120);
    assert_eq!((found, verdict), (linked(0x120), Some(Verdict::Found)));
    let (found, _) = look(&locator, GuestAddr(LINKED + 0x700_0000 + 0x6008), &ram, moved + 0x6008);
    assert_eq!(found, linked(0x6008));
    assert_eq!(locator.slide(), Some(0x700_0000));
}

#[test]
fn a_patched_page_stays_the_kernels() {
    let text = text(10);
    let locator = Locator::new(&image(&text), arch(), None);
    let mut ram = Ram::new(&text, 0);
    look(&locator, GuestAddr(LINKED), &ram, 0);
    // One instruction patched, then a whole page: the kernel's own address says that it is the same.
    ram.at(0x3100, 4).fill(0x90);
    assert_eq!(look(&locator, GuestAddr(LINKED + 0x3100), &ram, 0x3100), (linked(0x3100), None));
    ram.at(0x3000, 4096).fill(0x90);
    assert_eq!(look(&locator, GuestAddr(LINKED + 0x3200), &ram, 0x3200), (linked(0x3200), None));
    // Under another address it is a stranger.
    assert_eq!(look(&locator, GuestAddr(0x3200), &ram, 0x3200), (None, None));
}

#[test]
fn blocks_from_before_are_remembered() {
    let text = text(8);
    let locator = Locator::new(&image(&text), arch(), None);
    let mut ram = Ram::new(&text, 0);
    // The first block's own bytes are changed: it is not recognised.
    let original = ram.at(0x100, 16).to_vec();
    ram.at(0x100, 16).fill(0x90);
    assert_eq!(look(&locator, GuestAddr(0x100_0100), &ram, 0x100), (None, None));
    ram.at(0x100, 16).copy_from_slice(&original);
    assert_eq!(look(&locator, GuestAddr(0x100_0200), &ram, 0x200).1, Some(Verdict::Found));
    assert_eq!(locator.take_unrecognised(), [(GuestAddr(0x100_0100), ram.host(0x100).expect("mapped"))]);
    assert_eq!(locator.image_addr(ram.host(0x100).expect("mapped")), linked(0x100));
}

#[test]
fn symbols_without_text_take_the_given_slide_and_notice_a_misfit() {
    let map =
        "ffffffff81000000 T _text\nffffffff81000100 T do_one\nffffffff81000200 T do_two\nffffffff81001000 T _etext\n";
    let image = KernelImage::parse("System.map", map.as_bytes().to_vec()).expect("valid");
    let locator = Arc::new(Locator::new(&image, arch(), Some(0x40_0000)));
    assert_eq!(locator.block(GuestAddr(0xffff_ffff_8140_0100), None, &[]), (linked(0x100), None));
    assert!(locator.wants_entries());
    let kernel = Ram::alone(&other_kernel(15));
    for _ in 0..1000 {
        assert_eq!(locator.entry_seen(GuestAddr(LINKED + 0x200), kernel.host(0x200)), None);
    }
    // Firmware has functions too.
    let firmware = Ram::alone(&[0x55; 4096]);
    for _ in 0..1000 {
        assert_eq!(locator.entry_seen(GuestAddr(LINKED + 0x150), firmware.host(0x150)), None);
    }
    let see = |_| locator.entry_seen(GuestAddr(LINKED + 0x150), kernel.host(0x150));
    let verdicts: Vec<_> = (0..1000).filter_map(see).collect();
    assert_eq!(verdicts, [Verdict::SymbolsDoNotFit]);
    assert!(!locator.wants_entries());
}
