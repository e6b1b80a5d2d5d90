//! Real kernel images: what is read out of them must be what the kernel itself says when it runs, row by row.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Instant;

use qkprobe_symbols::{GuestAddr, KernelImage, Location, Lookup, Machine, Symbol, TextIndex};
use qkprobe_tests::{Boot, Cache, GuestArch, GuestKernel, Qemu};

/// The kernels that were set up: all that a full set-up has, but one of them may be left out.
fn kernels() -> Vec<(GuestKernel, PathBuf)> {
    let cache = Cache::open().unwrap_or_else(|error| panic!("{error}"));
    let found: Vec<_> =
        GuestKernel::ALL.into_iter().filter_map(|kernel| Some((kernel, cache.kernel(kernel).ok()?))).collect();
    assert!(!found.is_empty(), "no kernel is set up: run `cargo xtask setup`");
    found
}

/// What is known of a kernel of each architecture: its machine, where its text begins, and how many symbols it has at
/// least. Those that are built for the tests leave out most drivers.
fn known(arch: GuestArch) -> (Machine, u64, usize) {
    match arch {
        GuestArch::X86_64 => (Machine::X86_64, 0xffff_ffff_8100_0000, 80_000),
        GuestArch::I386 => (Machine::I386, 0xc100_0000, 40_000),
        GuestArch::Ppc64le => (Machine::Ppc64, 0xc000_0000_0000_0000, 80_000),
        GuestArch::Ppc64 => (Machine::Ppc64, 0xc000_0000_0000_0000, 30_000),
        GuestArch::Ppc32 => (Machine::Ppc, 0xc000_0000, 20_000),
        GuestArch::Sparc64 => (Machine::Sparc64, 0x40_4000, 20_000),
    }
}

fn load(path: &std::path::Path) -> KernelImage {
    KernelImage::load(path).unwrap_or_else(|error| panic!("{error}"))
}

fn one<'a>(image: &'a KernelImage, name: &str) -> Symbol<'a> {
    match image.symbols.lookup(None, name) {
        Lookup::One(symbol) => symbol,
        other => panic!("{name}: {other:?}"),
    }
}

/// Address, letter and name.
type Row = (u64, char, String);

/// A line of the kernel itself: modules and programs that it compiled at run time have a name in brackets behind.
fn row(line: &str) -> Option<Row> {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let [addr, kind, name] = words[..] else { return None };
    let addr = u64::from_str_radix(addr, 16).unwrap_or_else(|_| panic!("no address in {line:?}"));
    Some((addr, kind.chars().next()?, name.to_owned()))
}

/// The running kernel lists the same symbols, in the same order.
#[track_caller]
fn lists_the_same_symbols(kernel: GuestKernel) {
    let boot = Boot::new(Qemu::V11_1, kernel)
        .append("nokaslr")
        .second_serial()
        .script(["write /proc/sys/kernel/kptr_restrict 0", "kallsyms /dev/ttyS1"])
        .run_ok();
    // Its own text, read here, and as the library reads it.
    let told: Vec<Row> = boot.second_serial.lines().filter_map(row).collect();
    let running = KernelImage::parse("/proc/kallsyms", boot.second_serial.into_bytes()).unwrap();
    let image = load(&Cache::open().unwrap().kernel(kernel).unwrap());
    let rows = |image: &KernelImage| -> Vec<Row> {
        let core = image.symbols.iter().filter(|symbol| symbol.module.is_none());
        core.map(|symbol| (symbol.addr.0, symbol.kind, symbol.name.to_owned())).collect()
    };
    let (read, parsed) = (rows(&image), rows(&running));
    if let Some(at) = parsed.iter().zip(&told).position(|(parsed, told)| parsed != told) {
        panic!("{}: row {at}: parsed {:?}, the kernel says {:?}", kernel.name(), parsed[at], told[at]);
    }
    assert_eq!(parsed.len(), told.len(), "{}", kernel.name());
    if kernel.file() == "vmlinux" {
        // A symbol table of ELF has more than the kernel's own; `?` stands for sections that are not loaded.
        let read: BTreeSet<_> = read.iter().collect();
        let missing: Vec<_> = told.iter().filter(|row| row.1 != '?' && !read.contains(row)).take(5).collect();
        assert!(missing.is_empty(), "{}: {missing:x?}", kernel.name());
        assert!(told.len() > 20_000, "{}: {} symbols", kernel.name(), told.len());
        return;
    }
    if let Some(at) = read.iter().zip(&told).position(|(read, told)| read != told) {
        panic!("{}: row {at}: read {:?}, the kernel says {:?}", kernel.name(), read[at], told[at]);
    }
    assert_eq!(read.len(), told.len(), "{}", kernel.name());
    assert!(read.len() > known(kernel.arch()).2, "{}: {} symbols", kernel.name(), read.len());
}

#[test]
fn cloud_6_1_lists_the_same_symbols() {
    lists_the_same_symbols(GuestKernel::X86_64Cloud6_1);
}

#[test]
fn generic_6_1_lists_the_same_symbols() {
    lists_the_same_symbols(GuestKernel::X86_64Generic6_1);
}

#[test]
fn cloud_6_12_lists_the_same_symbols() {
    lists_the_same_symbols(GuestKernel::X86_64Cloud6_12);
}

#[test]
fn cloud_7_lists_the_same_symbols() {
    lists_the_same_symbols(GuestKernel::X86_64Cloud7);
}

#[test]
fn i386_lists_the_same_symbols() {
    lists_the_same_symbols(GuestKernel::I386Pae6_1);
}

#[test]
fn ppc64le_lists_the_same_symbols() {
    lists_the_same_symbols(GuestKernel::Ppc64le6_1);
}

#[test]
fn ppc64_lists_the_same_symbols() {
    lists_the_same_symbols(GuestKernel::Ppc64Pseries6_1);
}

#[test]
fn ppc32_lists_the_same_symbols() {
    lists_the_same_symbols(GuestKernel::Ppc32Pmac6_1);
}

#[test]
fn sparc64_lists_the_same_symbols() {
    lists_the_same_symbols(GuestKernel::Sparc64Sun4u6_1);
}

#[test]
fn banner_machine_and_well_known_names() {
    let cache = Cache::open().unwrap();
    for (kernel, path) in kernels() {
        let image = load(&path);
        let banner = image.banner.as_deref().unwrap();
        let version = cache.kernel_version(kernel).unwrap();
        assert!(banner.starts_with("Linux version ") && banner.contains(&version), "{version}: {banner}");
        let (machine, stext, _) = known(kernel.arch());
        assert_eq!(image.machine, machine);
        assert_eq!(one(&image, "_stext").addr, GuestAddr(stext));
        let open = one(&image, "do_sys_openat2");
        assert!(open.text && matches!(open.kind, 't' | 'T') && (64..4096).contains(&open.size), "{open:?}");
        let inside = image.symbols.containing(open.addr.wrapping_add(8)).unwrap();
        let dot = if kernel.arch() == GuestArch::Ppc64 { "." } else { "" };
        assert_eq!((inside.0.name, inside.1), (format!("{dot}do_sys_openat2").as_str(), 8));
        // Debian's i386 kernels name only functions.
        if kernel.arch() != GuestArch::I386 {
            let data = one(&image, "linux_banner");
            assert!(!data.text, "{data:?}");
            assert_eq!(image.bytes(data.addr, 14), Some(b"Linux version ".as_slice()));
        }
        assert!(image.symbols.similar("do_sys_opnat2").contains(&"do_sys_openat2"), "{}", kernel.name());
        // Static functions of one name: on x86_64 there are variables too.
        let common = if kernel.arch() == GuestArch::X86_64 { "__key.0" } else { "c_start" };
        let Lookup::Many(many) = image.symbols.lookup(None, common) else { panic!("{}: {common}", kernel.name()) };
        assert!(many.windows(2).all(|pair| pair[0].addr < pair[1].addr));
    }
}

/// Bytes of a page as a running kernel may have them: every 16th differs (relocations, patched calls).
fn patched(page: &[u8], keep: std::ops::Range<usize>) -> Vec<u8> {
    let change = |(at, byte): (usize, &u8)| if at % 16 == 5 && !keep.contains(&at) { !*byte } else { *byte };
    page.iter().enumerate().map(change).collect()
}

#[test]
fn function_entries_are_found_at_any_slide() {
    for (kernel, path) in kernels() {
        let image = load(&path);
        let start = Instant::now();
        let index = TextIndex::new(&image).unwrap();
        println!("{}: {} bytes of text indexed in {:?}", kernel.name(), index.text_bytes(), start.elapsed());
        let functions = image.symbols.iter().filter(|symbol| {
            symbol.text && symbol.size >= 16 && symbol.addr.0 & 0xfff <= 0xff0 && !symbol.name.starts_with("__pfx_")
        });
        let (mut right, mut ambiguous) = (0, 0);
        for symbol in functions.step_by(23) {
            let offset = (symbol.addr.0 & 0xfff) as usize;
            let block = image.bytes(symbol.addr, 16).unwrap();
            let Some(page) = image.bytes(GuestAddr(symbol.addr.0 & !0xfff), 4096) else { continue };
            let page = patched(page, offset..offset + 16);
            match index.locate(symbol.addr.wrapping_add(0x1b20_0000), block, &page) {
                Location::Found { image_addr } if image_addr == symbol.addr => right += 1,
                Location::Ambiguous => ambiguous += 1,
                other => panic!("{}: {symbol:?}: {other:?}", kernel.name()),
            }
        }
        assert!(
            right > known(kernel.arch()).2 / 80 && ambiguous * 50 < right,
            "{}: {right} right, {ambiguous} ambiguous",
            kernel.name()
        );
    }
}

#[test]
fn an_image_cut_short_or_damaged_is_one_error() {
    let (_, path) = kernels().remove(0);
    let bytes = std::fs::read(&path).unwrap();
    for part in [1, 10, 50, 90] {
        let cut = bytes[..bytes.len() * part / 100].to_vec();
        let text = KernelImage::parse("cut", cut).unwrap_err().to_string();
        assert!(text.contains("cut short"), "{part} %: {text}");
    }
    let mut damaged = bytes;
    let middle = damaged.len() / 2;
    damaged[middle..middle + 64].fill(0xff);
    // LZ4 has no checksum: what it damages depends on the image.
    if let Err(error) = KernelImage::parse("damaged", damaged) {
        assert!(error.to_string().starts_with("kernel image damaged: "), "{error}");
    }
}
