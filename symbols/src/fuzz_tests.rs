//! Fuzz targets: valid images, damaged as the input says. Whatever comes in, one error or a table that answers; no panic, no hang.
//! `cargo test` runs the corpus (`__fuzz__/TARGET/corpus`) and some random inputs; `cargo xtask fuzz TARGET` is led by coverage, as long
//! as one likes.

use std::sync::LazyLock;

use crate::decompress::Method;
use crate::decompress::tests::{METHODS, pack};
use crate::testing::{
    GLOBAL_FUNC, GLOBAL_OBJECT, LOCAL_FILE, LOCAL_NOTYPE, LOCAL_SECTION, Layout, Load, PerCpu, Sym, WEAK_FUNC, bzimage,
    elf, stripped, stripped_kernel,
};
use crate::{ByteOrder, GuestAddr, KernelImage, TextIndex};

/// Random inputs of one `cargo test`, of at most so many bytes.
const RANDOM: usize = 500;
const MAX_LEN: usize = 60;

/// With a symbol table.
static ELF: LazyLock<Vec<Vec<u8>>> =
    LazyLock::new(|| vec![with_symbols(ByteOrder::Little, 8), with_symbols(ByteOrder::Big, 4)]);

/// Packed in each way, some twice, one not at all.
static BZIMAGE: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let kernel = with_symbols(ByteOrder::Little, 8);
    let sized = |mut payload: Vec<u8>| {
        payload.extend(u32::try_from(kernel.len()).unwrap().to_le_bytes());
        bzimage(&payload)
    };
    let mut images: Vec<_> = METHODS.iter().map(|method| sized(pack(*method, &kernel))).collect();
    images.push(bzimage(&kernel));
    images.push(pack(Method::Gzip, &images[0]));
    images.push(pack(Method::Lz4, &pack(Method::Zstd, &kernel)));
    images.extend(METHODS.iter().map(|method| pack(*method, &kernel)));
    images
});

/// Every layout of the kernel's own table, and the texts.
static KALLSYMS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    vec![
        stripped_kernel(Layout::Before, PerCpu::AbsolutePerCpu, 300),
        stripped_kernel(Layout::BeforeWithOrder, PerCpu::Plain, 300),
        stripped_kernel(Layout::Behind, PerCpu::AbsolutePerCpu, 40),
        stripped_kernel(Layout::BehindAbsolute, PerCpu::Plain, 300),
        stripped_kernel(Layout::OwnPlace, PerCpu::Plain, 300),
        stripped(ByteOrder::Big, 4, 20, 0xc000_0000, Layout::BeforeAbsolute, PerCpu::Plain, 300),
        b"ffffffff81000000 T _stext\nffffffff81000010 t f\r\nffffffffc0001000 t g\t[ext4]\n".repeat(5),
        b"ffffffffffffffff B The real System.map is in the linux-image-<version>-dbg package\n".to_vec(),
    ]
});

fn with_symbols(order: ByteOrder, word_bytes: usize) -> Vec<u8> {
    let load = |addr, flags, len: usize| {
        let bytes: Vec<u8> = (0..=255).cycle().take(len).collect();
        Load { addr, flags, bytes, memory_bytes: len as u64 }
    };
    let symbols = [
        Sym("", 0xc000_0000, LOCAL_SECTION, 1),
        Sym("main.c", 0, LOCAL_FILE, 0xfff1),
        Sym("_stext", 0xc000_0000, GLOBAL_FUNC, 1),
        Sym("$x", 0xc000_0004, LOCAL_NOTYPE, 1),
        Sym("one", 0xc000_0100, GLOBAL_FUNC, 1),
        Sym("two", 0xc000_0100, WEAK_FUNC, 1),
        Sym("two", 0xc000_0200, GLOBAL_FUNC, 1),
        Sym("linux_banner", 0xc000_2000, GLOBAL_OBJECT, 2),
        Sym("absolute", 0x1000, LOCAL_NOTYPE, 0xfff1),
        Sym("_etext", 0xc000_1000, GLOBAL_FUNC, 1),
    ];
    elf(order, word_bytes, 62, &[load(0xc000_0000, 5, 4196), load(0xc000_2000, 6, 100)], &symbols)
}

/// The image that the first byte of `recipe` chooses, changed by the rest: each step is what, where (2 bytes), how much, and the bytes
/// that are put there. Without an image the rest is the file.
fn damaged(images: &[Vec<u8>], recipe: &[u8]) -> Vec<u8> {
    let Some((which, mut rest)) = recipe.split_first() else { return Vec::new() };
    let Some(image) = images.get(usize::from(*which) % (images.len() + 1)) else { return rest.to_vec() };
    let mut bytes = image.clone();
    while let [what, low, high, count, tail @ ..] = rest {
        let at = usize::from(u16::from_le_bytes([*low, *high])) % (bytes.len() + 1);
        let count = usize::from(*count);
        let given = match what % 4 {
            0 | 1 => &tail[..(count % 16 + 1).min(tail.len())],
            _ => &tail[..0],
        };
        match what % 4 {
            // Over what is there.
            0 => bytes.iter_mut().skip(at).zip(given).for_each(|(to, from)| *to = *from),
            // Between what is there.
            1 => drop(bytes.splice(at..at, given.iter().copied())),
            // What follows comes again.
            2 => bytes.extend_from_within(at..(at + count * 8).min(bytes.len())),
            _ => bytes.truncate(at),
        }
        rest = &tail[given.len()..];
    }
    bytes
}

/// Everything that may be asked of an image.
fn ask(bytes: Vec<u8>) {
    let image = match KernelImage::parse("mutant", bytes) {
        Ok(image) => image,
        Err(error) => {
            assert!(error.to_string().len() < 1000, "{error}");
            return;
        }
    };
    for symbol in image.symbols.iter().take(50) {
        let _ = image.symbols.lookup(symbol.module, symbol.name);
        let _ = image.symbols.containing(symbol.addr.wrapping_add(symbol.size));
        let _ = image.bytes(symbol.addr, 16);
    }
    let _ = image.symbols.similar("start_kernal");
    let mut merged = image.symbols.clone();
    merged.merge(&image.symbols).unwrap();
    assert!(merged.len() <= image.symbols.len());
    if let Some(index) = TextIndex::new(&image) {
        let page = vec![0x55; 4096];
        let _ = index.locate(GuestAddr(u64::MAX), &page[..16], &page);
        let _ = index.candidates(4095, &page).count();
        let _ = index.page_matches(GuestAddr(u64::MAX - 100), &page);
    }
}

#[test]
fn elf_images() {
    bolero::check!(name = "elf")
        .with_iterations(RANDOM)
        .with_max_len(MAX_LEN)
        .for_each(|recipe: &[u8]| ask(damaged(&ELF, recipe)));
}

#[test]
fn bzimages() {
    bolero::check!(name = "bzimage")
        .with_iterations(RANDOM)
        .with_max_len(MAX_LEN)
        .for_each(|recipe: &[u8]| ask(damaged(&BZIMAGE, recipe)));
}

#[test]
fn kallsyms() {
    bolero::check!(name = "kallsyms")
        .with_iterations(RANDOM)
        .with_max_len(MAX_LEN)
        .for_each(|recipe: &[u8]| ask(damaged(&KALLSYMS, recipe)));
}

#[test]
fn the_images_are_good_before_they_are_damaged() {
    for (number, image) in ELF.iter().chain(BZIMAGE.iter()).chain(KALLSYMS.iter().rev().skip(1)).enumerate() {
        let image = KernelImage::parse("good", image.clone()).unwrap_or_else(|error| panic!("{number}: {error}"));
        assert!(image.symbols.len() >= 3, "{number}");
    }
}

#[test]
fn a_recipe_overwrites_inserts_repeats_and_cuts() {
    let images = [b"0123456789".to_vec()];
    let cook = |recipe: &[u8]| String::from_utf8(damaged(&images, recipe)).unwrap();
    assert_eq!(cook(b""), "");
    assert_eq!(cook(b"\0"), "0123456789");
    assert_eq!(cook(b"\x01raw"), "raw");
    assert_eq!(cook(b"\0\0\x02\0\x01ab"), "01ab456789");
    assert_eq!(cook(b"\0\x01\x02\0\x01ab"), "01ab23456789");
    assert_eq!(cook(b"\0\x02\x07\0\x01"), "0123456789789");
    assert_eq!(cook(b"\0\x03\x04\0\0"), "0123");
}

#[test]
fn every_prefix_of_a_small_image() {
    let image = with_symbols(ByteOrder::Little, 8);
    for length in (0..200).chain((200..image.len()).step_by(61)) {
        assert!(KernelImage::parse("prefix", image[..length].to_vec()).is_err(), "{length}");
    }
}
