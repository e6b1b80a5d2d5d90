//! A kernel image as the definition language sees it.

use std::ops::Range;

use qkprobe_arch::{Arch, BoundaryError, GuestAddr, InsnSlot, NoSuchSymbol, Paging};
use qkprobe_lang::{NamedAddr, PlaceError, SymbolLookup, SymbolNames, Target};
use qkprobe_symbols::{KernelImage, Lookup, Symbol, before_function};

use crate::hint;

/// Kernel errno values that refusals carry.
const ENOENT: i32 = 2;
const EINVAL: i32 = 22;
/// No function of a kernel is longer: what is decoded for a boundary is bounded.
const MAX_FUNCTION: u64 = 1 << 20;
/// So many names that a compiler made of one are told.
const MOST_SPELLINGS: usize = 3;

/// The definition language's view of the kernel.
#[derive(Clone, Copy, Debug)]
pub struct ImageTarget<'a> {
    /// The guest's ISA.
    pub arch: &'static dyn Arch,
    /// The kernel; `None` where nobody knows one, and places are numbers.
    pub image: Option<&'a KernelImage>,
}

impl ImageTarget<'_> {
    /// The image's bytes at an address, if it has all of them.
    fn text_at(&self, addr: GuestAddr, len: usize) -> Option<&[u8]> {
        self.image?.bytes(addr, len)
    }

    /// As many of the image's bytes as there are at an address, at most so many.
    fn text_within(&self, addr: GuestAddr, most: usize) -> &[u8] {
        (1..=most).rev().find_map(|len| self.text_at(addr, len)).unwrap_or_default()
    }

    /// The function around an address, by symbol.
    fn function(&self, addr: GuestAddr) -> Option<(Symbol<'_>, u64)> {
        self.image?.symbols.containing(addr)
    }

    /// Whether the image's text at an address is at hand: then the slot can be made at registration.
    #[must_use]
    pub fn has_text(&self, addr: GuestAddr) -> bool {
        self.text_at(addr, 1).is_some()
    }

    /// Whether an address is one of the image, and so moves with the kernel; any other is a virtual address as it is. Of symbols
    /// without text the ISA says which those are.
    #[must_use]
    pub fn is_in_image(&self, addr: GuestAddr) -> bool {
        let is_text_free = self.image.is_some_and(|image| image.segments.is_empty());
        self.has_text(addr) || (is_text_free && self.arch.image_region().contains(&addr.0))
    }

    /// The copy of the instruction at an address of the image; `None` where there is no text, or no instruction in it.
    #[must_use]
    pub fn slot(&self, addr: GuestAddr) -> Option<InsnSlot> {
        let text = self.text_within(addr, qkprobe_arch::MAX_INSN_BYTES);
        InsnSlot::prepare(self.arch, addr, text).ok().filter(|_| !text.is_empty() && self.unsettled(addr).is_none())
    }

    /// The piece of text around an address where the image has no instruction, but the running kernel may have one, because it
    /// replaces that piece when it boots. The piece begins and ends with an instruction in both.
    #[must_use]
    pub fn unsettled(&self, addr: GuestAddr) -> Option<Range<GuestAddr>> {
        let image = self.image?;
        // Most places are far from any such piece.
        image.patched_at_boot(
            GuestAddr(addr.0.saturating_sub(qkprobe_arch::MAX_INSN_BYTES as u64)),
            addr.wrapping_add(1),
        )?;
        let (symbol, offset) = self.function(addr)?;
        let text = self.function_text(&symbol)?;
        let Err(BoundaryError::Inside { start, len, .. }) = self.arch.check_boundary(symbol.addr, text, offset) else {
            return None;
        };
        let end = start.wrapping_add(u64::from(len));
        let (first, after) = image.patched_at_boot(start, end)?;
        Some(first.min(start)..after.max(end))
    }

    /// What there is of a function's text; `None` of symbols without text.
    fn function_text(&self, symbol: &Symbol<'_>) -> Option<&[u8]> {
        self.text_at(symbol.addr, usize::try_from(symbol.size.min(MAX_FUNCTION)).unwrap_or(0))
    }

    /// Whether nobody reads the arithmetic flags that hold at an address of the image.
    #[must_use]
    pub fn flags_are_dead(&self, addr: GuestAddr) -> bool {
        /// Text that is looked at: compilers set flags again soon.
        const MOST: usize = 512;
        let function =
            self.function(addr).map_or(0..0, |(symbol, _)| symbol.addr.0..symbol.addr.0.saturating_add(symbol.size));
        let text = self.text_within(addr, MOST);
        self.arch
            .as_execute()
            .is_some_and(|execute| execute.flags_are_exact() || execute.flags_dead_after(text, addr, &function))
    }

    /// How the kernel's page tables are followed, where QEMU must not; `None` where QEMU may, or no kernel is known.
    ///
    /// # Errors
    /// The image lacks a symbol that is needed for that: it is no Linux kernel.
    pub fn paging(&self) -> Result<Option<Box<dyn Paging>>, NoSuchSymbol> {
        let (Some(translate), Some(image)) = (self.arch.as_translate(), self.image) else { return Ok(None) };
        let symbol = |name: &str| match image.symbols.lookup(None, name) {
            Lookup::One(symbol) => Some(symbol.addr),
            _ => None,
        };
        translate.paging(&symbol).map(Some)
    }
}

impl Target for ImageTarget<'_> {
    fn arch(&self) -> &dyn Arch {
        self.arch
    }

    fn symbol(&self, module: Option<&str>, name: &str) -> SymbolLookup {
        let Some(image) = self.image else { return SymbolLookup::None };
        match image.symbols.lookup(module, name) {
            Lookup::None => SymbolLookup::None,
            Lookup::One(symbol) => SymbolLookup::One { addr: symbol.addr, size: symbol.size },
            Lookup::Many(symbols) => {
                // The kernel counts functions: a data symbol of the same name does not make it ambiguous.
                let text: Vec<_> = symbols.iter().filter(|symbol| symbol.text).collect();
                match text.as_slice() {
                    [one] => SymbolLookup::One { addr: one.addr, size: one.size },
                    _ => SymbolLookup::Many(symbols.iter().map(|symbol| symbol.addr).collect()),
                }
            }
        }
    }

    fn data_symbol(&self, name: &str) -> Option<GuestAddr> {
        let symbols = &self.image?.symbols;
        let found = match symbols.lookup(None, name) {
            Lookup::None => None,
            Lookup::One(symbol) => Some(symbol),
            Lookup::Many(symbols) => symbols.first().copied(),
        };
        let is_address = |symbol: &Symbol<'_>| symbol.module.is_some() || symbols.is_kernel_memory(symbol.addr);
        found.filter(is_address).map(|symbol| symbol.addr)
    }

    fn has_module(&self, module: &str) -> bool {
        self.image.is_some_and(|image| image.symbols.has_module(module))
    }

    fn check_place(&self, addr: GuestAddr) -> Result<GuestAddr, PlaceError> {
        let Some((symbol, offset)) = self.function(addr) else {
            return Err(PlaceError::Other(ENOENT, format!("{addr} lies in no function of the kernel")));
        };
        if !symbol.text {
            return Err(PlaceError::Other(EINVAL, format!("{} is data, not code", symbol.name)));
        }
        // As the kernel (`is_cfi_preamble_symbol`, kernel/kprobes.c).
        if let Some(function) = before_function(symbol.name) {
            let what =
                format!("{} is what lies before a function, which calls do not run: probe {function}", symbol.name);
            return Err(PlaceError::Other(EINVAL, what));
        }
        // Symbols without text (System.map) leave the check to the time when the code is translated.
        let Some(text) = self.function_text(&symbol) else { return Ok(addr) };
        let skip = self.arch.entry_skip(text);
        if offset == 0 && skip != 0 {
            return Ok(symbol.addr.wrapping_add(skip));
        }
        match self.arch.check_boundary(symbol.addr, text, offset) {
            // The running text decides.
            Err(_) if self.unsettled(addr).is_some() => Ok(addr),
            checked => checked.map(|()| addr).map_err(|error| PlaceError::Boundary(error.to_string())),
        }
    }

    fn is_function_entry(&self, addr: GuestAddr) -> bool {
        self.function(addr).is_some_and(|(symbol, offset)| {
            offset == 0 || self.text_at(symbol.addr, 16).is_some_and(|text| offset == self.arch.entry_skip(text))
        })
    }

    fn name_of(&self, addr: GuestAddr) -> Option<NamedAddr> {
        let (symbol, offset) = self.function(addr)?;
        let Symbol { name, size, module, .. } = symbol;
        Some(NamedAddr { symbol: name.to_owned(), offset, size, module: module.map(str::to_owned) })
    }

    fn hint(&self, name: &str) -> Option<String> {
        let symbols = &self.image?.symbols;
        if let Lookup::One(symbol) = symbols.lookup(None, name) {
            return Some(format!(
                "{name} stands for {:#x}: a number, or an offset of per-CPU variables",
                symbol.addr.0
            ));
        }
        let spellings = symbols.spellings(name);
        if let Some(known) = spellings.iter().find(|symbol| symbol.whole_name == name) {
            return Some(format!("this kernel goes by {}, without what the compiler appended", known.name));
        }
        let probed = spellings.iter().map(|symbol| symbol.name).filter(|name| before_function(name).is_none());
        let mut names: Vec<_> = probed.take(MOST_SPELLINGS).collect();
        names.dedup();
        if !names.is_empty() {
            let names = names.join(", ");
            // A name with a dot is none of the source's.
            let is_of_compiler = name.contains('.') || before_function(name).is_some();
            let what = if is_of_compiler {
                format!("this kernel has {names}")
            } else {
                format!("the compiler made {names} of it")
            };
            return Some(what);
        }
        Some(hint::hint(name, symbols, self.arch))
    }
}

/// Names of addresses as linked.
impl SymbolNames for ImageTarget<'_> {
    fn name(&self, addr: u64, out: &mut dyn std::fmt::Write) -> bool {
        self.image.is_some_and(|image| write_name(image, GuestAddr(addr), out))
    }
}

/// Writes `SYM+0xOFF/0xSIZE`, with ` [MODULE]` behind it for a module, of an address as linked; false, and nothing is written, for
/// one in no symbol.
pub fn write_name(image: &KernelImage, addr: GuestAddr, out: &mut dyn std::fmt::Write) -> bool {
    let Some((symbol, offset)) = image.symbols.containing(addr) else { return false };
    let written = write!(out, "{}+{:#x}/{:#x}", symbol.name, offset, symbol.size);
    let module = symbol.module.map_or(Ok(()), |module| write!(out, " [{module}]"));
    written.and(module).is_ok()
}
