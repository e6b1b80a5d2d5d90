//! Every layout, written by `crate::testing`, and what is damaged.

use super::*;
use crate::testing::{Layout, PerCpu, stripped, stripped_kernel};
use crate::{GuestAddr, KernelImage, Lookup};

const START: u64 = 0xffff_ffff_8100_0000;

/// Literals for what `crate::testing::stripped` puts in.
fn expect_symbols(image: &KernelImage, start: u64, many: usize) {
    let rows: Vec<(u64, char, &str)> =
        image.symbols.iter().map(|symbol| (symbol.addr.0.wrapping_sub(start), symbol.kind, symbol.name)).collect();
    let rows = &rows[rows.len() - many - 9..];
    let long = "x".repeat(200);
    assert_eq!(
        rows[..6],
        [
            (0, 'T', "_text"),
            (0, 'T', "_stext"),
            (0x80, 'T', "first_alias"),
            (0x80, 't', "second_alias"),
            (0x100, 't', &long),
            (0x200, 'T', "start_kernel"),
        ]
    );
    assert_eq!(rows[many + 6..], [(0x1e00, 'T', "_etext"), (0x1f00, 'D', "linux_banner"), (0x2000, 'B', "_end")]);
    if many > 300 {
        assert_eq!(rows[6 + 300], (0x400 + 1200, 't', "many_300"));
    }
    assert_eq!(image.banner.as_deref(), Some("Linux version 6.1.0-test (x)"));
}

#[test]
fn every_layout_of_x86_64() {
    for (layout, per_cpu) in [
        (Layout::Before, PerCpu::AbsolutePerCpu),
        (Layout::Before, PerCpu::Plain),
        (Layout::BeforeWithOrder, PerCpu::AbsolutePerCpu),
        (Layout::BeforeWithOrder, PerCpu::Plain),
        (Layout::BeforeAbsolute, PerCpu::Plain),
        (Layout::Behind, PerCpu::AbsolutePerCpu),
        (Layout::Behind, PerCpu::Plain),
        (Layout::BehindAbsolute, PerCpu::Plain),
        (Layout::OwnPlace, PerCpu::Plain),
    ] {
        for many in [0, 1, 247, 248, 500, 1000] {
            let image = KernelImage::parse("test", stripped_kernel(layout, per_cpu, many))
                .unwrap_or_else(|error| panic!("{layout:?} {per_cpu:?} {many}: {error}"));
            expect_symbols(&image, START, many);
            let per_cpu_rows = if per_cpu == PerCpu::AbsolutePerCpu { 2 } else { 0 };
            assert_eq!(image.symbols.len(), many + 9 + per_cpu_rows, "{layout:?} {per_cpu:?}");
            if per_cpu == PerCpu::AbsolutePerCpu {
                let Lookup::One(symbol) = image.symbols.lookup(None, "cpu_number") else { panic!("per-CPU symbol") };
                assert_eq!((symbol.addr, symbol.kind), (GuestAddr(0x1000), 'D'));
            }
        }
    }
}

#[test]
fn other_machines() {
    for (order, word_bytes, machine, start, layout) in [
        (ByteOrder::Little, 4, 3, 0xc100_0000, Layout::Before),
        (ByteOrder::Little, 4, 3, 0xc100_0000, Layout::Behind),
        (ByteOrder::Little, 4, 3, 0xc100_0000, Layout::BehindAbsolute),
        (ByteOrder::Little, 4, 3, 0xc100_0000, Layout::OwnPlace),
        (ByteOrder::Big, 4, 20, 0xc000_0000, Layout::Before),
        (ByteOrder::Big, 4, 20, 0xc000_0000, Layout::BeforeAbsolute),
        (ByteOrder::Big, 8, 21, 0xc000_0000_0000_0000, Layout::BeforeAbsolute),
        (ByteOrder::Big, 8, 43, 0x0040_4000, Layout::BehindAbsolute),
        (ByteOrder::Big, 8, 43, 0x0040_4000, Layout::OwnPlace),
    ] {
        let bytes = stripped(order, word_bytes, machine, start, layout, PerCpu::Plain, 700);
        let image = KernelImage::parse("test", bytes).unwrap_or_else(|error| panic!("{machine} {layout:?}: {error}"));
        expect_symbols(&image, start, 700);
        assert_eq!(image.byte_order, Some(order));
    }
}

#[test]
fn aliases_and_sizes_as_the_kernel_prints_them() {
    let image = KernelImage::parse("test", stripped_kernel(Layout::Behind, PerCpu::Plain, 3)).unwrap();
    let name = |offset: u64| {
        let (symbol, into) = image.symbols.containing(GuestAddr(START + offset)).unwrap();
        format!("{}+{into:#x}/{:#x}", symbol.name, symbol.size)
    };
    assert_eq!(name(0), "_text+0x0/0x80");
    assert_eq!(name(0x81), "first_alias+0x1/0x80");
    assert_eq!(name(0x207), "start_kernel+0x7/0x200");
    assert_eq!(name(0x40b), "many_2+0x3/0x19f8");
    assert!(image.symbols.containing(GuestAddr(START - 1)).is_none());
    assert!(image.symbols.containing(GuestAddr(START + 0x10_0000)).is_none());
}

#[test]
fn damage_is_told_by_stage() {
    let good = stripped_kernel(Layout::Before, PerCpu::Plain, 300);
    let text = |bytes: Vec<u8>| KernelImage::parse("k", bytes).unwrap_err().to_string();
    let find = |needle: &[u8]| memchr::memmem::find(&good, needle).unwrap();

    let mut no_tokens = good.clone();
    no_tokens[find(b"3\x004\x005\x00")] = b'!';
    assert!(text(no_tokens).contains("no table of name tokens"));

    let mut no_index = good.clone();
    let index = find(b"\xfe\x00") + 10;
    no_index.truncate(no_index.len() - 100);
    assert!(index > 0 && text(no_index).contains("cut short"));

    let mut bad_name = good.clone();
    // The length of `start_kernel` with its letter, one more than it is.
    let at = find(b"\x0dTstart_kernel");
    bad_name[at] += 1;
    assert!(text(bad_name).contains("no names before it"));

    let mut no_banner = good.clone();
    no_banner[find(b"Linux version 6.1.0")] = b'l';
    assert!(text(no_banner).contains("no table of addresses"));
}

#[test]
fn hostile_images_end_within_the_budget() {
    // Every word looks like a first marker and like a count.
    let mut bytes = stripped_kernel(Layout::Before, PerCpu::Plain, 300);
    let tokens = memchr::memmem::find(&bytes, b"0\x001\x002\x00").unwrap() - 200;
    for (number, chunk) in bytes[0x2100..tokens].chunks_exact_mut(8).enumerate() {
        chunk.copy_from_slice(&(if number % 2 == 0 { 0u64 } else { 200 }).to_le_bytes());
    }
    let start = std::time::Instant::now();
    let _ = KernelImage::parse("hostile", bytes);
    assert!(start.elapsed().as_secs() < 120, "took {:?}", start.elapsed());
}
