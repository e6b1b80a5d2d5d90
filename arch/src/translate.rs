//! A walk of the guest's page tables in software, an optional ability of an ISA: for guests in which QEMU's own virtual
//! accesses disturb the vCPU (sparc64: a miss in the TLB leaves an exception pending), so that memory is read
//! physically.
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use crate::GuestAddr;

/// Whose mapping an address is looked up in. They may overlap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AddressSpace {
    /// The kernel's.
    Kernel,
    /// That of the process whose page tables the CPU has loaded.
    User,
}

/// The guest's memory by physical address.
pub trait PhysicalMemory {
    /// Fills `bytes`; false where there is no memory. Nothing is read that lies across a page's end.
    fn read(&mut self, physical: u64, bytes: &mut [u8]) -> bool;
}

/// A symbol of the kernel that its paging cannot be followed without.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the kernel has no symbol {name}, without which its page tables are not found")]
pub struct NoSuchSymbol {
    /// Its name.
    pub name: &'static str,
}

/// The ability itself.
pub trait Translate {
    /// Prepares to follow one kernel's page tables. `symbol` gives the linked address of a symbol; it is asked for all
    /// that will be needed, and not kept.
    ///
    /// # Errors
    /// A symbol is missing.
    fn paging(&self, symbol: &dyn Fn(&str) -> Option<GuestAddr>) -> Result<Box<dyn Paging>, NoSuchSymbol>;
}

/// How one kernel lays out its memory. May be asked by all vCPUs at once; allocates nothing.
pub trait Paging: Send + Sync + std::fmt::Debug {
    /// The physical address behind a virtual one. It holds up to the end of the page (`page_bytes`). `cpu` is the
    /// number that the kernel has for the CPU which is asked. `None` for what is not mapped, while the kernel has not
    /// set up what the walk needs, and for tables that make no sense: whatever the memory holds, the walk reads a fixed
    /// number of words.
    fn physical(&self, addr: GuestAddr, space: AddressSpace, cpu: u32, memory: &mut dyn PhysicalMemory) -> Option<u64>;

    /// The smallest page. A power of two.
    fn page_bytes(&self) -> u64;

    /// A kernel starts: what was learned of the one before it does not hold.
    fn forget(&self);
}
