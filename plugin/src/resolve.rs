//! Places and names against the kernel image: what the definition language asks, and what printing asks.

use std::sync::Arc;

use qkprobe_arch::{Arch, GuestAddr};
use qkprobe_lang::{NamedAddr, PlaceError, SymbolLookup, SymbolNames, Target};
use qkprobe_symbols::{KernelImage, Lookup, Symbol};

use crate::engine::locate::Locator;

/// Kernel errno values that refusals carry.
const ENOENT: i32 = 2;
const EINVAL: i32 = 22;
/// No function of a kernel is longer: what is decoded for a boundary is bounded.
const MAX_FUNCTION: u64 = 1 << 20;

/// The definition language's view of the kernel.
#[derive(Debug)]
pub(crate) struct ImageTarget<'a> {
    pub(crate) arch: &'static dyn Arch,
    pub(crate) image: Option<&'a KernelImage>,
}

impl ImageTarget<'_> {
    pub(crate) fn text_at(&self, addr: GuestAddr, len: usize) -> Option<&[u8]> {
        self.image?.bytes(addr, len)
    }

    /// The function around an address, by symbol.
    fn function(&self, addr: GuestAddr) -> Option<(Symbol<'_>, u64)> {
        self.image?.symbols.containing(addr)
    }

    /// Whether nobody reads the arithmetic flags that hold at an address of the image.
    pub(crate) fn flags_are_dead(&self, addr: GuestAddr) -> bool {
        /// Text that is looked at: compilers set flags again soon.
        const MOST: usize = 512;
        let function = self.function(addr).map_or(0..0, |(symbol, _)| symbol.addr.0..symbol.addr.0 + symbol.size);
        let text = (1..=MOST).rev().find_map(|len| self.text_at(addr, len)).unwrap_or_default();
        self.arch
            .as_execute()
            .is_some_and(|execute| execute.flags_are_exact() || execute.flags_dead_after(text, addr, &function))
    }

    /// Whether the image's text at an address is at hand: then the slot can be made at registration.
    pub(crate) fn has_text(&self, addr: GuestAddr) -> bool {
        self.text_at(addr, 1).is_some()
    }

    /// Symbols without text: their slide is given.
    pub(crate) fn is_text_free(&self) -> bool {
        self.image.is_some_and(|image| image.segments.is_empty())
    }

    /// Whether the address belongs to the kernel image's own region, and so moves with it.
    pub(crate) fn in_kernel(&self, addr: GuestAddr) -> bool {
        self.arch.image_region().contains(&addr.0)
    }

    /// The bytes for the slot.
    pub(crate) fn slot_text(&self, addr: GuestAddr) -> &[u8] {
        (1..=qkprobe_arch::MAX_INSN_BYTES).rev().find_map(|len| self.text_at(addr, len)).unwrap_or_default()
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
        match self.image?.symbols.lookup(None, name) {
            Lookup::None => None,
            Lookup::One(symbol) => Some(symbol.addr),
            Lookup::Many(symbols) => symbols.first().map(|symbol| symbol.addr),
        }
    }

    fn has_module(&self, module: &str) -> bool {
        self.image.is_some_and(|image| image.symbols.has_module(module))
    }

    fn check_place(&self, addr: GuestAddr) -> Result<GuestAddr, PlaceError> {
        let Some((symbol, offset)) = self.function(addr) else {
            return Err(PlaceError::Other(ENOENT, format!("{addr} lies in no symbol")));
        };
        if !symbol.text {
            return Err(PlaceError::Other(EINVAL, format!("{} is data, not code", symbol.name)));
        }
        // Symbols without text (System.map) leave the check to the time when the code is translated.
        let len = usize::try_from(symbol.size.min(MAX_FUNCTION)).unwrap_or(0);
        let Some(text) = self.text_at(symbol.addr, len) else { return Ok(addr) };
        let skip = self.arch.entry_skip(text);
        if offset == 0 && skip != 0 {
            return Ok(symbol.addr.wrapping_add(skip));
        }
        self.arch.check_boundary(symbol.addr, text, offset).map_err(|error| PlaceError::Boundary(error.to_string()))?;
        Ok(addr)
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

    fn similar_symbol(&self, name: &str) -> Option<String> {
        self.image?.symbols.similar(name).first().map(|name| (*name).to_owned())
    }
}

/// Names of runtime addresses, for printed pointers.
#[derive(Debug)]
pub(crate) struct RuntimeNames {
    pub(crate) image: Option<Arc<KernelImage>>,
    pub(crate) locator: Option<Arc<Locator>>,
}

impl SymbolNames for RuntimeNames {
    fn name(&self, addr: u64, out: &mut dyn std::fmt::Write) -> bool {
        let Some(image) = &self.image else { return false };
        // Before the slide is known the kernel runs where it is linked, or identity mapped.
        let linked = self.locator.as_ref().and_then(|locator| locator.linked(GuestAddr(addr)));
        let Some((symbol, offset)) = image.symbols.containing(linked.unwrap_or(GuestAddr(addr))) else { return false };
        let written = write!(out, "{}+{:#x}/{:#x}", symbol.name, offset, symbol.size);
        let module = symbol.module.map_or(Ok(()), |module| write!(out, " [{module}]"));
        written.and(module).is_ok()
    }
}
