//! A kernel image as the definition language sees it, for checks without a guest.

use qkprobe_arch::{Arch, GuestAddr};
use qkprobe_lang::{NamedAddr, PlaceError, SymbolLookup, SymbolNames, Target};
use qkprobe_symbols::{KernelImage, Lookup, Symbol};

const ENOENT: i32 = 2;
const EINVAL: i32 = 22;
/// No function of a kernel is longer: what is decoded for a boundary is bounded.
const MAX_FUNCTION: u64 = 1 << 20;

/// An image and its ISA.
#[derive(Clone, Copy, Debug)]
pub struct ImageTarget<'a> {
    /// The guest's ISA.
    pub arch: &'static dyn Arch,
    /// The kernel.
    pub image: &'a KernelImage,
}

impl ImageTarget<'_> {
    fn function(&self, addr: GuestAddr) -> Option<(Symbol<'_>, u64)> {
        self.image.symbols.containing(addr)
    }
}

impl Target for ImageTarget<'_> {
    fn arch(&self) -> &dyn Arch {
        self.arch
    }

    fn symbol(&self, module: Option<&str>, name: &str) -> SymbolLookup {
        match self.image.symbols.lookup(module, name) {
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
        match self.image.symbols.lookup(None, name) {
            Lookup::None => None,
            Lookup::One(symbol) => Some(symbol.addr),
            Lookup::Many(symbols) => symbols.first().map(|symbol| symbol.addr),
        }
    }

    fn has_module(&self, module: &str) -> bool {
        self.image.symbols.has_module(module)
    }

    fn check_place(&self, addr: GuestAddr) -> Result<GuestAddr, PlaceError> {
        let Some((symbol, offset)) = self.function(addr) else {
            return Err(PlaceError::Other(ENOENT, format!("{addr} lies in no symbol")));
        };
        if !symbol.text {
            return Err(PlaceError::Other(EINVAL, format!("{} is data, not code", symbol.name)));
        }
        let len = usize::try_from(symbol.size.min(MAX_FUNCTION)).unwrap_or(0);
        // A text of symbols leaves the check to the time when the code is translated.
        let Some(text) = self.image.bytes(symbol.addr, len) else { return Ok(addr) };
        let skip = self.arch.entry_skip(text);
        if offset == 0 && skip != 0 {
            return Ok(symbol.addr.wrapping_add(skip));
        }
        self.arch.check_boundary(symbol.addr, text, offset).map_err(|error| PlaceError::Boundary(error.to_string()))?;
        Ok(addr)
    }

    fn is_function_entry(&self, addr: GuestAddr) -> bool {
        self.function(addr).is_some_and(|(symbol, offset)| {
            offset == 0 || self.image.bytes(symbol.addr, 16).is_some_and(|text| offset == self.arch.entry_skip(text))
        })
    }

    fn name_of(&self, addr: GuestAddr) -> Option<NamedAddr> {
        let (symbol, offset) = self.function(addr)?;
        let Symbol { name, size, module, .. } = symbol;
        Some(NamedAddr { symbol: name.to_owned(), offset, size, module: module.map(str::to_owned) })
    }

    fn similar_symbol(&self, name: &str) -> Option<String> {
        self.image.symbols.similar(name).first().map(|name| (*name).to_owned())
    }
}

/// Names of addresses as linked.
impl SymbolNames for ImageTarget<'_> {
    fn name(&self, addr: u64, out: &mut dyn std::fmt::Write) -> bool {
        let Some((symbol, offset)) = self.function(GuestAddr(addr)) else { return false };
        let written = write!(out, "{}+{:#x}/{:#x}", symbol.name, offset, symbol.size);
        let module = symbol.module.map_or(Ok(()), |module| write!(out, " [{module}]"));
        written.and(module).is_ok()
    }
}
