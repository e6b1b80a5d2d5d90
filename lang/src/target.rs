//! What the languages ask of a guest kernel's image: places, data symbols, and names at print time.

use std::fmt;

use qkprobe_arch::{Arch, GuestAddr};

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SymbolLookup {
    /// No such symbol.
    None,
    /// Exactly one.
    One {
        /// Its address, as linked.
        addr: GuestAddr,
        /// Its size in bytes.
        size: u64,
    },
    /// Several: a probe cannot choose.
    Many(Vec<GuestAddr>),
}

/// Why nothing can be probed at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlaceError {
    /// Not an instruction boundary (EILSEQ). The text helps the user: which instruction covers the address.
    Boundary(String),
    /// Anything else: the errno that the kernel's registration would return, and a text for the user.
    /// `ENOENT` (2) says that the address lies in no symbol; a place given as a number is accepted all the same.
    Other(i32, String),
}

/// A symbol around an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedAddr {
    /// The symbol.
    pub symbol: String,
    /// How far the address lies behind its start.
    pub offset: u64,
    /// Its size.
    pub size: u64,
    /// The module it belongs to.
    pub module: Option<String>,
}

/// What definitions are resolved against. All addresses are as linked: the load slide is applied at the hit.
pub trait Target {
    /// The guest's ISA.
    fn arch(&self) -> &dyn Arch;

    /// A function or other text symbol: a place to probe. `module` restricts the search to that module.
    fn symbol(&self, module: Option<&str>, name: &str) -> SymbolLookup;

    /// Any symbol, for `@SYM`.
    fn data_symbol(&self, name: &str) -> Option<GuestAddr>;

    /// Whether symbols of this module are known. A place in any other module is accepted and pending.
    fn has_module(&self, module: &str) -> bool;

    /// Checks that a probe can stand at `addr`, and returns where it really stands
    /// (x86: the start of a function that begins with ENDBR means the instruction after it).
    ///
    /// # Errors
    /// Not an instruction boundary, or not probeable for another reason.
    fn check_place(&self, addr: GuestAddr) -> Result<GuestAddr, PlaceError>;

    /// Whether `addr` is where a function is entered: its start, or where `check_place` moves it.
    fn is_function_entry(&self, addr: GuestAddr) -> bool;

    /// The symbol around an address.
    fn name_of(&self, addr: GuestAddr) -> Option<NamedAddr>;

    /// Of a name that stands for no place or no address: what the user may have meant, or why not. For people.
    fn hint(&self, name: &str) -> Option<String> {
        let _ = name;
        None
    }
}

/// Names for addresses of the running guest, asked when a record is printed or filtered.
pub trait SymbolNames {
    /// Writes `sym+0xoff/0xsize`, with ` [module]` behind it for a module, and returns true; writes nothing and
    /// returns false for an address in no symbol. Must not allocate: filters ask at the hit.
    fn name(&self, addr: u64, out: &mut dyn fmt::Write) -> bool;

    /// The address as linked: what a [`Target`] calls it.
    fn linked(&self, addr: u64) -> u64 {
        addr
    }
}

/// Knows no name: addresses are shown as numbers.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoNames;

impl SymbolNames for NoNames {
    fn name(&self, _addr: u64, _out: &mut dyn fmt::Write) -> bool {
        false
    }
}
