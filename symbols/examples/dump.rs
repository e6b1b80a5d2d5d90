//! Prints an image's symbols as `nm -n` does, to be compared with other readers; with `--times`, what reading and
//! look-ups cost instead.

use std::path::Path;
use std::time::{Duration, Instant};

use qkprobe_symbols::{GuestAddr, KernelImage, Location, Lookup, Symbol, TextIndex};

fn main() {
    let mut times = false;
    for argument in std::env::args().skip(1) {
        if argument == "--times" {
            times = true;
            continue;
        }
        let start = Instant::now();
        match KernelImage::load(Path::new(&argument)) {
            Err(error) => {
                eprintln!("{error}");
                std::process::exit(1);
            }
            Ok(image) if times => {
                println!("{argument}: {:?}, {:?}, read in {:?}", image.machine, image.symbols, start.elapsed());
                measure(&image);
            }
            Ok(image) => {
                for symbol in image.symbols.iter() {
                    println!("{:016x} {} {}", symbol.addr.0, symbol.kind, symbol.name);
                }
            }
        }
    }
}

fn measure(image: &KernelImage) {
    println!("banner: {:?}", image.banner);
    let symbols: Vec<Symbol<'_>> = image.symbols.iter().collect();
    // Scattered, so that caches do not help.
    let some: Vec<Symbol<'_>> = (0..100_000).map(|round| symbols[round * 7919 % symbols.len()]).collect();
    let start = Instant::now();
    let by_name = some.iter().filter(|symbol| image.symbols.lookup(None, symbol.name) != Lookup::None).count();
    let named = start.elapsed();
    let start = Instant::now();
    let by_addr = some.iter().filter(|symbol| image.symbols.containing(symbol.addr.wrapping_add(1)).is_some()).count();
    println!("100,000 times by name: {named:?} ({by_name}), by address: {:?} ({by_addr})", start.elapsed());
    let start = Instant::now();
    println!("like do_sys_opnat2: {:?} in {:?}", image.symbols.similar("do_sys_opnat2"), start.elapsed());

    let start = Instant::now();
    let Some(index) = TextIndex::new(image) else { return };
    println!("{} bytes of text indexed in {:?}", index.text_bytes(), start.elapsed());
    let functions =
        symbols.iter().filter(|symbol| symbol.text && symbol.size >= 16 && !symbol.name.starts_with("__pfx_"));
    let blocks: Vec<(GuestAddr, &[u8], &[u8])> = functions
        .step_by(37)
        .filter_map(|symbol| {
            let page = GuestAddr(symbol.addr.0 & !4095);
            Some((symbol.addr, index.bytes(symbol.addr, 16)?, index.bytes(page, 4096)?))
        })
        .collect();
    let each = |time: Duration| time / u32::try_from(blocks.len().max(1)).unwrap_or(1);
    let start = Instant::now();
    let candidates =
        |(addr, block, _): &(GuestAddr, &[u8], &[u8])| index.candidates((addr.0 & 4095) as usize, block).count();
    let found: usize = blocks.iter().map(candidates).sum();
    println!("{} function entries: {found} candidates, {:?} each", blocks.len(), each(start.elapsed()));
    let start = Instant::now();
    let (mut right, mut ambiguous, mut wrong) = (0, 0, 0);
    for (addr, block, page) in &blocks {
        match index.locate(addr.wrapping_add(0x1a00_0000), block, page) {
            Location::Found { image_addr } if image_addr == *addr => right += 1,
            Location::Ambiguous => ambiguous += 1,
            Location::Found { .. } | Location::NotHere => wrong += 1,
        }
    }
    println!("located: {right} right, {ambiguous} ambiguous, {wrong} wrong, {:?} each", each(start.elapsed()));
    let start = Instant::now();
    let absent =
        |n: u64| index.candidates((n * 4) as usize, &n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()).count();
    let found: usize = (1..1001).map(absent).sum();
    println!("absent code: {:?} each ({found} candidates)", start.elapsed() / 1000);
}
