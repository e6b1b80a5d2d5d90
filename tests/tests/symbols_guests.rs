//! Symbols of the guests that are not x86_64, against what their own compilers' tools and their own data say.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use qkprobe_symbols::{GuestAddr, KernelImage, Lookup};
use qkprobe_tests::{Boot, Cache, GuestArch, GuestKernel, Qemu};

/// Address, letter and name.
type Row = (u64, char, String);

/// A line of nm or /proc/kallsyms.
fn row(line: &str) -> Option<Row> {
    let mut words = line.split_ascii_whitespace();
    let (addr, kind, name) = (words.next()?, words.next()?, words.next()?);
    Some((u64::from_str_radix(addr, 16).ok()?, kind.chars().next()?, name.to_owned()))
}

fn rows(image: &KernelImage) -> BTreeSet<Row> {
    image.symbols.iter().map(|symbol| (symbol.addr.0, symbol.kind, symbol.name.to_owned())).collect()
}

/// The kernels that are ELF files, each with the prefix of its compiler's tools.
const ELF: [(GuestKernel, &str); 4] = [
    (GuestKernel::Ppc64le6_1, "powerpc64le-linux-gnu"),
    (GuestKernel::Ppc64Pseries6_1, "powerpc64-linux-gnu"),
    (GuestKernel::Ppc32Pmac6_1, "powerpc-linux-gnu"),
    (GuestKernel::Sparc64Sun4u6_1, "sparc64-linux-gnu"),
];

#[test]
fn symbol_tables_are_what_nm_says() {
    let cache = Cache::open().unwrap_or_else(|error| panic!("{error}"));
    for (kernel, triplet) in ELF {
        let nm = cache.root().join("cross").join(kernel.arch().name()).join("bin").join(format!("{triplet}-nm"));
        let said = Command::new(&nm).arg(cache.kernel(kernel).unwrap()).output();
        let said = said.unwrap_or_else(|error| panic!("{}: {error}", nm.display()));
        assert!(said.status.success(), "{}: {}", kernel.name(), String::from_utf8_lossy(&said.stderr));
        // Not in memory (constants, notes), or names that the kernel's own table leaves out as well.
        let noise = |(_, kind, name): &Row| {
            matches!(kind, 'a' | 'n' | 'N' | 'U' | '?')
                || ["$", ".L", "__crc_"].iter().any(|start| name.starts_with(start))
                || [".plt_branch.", ".long_branch."].iter().any(|stub| name.contains(stub))
        };
        let said: BTreeSet<Row> =
            String::from_utf8(said.stdout).unwrap().lines().filter_map(row).filter(|row| !noise(row)).collect();
        let read = rows(&common::image(kernel));
        let missing: Vec<_> = said.difference(&read).take(10).collect();
        let surplus: Vec<_> = read.difference(&said).take(10).collect();
        assert!(missing.is_empty() && surplus.is_empty(), "{}: {missing:x?}, {surplus:x?}", kernel.name());
        assert!(read.len() > 20_000, "{}", kernel.name());
    }
}

#[test]
fn a_function_of_elfv1_is_its_code() {
    let image = common::image(GuestKernel::Ppc64Pseries6_1);
    let found = |name: &str| match image.symbols.lookup(None, name) {
        Lookup::One(symbol) => symbol,
        other => panic!("{name}: {other:?}"),
    };
    let (with, without) = (found(".do_sys_openat2"), found("do_sys_openat2"));
    assert_eq!(with, without);
    assert!(with.text && with.name == ".do_sys_openat2", "{with:?}");
    // What the kernel will write into the descriptors when it relocates itself (Elf64_Rela: place, type, value):
    // R_PPC64_RELATIVE is 22.
    let mut at = common::symbol(&image, "__rela_dyn_start").0;
    let mut written = BTreeMap::new();
    while let Some(entry) = image.bytes(GuestAddr(at), 24) {
        let word = |at: usize| u64::from_be_bytes(entry[at..at + 8].try_into().unwrap());
        if word(8) != 22 {
            break;
        }
        written.insert(word(0), word(16));
        at += 24;
    }
    // The descriptor's first word is the code's address, for every function whose name is there once. A variable of the
    // same name may be there too.
    let mut named: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for symbol in image.symbols.iter() {
        named.entry(symbol.name).or_default().push(symbol.addr.0);
    }
    let mut functions = 0;
    for code in image.symbols.iter().filter(|symbol| symbol.text) {
        let Some(name) = code.name.strip_prefix('.') else { continue };
        if !matches!(image.symbols.lookup(None, code.name), Lookup::One(_)) {
            continue;
        }
        assert_eq!(image.symbols.lookup(None, name), image.symbols.lookup(None, code.name));
        assert!(named[name].iter().any(|descriptor| written.get(descriptor) == Some(&code.addr.0)), "{name}");
        functions += 1;
    }
    assert!(functions > 5_000, "{functions}");
}

#[test]
fn a_function_of_elfv2_has_one_symbol_at_its_global_entry() {
    let image = common::image(GuestKernel::Ppc64le6_1);
    let (addr, _) = common::symbol(&image, "do_sys_openat2");
    // addis r2,r12,..; addi r2,r2,..: who calls directly enters behind them.
    let text = image.bytes(GuestAddr(addr), 8).unwrap();
    let word = |at: usize| u32::from_le_bytes(text[at..at + 4].try_into().unwrap());
    assert_eq!((word(0) >> 16, word(4) >> 16), (0x3c4c, 0x3842), "{text:x?}");
}

#[test]
fn a_kernel_of_32_bits_moves_as_a_whole() {
    let image = common::image(GuestKernel::I386Pae6_1);
    let (stext, etext) = (common::symbol(&image, "_stext").0, common::symbol(&image, "_etext").0);
    let linked = rows(&image);
    let mut slides = BTreeSet::new();
    for _ in 0..3 {
        let boot = Boot::new(Qemu::V11_1, GuestKernel::of(GuestArch::I386))
            .second_serial()
            .script(["write /proc/sys/kernel/kptr_restrict 0", "kallsyms /dev/ttyS1"])
            .run_ok();
        let running: Vec<Row> = boot.second_serial.lines().filter_map(row).collect();
        let moved = running.iter().find(|(_, _, name)| name == "_stext").unwrap().0;
        let slide = moved - stext;
        assert_eq!(slide & 0xf_ffff, 0, "{slide:#x}");
        let text = |addr: &u64| (stext + slide..etext + slide).contains(addr);
        let text: Vec<Row> = running
            .into_iter()
            .filter(|(addr, _, _)| text(addr))
            .map(|(addr, kind, name)| (addr - slide, kind, name))
            .collect();
        assert!(text.len() > 30_000, "{}", text.len());
        let strange: Vec<_> = text.iter().filter(|row| !linked.contains(*row)).take(5).collect();
        assert!(strange.is_empty(), "{strange:x?}");
        slides.insert(slide);
    }
    assert!(slides.len() > 1, "three boots, one slide: {slides:x?}");
}
