//! Valid images, damaged at random: whatever comes in, one error or a table that answers; no panic, no hang.

use std::sync::LazyLock;

use proptest::prelude::*;

use crate::decompress::Method;
use crate::decompress::tests::pack;
use crate::testing::{GLOBAL_FUNC, Layout, Load, PerCpu, Sym, bzimage, elf, stripped, stripped_kernel};
use crate::{ByteOrder, GuestAddr, KernelImage, TextIndex};

static IMAGES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let kernel = stripped_kernel(Layout::Behind, PerCpu::Plain, 40);
    let mut images = vec![
        stripped_kernel(Layout::Before, PerCpu::AbsolutePerCpu, 300),
        stripped_kernel(Layout::BeforeWithOrder, PerCpu::Plain, 300),
        stripped_kernel(Layout::OwnPlace, PerCpu::Plain, 300),
        stripped(ByteOrder::Big, 4, 20, 0xc000_0000, Layout::BeforeAbsolute, PerCpu::Plain, 300),
        with_symbols(ByteOrder::Little, 8),
        with_symbols(ByteOrder::Big, 4),
        b"ffffffff81000000 T _stext\nffffffff81000010 t f\r\nffffffffc0001000 t g\t[ext4]\n".repeat(5),
    ];
    for method in [Method::Gzip, Method::Xz, Method::Lz4, Method::Zstd, Method::Lzma, Method::Bzip2] {
        let mut payload = pack(method, &kernel);
        payload.extend(u32::try_from(kernel.len()).unwrap().to_le_bytes());
        images.push(bzimage(&payload));
        images.push(pack(method, &kernel[..9000]));
    }
    images
});

fn with_symbols(order: ByteOrder, word_bytes: usize) -> Vec<u8> {
    let text = Load { addr: 0xc000_0000, flags: 5, bytes: (0..=255).cycle().take(9000).collect(), memory_bytes: 9000 };
    let symbols = [
        Sym("_stext", 0xc000_0000, GLOBAL_FUNC, 1),
        Sym("one", 0xc000_0100, GLOBAL_FUNC, 1),
        Sym("two", 0xc000_0200, GLOBAL_FUNC, 1),
        Sym("_etext", 0xc000_2000, GLOBAL_FUNC, 1),
    ];
    elf(order, word_bytes, 62, &[text], &symbols)
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

proptest! {
    // More with PROPTEST_CASES.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn bytes_replaced(
        which in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut bytes = which.get(&IMAGES).clone();
        for (at, value) in changes {
            *at.get_mut(&mut bytes) = value;
        }
        ask(bytes);
    }

    /// Headers are where the numbers are: hit them more often.
    #[test]
    fn numbers_replaced_in_headers(
        which in any::<prop::sample::Index>(),
        at in 0usize..0x260,
        value in prop::sample::select(vec![0u64, 1, 0x7f, 0xff, 0xffff, 0x7fff_ffff, 0xffff_ffff, u64::MAX, 1 << 63]),
        width in 1usize..=8,
    ) {
        let mut bytes = which.get(&IMAGES).clone();
        let at = at % bytes.len();
        for (to, from) in bytes[at..].iter_mut().zip(value.to_le_bytes()).take(width) {
            *to = from;
        }
        ask(bytes);
    }

    #[test]
    fn cut_short(which in any::<prop::sample::Index>(), at in any::<prop::sample::Index>()) {
        let mut bytes = which.get(&IMAGES).clone();
        bytes.truncate(at.index(bytes.len()));
        ask(bytes);
    }

    #[test]
    fn a_piece_moved(
        which in any::<prop::sample::Index>(),
        from in any::<prop::sample::Index>(),
        to in any::<prop::sample::Index>(),
        len in 1usize..2000,
    ) {
        let mut bytes = which.get(&IMAGES).clone();
        let from = from.index(bytes.len());
        let piece = bytes[from..bytes.len().min(from + len)].to_vec();
        let to = to.index(bytes.len());
        for (to, from) in bytes[to..].iter_mut().zip(piece) {
            *to = from;
        }
        ask(bytes);
    }

    #[test]
    fn anything_behind_a_magic(
        magic in prop::sample::select(vec![
            b"\x7fELF\x02\x01\x01".as_slice(), b"\x7fELF\x01\x02\x01", b"\x1f\x8b\x08", b"\xfd7zXZ\0", b"\x02\x21\x4c\x18",
            b"\x28\xb5\x2f\xfd", b"BZh91AY&SY", b"\x5d\0\0\0\x04", b"0000 T ", b"",
        ]),
        tail in prop::collection::vec(any::<u8>(), 0..2000),
    ) {
        ask([magic, tail.as_slice()].concat());
    }
}

#[test]
fn the_images_are_good_before_they_are_damaged() {
    for (number, image) in IMAGES.iter().enumerate() {
        // The packed ones that are cut are not.
        let good = KernelImage::parse("good", image.clone()).is_ok();
        assert_eq!(good, number < 7 || number % 2 == 1, "{number}");
    }
}

#[test]
fn every_prefix_of_a_small_image() {
    let image = with_symbols(ByteOrder::Little, 8);
    for length in (0..200).chain((200..image.len()).step_by(61)) {
        assert!(KernelImage::parse("prefix", image[..length].to_vec()).is_err(), "{length}");
    }
}
