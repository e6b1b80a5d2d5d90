//! The functions of a kernel, and the places in them that are reached from elsewhere.

use std::collections::{BTreeSet, HashMap};

use qkprobe_symbols::{GuestAddr, KernelImage, Lookup};
use qkprobe_tests::GuestArch;

/// Longer ones are rare, and take most of the time.
const LONGEST: u64 = 4096;
const SHORTEST: u64 = 8;
/// ELFv2: direct calls go behind `addis r2,r12,...; addi r2,r2,...`.
const LOCAL_ENTRY: u64 = 8;

/// A function with a name of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Function {
    pub(crate) name: String,
    /// As linked.
    pub(crate) addr: u64,
    /// Up to the next symbol, or what the image says.
    pub(crate) size: u64,
}

/// What the image says of the kernel's code.
#[derive(Debug)]
pub(crate) struct Functions {
    /// In the order of their addresses.
    pub(crate) all: Vec<Function>,
    /// Where functions begin, in their own name.
    begins: BTreeSet<u64>,
    /// Those that have a part elsewhere, from which there are jumps into their middle.
    split: BTreeSet<String>,
    /// Where the kernel goes on after a fault, and where its patched jumps go; on machines with instructions of one length where
    /// any direct branch goes.
    pub(crate) targets: BTreeSet<u64>,
}

impl Functions {
    /// Reads an image.
    pub(crate) fn of(arch: GuestArch, image: &KernelImage) -> Self {
        let text = text(image);
        let inside = || image.symbols.iter().filter(|symbol| symbol.text && text.contains(&symbol.addr.0));
        let split = inside().filter_map(|symbol| Some(symbol.name.split_once(".cold")?.0.to_owned())).collect();
        let is_own = |name: &str| !name.contains(".cold");
        let begins = inside().filter(|symbol| is_own(symbol.name)).map(|symbol| symbol.addr.0).collect();
        let mut by_addr: HashMap<u64, Function> = HashMap::new();
        for symbol in inside() {
            let plain = symbol.name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.'));
            let fits = (SHORTEST..=LONGEST).contains(&symbol.size) && matches!(symbol.kind, 't' | 'T');
            if fits && plain && is_own(symbol.name) && matches!(image.symbols.lookup(None, symbol.name), Lookup::One(_))
            {
                let (name, addr, size) = (symbol.name.to_owned(), symbol.addr.0, symbol.size);
                by_addr.entry(addr).or_insert(Function { name, addr, size });
            }
        }
        let mut all: Vec<Function> = by_addr.into_values().collect();
        all.sort_by_key(|function| function.addr);
        let mut targets = tables(arch, image);
        if arch == GuestArch::Ppc64le {
            targets.extend(all.iter().map(|function| function.addr + LOCAL_ENTRY));
        }
        if !matches!(arch, GuestArch::X86_64 | GuestArch::I386) {
            targets.extend(branches(arch, image, text));
        }
        Self { all, begins, split, targets }
    }

    /// Of these only, none of which is in two pieces.
    #[cfg(test)]
    pub(crate) fn from_parts(all: Vec<Function>, targets: BTreeSet<u64>) -> Self {
        let begins = all.iter().map(|function| function.addr).collect();
        Self { all, begins, split: BTreeSet::new(), targets }
    }

    /// Whether a function begins there.
    pub(crate) fn is_begin(&self, arch: GuestArch, addr: u64) -> bool {
        let is_local = || self.begins.contains(&addr.wrapping_sub(LOCAL_ENTRY));
        self.begins.contains(&addr) || (arch == GuestArch::Ppc64le && is_local())
    }

    /// Whether all of a function is in one piece.
    pub(crate) fn is_whole(&self, function: &Function) -> bool {
        !self.split.contains(&function.name)
    }
}

/// From `_stext` to `_etext`.
fn text(image: &KernelImage) -> std::ops::Range<u64> {
    address(image, "_stext").unwrap_or(0)..address(image, "_etext").unwrap_or(u64::MAX)
}

fn address(image: &KernelImage, name: &str) -> Option<u64> {
    match image.symbols.lookup(None, name) {
        Lookup::One(symbol) => Some(symbol.addr.0),
        Lookup::None | Lookup::Many(_) => None,
    }
}

/// How a table of pairs of places is made: the bytes of an entry, and whether places are distances from themselves.
#[derive(Clone, Copy)]
struct Table {
    marks: [&'static str; 2],
    entry: usize,
    relative: bool,
    little: bool,
}

/// The second place of each entry of the exception table and of the table of jump labels (`asm/extable.h`,
/// `linux/jump_label.h` of Linux 6.1): where there is none of them, no place.
fn tables(arch: GuestArch, image: &KernelImage) -> BTreeSet<u64> {
    let x86 = matches!(arch, GuestArch::X86_64 | GuestArch::I386);
    let wide = matches!(arch, GuestArch::X86_64 | GuestArch::Ppc64 | GuestArch::Ppc64le);
    let relative = arch != GuestArch::Sparc64;
    let little = x86 || arch == GuestArch::Ppc64le;
    let exceptions =
        Table { marks: ["__start___ex_table", "__stop___ex_table"], entry: if x86 { 12 } else { 8 }, relative, little };
    let labels = Table {
        marks: ["__start___jump_table", "__stop___jump_table"],
        entry: if wide { 16 } else { 12 },
        relative,
        little,
    };
    [exceptions, labels].into_iter().flat_map(|table| places(image, table)).collect()
}

fn places(image: &KernelImage, Table { marks, entry, relative, little }: Table) -> Vec<u64> {
    let [Some(start), Some(end)] = marks.map(|mark| address(image, mark)) else { return Vec::new() };
    let len = usize::try_from(end.saturating_sub(start)).unwrap_or(0);
    let Some(bytes) = image.bytes(GuestAddr(start), len) else { return Vec::new() };
    let place = |(number, bytes): (usize, &[u8])| {
        let word: [u8; 4] = bytes.get(4..8).and_then(|word| word.try_into().ok()).unwrap_or_default();
        let word = if little { u32::from_le_bytes(word) } else { u32::from_be_bytes(word) };
        let at = start + (number * entry) as u64 + 4;
        if relative { at.wrapping_add_signed(i64::from(word.cast_signed())) } else { u64::from(word) }
    };
    bytes.chunks_exact(entry).enumerate().map(place).collect()
}

/// Where direct branches of the whole text go.
fn branches(arch: GuestArch, image: &KernelImage, text: std::ops::Range<u64>) -> Vec<u64> {
    let mut targets = Vec::new();
    for segment in image.segments.iter().filter(|segment| segment.executable) {
        let whole = Function { name: String::new(), addr: segment.addr.0, size: segment.bytes.len() as u64 };
        let Ok(code) = crate::code::read(arch, image, &[whole]) else { continue };
        let kinds = code.into_iter().flatten().flat_map(|code| code.insns).map(|insn| insn.kind);
        targets.extend(kinds.filter_map(crate::code::Kind::target).filter(|target| text.contains(target)));
    }
    targets
}
