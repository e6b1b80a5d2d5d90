//! A small kernel image to resolve against, and a guest with registers and sparse memory.

use std::collections::HashMap;
use std::fmt;

use qkprobe_arch::{Arch, GuestAddr, RegisterId};
use qkprobe_lang::{
    Command, Definition, Events, HitContext, NamedAddr, PAGE_BYTES, PlaceError, Space, SymbolLookup, SymbolNames,
    Target, parse,
};

pub(crate) const VFS_READ: u64 = 0xffff_ffff_8144_5480;
pub(crate) const BANNER: u64 = 0xffff_ffff_8200_0100;

/// Functions: name, start, size.
const FUNCTIONS: [(&str, u64, u64); 10] = [
    ("vfs_read", VFS_READ, 0x370),
    ("vfs_write", 0xffff_ffff_8144_5d50, 0x400),
    ("ksys_read", 0xffff_ffff_8144_6200, 0xf0),
    ("kfree", 0xffff_ffff_8130_0000, 0x100),
    ("kernel_clone", 0xffff_ffff_8108_0000, 0x300),
    ("do_exit", 0xffff_ffff_8109_0000, 0xa00),
    ("get_kprobe", 0xffff_ffff_8110_0000, 0x40),
    ("exc_page_fault", 0xffff_ffff_8190_0000, 0x200),
    ("__switch_to", 0xffff_ffff_8102_0000, 0x400),
    ("foo.isra.0", 0xffff_ffff_8103_0000, 0x40),
];
/// Every function begins with ENDBR, and these offsets are boundaries.
const BOUNDARIES: [u64; 10] = [0, 4, 9, 11, 13, 16, 20, 24, 40, 48];

#[derive(Debug)]
pub(crate) struct FakeKernel;

impl FakeKernel {
    fn function(addr: GuestAddr) -> Option<(&'static str, u64, u64)> {
        FUNCTIONS.into_iter().find(|(_, start, size)| (*start..start + size).contains(&addr.0))
    }
}

impl Target for FakeKernel {
    fn arch(&self) -> &dyn Arch {
        &qkprobe_arch::x86::X86_64
    }

    fn symbol(&self, module: Option<&str>, name: &str) -> SymbolLookup {
        if name == "name_show" {
            return SymbolLookup::Many(vec![GuestAddr(0x1000), GuestAddr(0x2000)]);
        }
        let found = FUNCTIONS.iter().find(|(known, ..)| *known == name && module.is_none());
        match found {
            Some((_, start, size)) => SymbolLookup::One { addr: GuestAddr(*start), size: *size },
            None => SymbolLookup::None,
        }
    }

    fn data_symbol(&self, name: &str) -> Option<GuestAddr> {
        (name == "linux_proc_banner").then_some(GuestAddr(BANNER))
    }

    fn has_module(&self, module: &str) -> bool {
        module == "ext4"
    }

    fn check_place(&self, addr: GuestAddr) -> Result<GuestAddr, PlaceError> {
        let Some((_, start, _)) = Self::function(addr) else {
            return Err(PlaceError::Other(2, "in no function".to_owned()));
        };
        match addr.0 - start {
            0 => Ok(addr.wrapping_add(4)),
            offset if BOUNDARIES.contains(&offset) => Ok(addr),
            _ => Err(PlaceError::Boundary(String::new())),
        }
    }

    fn is_function_entry(&self, addr: GuestAddr) -> bool {
        Self::function(addr).is_some_and(|(_, start, _)| addr.0 == start || addr.0 == start + 4)
    }

    fn name_of(&self, addr: GuestAddr) -> Option<NamedAddr> {
        let (symbol, start, size) = Self::function(addr)?;
        Some(NamedAddr { symbol: symbol.to_owned(), offset: addr.0 - start, size, module: None })
    }

    fn hint(&self, name: &str) -> Option<String> {
        (name == "vfs_raed").then(|| "did you mean vfs_read?".to_owned())
    }
}

impl SymbolNames for FakeKernel {
    fn name(&self, addr: u64, out: &mut dyn fmt::Write) -> bool {
        let Some((name, start, size)) = Self::function(GuestAddr(addr)) else { return false };
        write!(out, "{name}+{:#x}/{size:#x}", addr - start).is_ok()
    }
}

/// A guest. Reads across a page, which the language must not do, panic.
#[derive(Debug, Default)]
pub(crate) struct FakeGuest {
    pub(crate) registers: HashMap<u8, u64>,
    pub(crate) pages: HashMap<u64, Vec<u8>>,
    pub(crate) slide: Option<u64>,
    pub(crate) saved: Vec<u64>,
    pub(crate) next_pc: Option<u64>,
    /// When the function was entered, and how long it took.
    pub(crate) times: Option<(u64, u64)>,
    /// Numbers of pages that cannot be written.
    pub(crate) read_only: Vec<u64>,
    /// Number of accesses so far.
    pub(crate) register_reads: usize,
    pub(crate) memory_reads: usize,
    pub(crate) user_reads: usize,
}

impl FakeGuest {
    pub(crate) fn new() -> Self {
        Self { slide: Some(0), ..Self::default() }
    }

    pub(crate) fn set(mut self, register: &str, value: u64) -> Self {
        let id = FakeKernel.arch().register(register).expect("a register");
        self.registers.insert(id.0, value);
        self
    }

    pub(crate) fn poke(mut self, addr: u64, bytes: &[u8]) -> Self {
        for (addr, byte) in (addr..).zip(bytes) {
            let page = self.pages.entry(addr / PAGE_BYTES).or_insert_with(|| vec![0; PAGE_BYTES as usize]);
            page[(addr % PAGE_BYTES) as usize] = *byte;
        }
        self
    }
}

impl HitContext for FakeGuest {
    fn register(&mut self, id: RegisterId) -> Option<u64> {
        self.register_reads += 1;
        self.registers.get(&id.0).copied()
    }

    fn read(&mut self, space: Space, addr: GuestAddr, out: &mut [u8]) -> bool {
        self.memory_reads += 1;
        self.user_reads += usize::from(space == Space::User);
        let offset = (addr.0 % PAGE_BYTES) as usize;
        assert!(!out.is_empty() && offset + out.len() <= PAGE_BYTES as usize, "{addr}: {} bytes", out.len());
        let Some(page) = self.pages.get(&(addr.0 / PAGE_BYTES)) else { return false };
        out.copy_from_slice(&page[offset..offset + out.len()]);
        true
    }

    fn slide(&mut self, addr: GuestAddr) -> Option<GuestAddr> {
        Some(addr.wrapping_add(self.slide?))
    }

    fn saved(&mut self, index: usize) -> Option<u64> {
        self.saved.get(index).copied()
    }

    fn next_pc(&mut self) -> Option<u64> {
        self.next_pc
    }

    fn entry_time(&mut self) -> Option<u64> {
        self.times.map(|(entry, _)| entry)
    }

    fn latency(&mut self) -> Option<u64> {
        self.times.map(|(_, latency)| latency)
    }
}

/// The definition of a good line.
pub(crate) fn define(line: &str) -> Definition {
    match parse(line, &FakeKernel, &Events::new()) {
        Ok(Command::Add(definition)) => definition,
        Ok(other) => panic!("{line}: {other:?}"),
        Err(error) => panic!("{error}"),
    }
}

/// Runs a definition's program; the record.
pub(crate) fn record(definition: &Definition, guest: &mut FakeGuest) -> Vec<u8> {
    let mut out = vec![0xaa; definition.program.max_len()];
    let len = definition.program.run(guest, &mut out);
    out.truncate(len);
    out
}

/// What a definition shows at one hit.
pub(crate) fn show(line: &str, guest: &mut FakeGuest) -> String {
    let definition = define(line);
    let record = record(&definition, guest);
    let mut out = Vec::new();
    definition.print_ftrace(&record, &FakeKernel, &mut out);
    String::from_utf8(out).expect("UTF-8")
}
