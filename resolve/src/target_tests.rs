//! What names and addresses stand for, against literal tables of symbols.

use qkprobe_arch::GuestAddr;
use qkprobe_lang::{Command, Diagnostic, Events, SymbolNames as _, Target as _, parse};
use qkprobe_symbols::{KernelImage, Machine, Segment, SymbolTable};

use crate::target::ImageTarget;

const TEXT: u64 = 0xffff_ffff_8100_0000;

/// An x86_64 kernel: 4 KiB of `nop`, and 4 KiB of zeros as data behind it.
fn kernel(banner: &str, rows: &[(u64, char, &'static str)]) -> KernelImage {
    let marks = [(TEXT, 'T', "_text"), (TEXT + 0x1000, 'T', "_etext"), (TEXT + 0x2000, 'B', "_end")];
    let rows = marks.iter().chain(rows).map(|(addr, kind, name)| (GuestAddr(*addr), *kind, *name, None));
    let segment = |addr: u64, byte: u8, executable| {
        let bytes = [byte; 0x1000].as_slice().into();
        Segment { addr: GuestAddr(addr), phys: addr & 0xfff_ffff, bytes, executable }
    };
    let segments = vec![segment(TEXT, 0x90, true), segment(TEXT + 0x1000, 0, false)];
    let symbols = SymbolTable::from_rows(rows).unwrap();
    KernelImage::from_parts(symbols, segments, Some(banner.to_owned()), Machine::X86_64)
}

fn target(image: &KernelImage) -> ImageTarget<'_> {
    ImageTarget { arch: qkprobe_arch::by_name("x86_64").unwrap(), image: Some(image) }
}

/// The address that a line probes, or its error's text, errno and help.
fn probe(image: &KernelImage, line: &str) -> Result<u64, (String, i32, Option<String>)> {
    match parse(line, &target(image), &Events::new()) {
        Ok(Command::Add(definition)) => Ok(definition.place.address.unwrap().0),
        Ok(other) => panic!("{line}: {other:?}"),
        Err(Diagnostic { text, errno, help, .. }) => Err((text.into_owned(), errno, help)),
    }
}

#[track_caller]
fn refused(image: &KernelImage, line: &str, text: &str, errno: i32, help: &str) {
    assert_eq!(probe(image, line), Err((text.to_owned(), errno, Some(help.to_owned()))), "{line}");
}

const BAD_PLACE: &str = "Invalid probed address or symbol";

/// The functions of one kernel as Clang made them, and a variable.
const LTO: [(u64, char, &str); 5] = [
    (TEXT + 0x100, 't', "task_fork_fair.llvm.10138163512894673"),
    (TEXT + 0x200, 't', "switched_to.llvm.1"),
    (TEXT + 0x300, 't', "switched_to.llvm.2"),
    (TEXT + 0x400, 'T', "vfs_read"),
    (TEXT + 0x1100, 'd', "root_task.llvm.77"),
];

#[test]
fn a_kernel_with_link_time_optimization_goes_by_plain_names_up_to_6_10() {
    let image = kernel("Linux version 6.6.30 (clang version 17.0.6, LLD 17.0.6) #1 SMP", &LTO);
    assert_eq!(probe(&image, "p task_fork_fair"), Ok(TEXT + 0x100));
    assert_eq!(probe(&image, "p vfs_read @root_task"), Ok(TEXT + 0x400));
    let whole = "task_fork_fair.llvm.10138163512894673";
    let help = "this kernel goes by task_fork_fair, without what the compiler appended";
    refused(&image, &format!("p {whole}"), BAD_PLACE, 22, help);
    let help = "argument arg1: no symbol 'root_task.llvm.77': \
                this kernel goes by root_task, without what the compiler appended";
    refused(&image, "p vfs_read @root_task.llvm.77", BAD_PLACE, 2, help);
    let help = "give one of its addresses: 0xffffffff81000200, 0xffffffff81000300";
    refused(&image, "p switched_to", "The symbol is not unique", 22, help);
    refused(&image, "p task_fork_fare", BAD_PLACE, 22, "did you mean task_fork_fair?");
    let mut name = String::new();
    assert!(target(&image).name(TEXT + 0x104, &mut name));
    assert_eq!(name, "task_fork_fair+0x4/0x100");
}

#[test]
fn a_kernel_with_link_time_optimization_goes_by_whole_names_from_6_11_on() {
    let image = kernel("Linux version 6.12.9 (clang version 19.1.0, LLD 19.1.0) #1 SMP", &LTO);
    let whole = "task_fork_fair.llvm.10138163512894673";
    assert_eq!(probe(&image, &format!("p {whole}")), Ok(TEXT + 0x100));
    refused(&image, "p task_fork_fair", BAD_PLACE, 22, &format!("the compiler made {whole} of it"));
    let help = "the compiler made switched_to.llvm.1, switched_to.llvm.2 of it";
    refused(&image, "p switched_to", BAD_PLACE, 22, help);
    let help = "argument arg1: no symbol 'root_task': the compiler made root_task.llvm.77 of it";
    refused(&image, "p vfs_read @root_task", BAD_PLACE, 2, help);
    let mut name = String::new();
    assert!(target(&image).name(TEXT + 0x104, &mut name));
    assert_eq!(name, format!("{whole}+0x4/0x100"));
}

#[test]
fn names_that_compilers_make_are_named_by_the_hint() {
    let image = kernel(
        "Linux version 6.12.9 (gcc (Debian 14.2.0) 14.2.0) #1 SMP",
        &[
            (TEXT + 0x100, 't', "vfs_statfs.part.0.isra.0"),
            (TEXT + 0x200, 't', "vfs_statfs.cold"),
            (TEXT + 0x300, 't', "parse.constprop.0"),
            (TEXT + 0x3f0, 't', "__pfx_vfs_read"),
            (TEXT + 0x400, 'T', "vfs_read"),
            (TEXT + 0x4f0, 't', "__cfi_vfs_write"),
            (TEXT + 0x500, 'T', "vfs_write"),
        ],
    );
    assert_eq!(probe(&image, "p vfs_statfs.part.0.isra.0"), Ok(TEXT + 0x100));
    assert_eq!(probe(&image, "p vfs_statfs.cold"), Ok(TEXT + 0x200));
    let help = "the compiler made vfs_statfs.part.0.isra.0, vfs_statfs.cold of it";
    refused(&image, "p vfs_statfs", BAD_PLACE, 22, help);
    refused(&image, "p parse", BAD_PLACE, 22, "the compiler made parse.constprop.0 of it");
    refused(&image, "r parse.isra.0", BAD_PLACE, 22, "this kernel has parse.constprop.0");
    refused(&image, "p vfs_write.isra.0", BAD_PLACE, 22, "this kernel has vfs_write");
    refused(&image, "p __pfx_vfs_write", BAD_PLACE, 22, "this kernel has vfs_write");
    let before = |name: &str, function: &str| {
        format!("{name} is what lies before a function, which calls do not run: probe {function}")
    };
    for (line, help) in [
        ("p __pfx_vfs_read", before("__pfx_vfs_read", "vfs_read")),
        ("p 0xffffffff810003f4", before("__pfx_vfs_read", "vfs_read")),
        ("p __cfi_vfs_write", before("__cfi_vfs_write", "vfs_write")),
    ] {
        refused(&image, line, "Failed to register probe event", 22, &help);
    }
}

/// A function of which the kernel replaces `call` (6 bytes, `ff 14 25 ...`) by something shorter when it boots, and of which it
/// leaves the same instruction elsewhere alone.
#[test]
fn places_that_the_running_text_decides_about() {
    let mut image = kernel(
        "Linux version 6.12.9 (gcc 14) #1 SMP",
        &[
            (TEXT + 0x100, 'T', "patched"),
            (TEXT + 0x200, 'T', "plain"),
            (TEXT + 0x1000, 'r', "__alt_instructions"),
            (TEXT + 0x100e, 'r', "__alt_instructions_end"),
        ],
    );
    let set = |segment: &mut Segment, at: usize, new: &[u8]| {
        let mut bytes = segment.bytes.to_vec();
        bytes[at..at + new.len()].copy_from_slice(new);
        segment.bytes = bytes.into();
    };
    let call = [0xff, 0x14, 0x25, 0, 0, 0, 0];
    set(&mut image.segments[0], 0x104, &call);
    set(&mut image.segments[0], 0x204, &call);
    // An entry of 6.3 and newer: 7 bytes of text at TEXT + 0x104.
    set(&mut image.segments[1], 0, &(0x104_i32 - 0x1000).to_le_bytes());
    set(&mut image.segments[1], 12, &[7]);
    for (offset, is_unsettled) in [(0, false), (3, false), (4, false), (5, true), (9, true), (10, true), (11, false)] {
        let place = GuestAddr(TEXT + 0x100 + offset);
        assert_eq!(probe(&image, &format!("p patched+{offset}")), Ok(place.0), "{offset}");
        let piece = is_unsettled.then_some(GuestAddr(TEXT + 0x104)..GuestAddr(TEXT + 0x10b));
        assert_eq!(target(&image).unsettled(place), piece, "{offset}");
        assert_eq!(target(&image).slot(place).is_none(), is_unsettled, "{offset}");
    }
    let help = "0xffffffff81000205 is inside the instruction at 0xffffffff81000204 (7 bytes)";
    refused(&image, "p plain+5", "Probe point is not an instruction boundary", 84, help);
}

/// As in x86_64 before 6.15.
#[test]
fn symbols_that_are_no_addresses() {
    let image = kernel(
        "Linux version 6.1.0 (gcc-12 12.2.0) #1 SMP",
        &[
            (0, 'A', "fixed_percpu_data"),
            (0x1000, 'D', "cpu_debug_store"),
            (0x100_0000, 'A', "phys_startup_64"),
            (TEXT + 0x400, 'T', "vfs_read"),
            (TEXT + 0x1100, 'd', "jiffies"),
        ],
    );
    // As any number outside of the image: pending.
    for number in ["0x1000", "0x1008", "0", "0x1000000"] {
        let place = GuestAddr(u64::from_str_radix(number.trim_start_matches("0x"), 16).unwrap());
        assert_eq!(probe(&image, &format!("p {number}")), Ok(place.0));
        assert!(!target(&image).is_in_image(place) && target(&image).name_of(place).is_none(), "{number}");
        assert!(!target(&image).name(place.0, &mut String::new()), "{number}");
    }
    let help = "0x1000 lies in no function of the kernel";
    refused(&image, "p cpu_debug_store", BAD_PLACE, 2, help);
    let help = "argument arg1: no symbol 'cpu_debug_store': \
                cpu_debug_store stands for 0x1000: a number, or an offset of per-CPU variables";
    refused(&image, "p vfs_read @cpu_debug_store", BAD_PLACE, 2, help);
    refused(&image, "p jiffies", "Failed to register probe event", 22, "jiffies is data, not code");
    assert_eq!(probe(&image, "p vfs_read @jiffies"), Ok(TEXT + 0x400));
}
