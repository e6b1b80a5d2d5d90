//! The symbol table: every name in one arena, entries sorted by address, a hash index by name.
//!
//! Order among symbols of one address is the order of the source, because the kernel's own look-up takes the first of
//! them (`kernel/kallsyms.c`, `get_symbol_pos`); a size is the distance to the next higher address, as the kernel
//! prints it in `sym+0xoff/0xsize`.

mod lookup;
mod merge;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};

use qkprobe_arch::GuestAddr;

use crate::error::ErrorKind;
use crate::naming::{self, Naming};
pub use lookup::Lookup;

/// No kernel has a tenth of either.
const MAX_NAME_BYTES_TOTAL: usize = 128 << 20;
pub(crate) const MAX_SYMBOLS: usize = 4_000_000;
/// The size given to a module's last symbol when nothing tells where the module ends.
const MAX_UNBOUNDED_SIZE: u64 = 64 << 10;
const NO_MODULE: u16 = u16::MAX;
const NONE: u32 = u32::MAX;

/// One symbol, as a view into its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Symbol<'a> {
    /// The name that the kernel goes by, without module.
    pub name: &'a str,
    /// The name as the compiler made it: what `name` begins.
    pub whole_name: &'a str,
    /// Its link-time (or, from /proc/kallsyms, run-time) address.
    pub addr: GuestAddr,
    /// Bytes to the next higher address that has a symbol; 0 when nothing lies above.
    pub size: u64,
    /// The letter that nm gives: `T`/`t` text, `D`/`d` data, `B`/`b` bss, `R`/`r` read-only, `W`/`V` weak, `A` absolute.
    pub kind: char,
    /// Does it lie in text? The kernel's answer (between `_stext` and `_etext`, or `_sinittext` and `_einittext`) when
    /// these are known, else the letter's. The letter alone misleads: since Linux 6.16 x86 kernels have an executable
    /// `.data`, and all static data in it is `t`.
    pub text: bool,
    /// The module, `None` for the kernel itself.
    pub module: Option<&'a str>,
}

/// What a look-up needs of a symbol, in one cache line.
#[derive(Clone, Copy)]
struct Entry {
    addr: u64,
    name_start: u32,
    next_same_name: u32,
    /// Of the name that the kernel goes by.
    name_bytes: u16,
    /// Of all of it.
    whole_bytes: u16,
    module: u16,
    kind: u8,
}
const _: () = assert!(size_of::<Entry>() == 24);

/// All symbols of one or more images.
#[derive(Clone, Default)]
pub struct SymbolTable {
    /// Sorted. The addresses of `entries` once more, dense, because a search by address touches many.
    addrs: Vec<u64>,
    entries: Vec<Entry>,
    /// Open addressing, a power of two: a part of each name's hash, and its first entry.
    slots: Vec<(u32, u32)>,
    hasher: RandomState,
    names: String,
    naming: Naming,
    modules: Vec<String>,
    /// Where the image has memory: sorted, disjoint. Empty when the source does not say.
    extents: Vec<(u64, u64)>,
    /// Where the kernel itself says that it begins and ends. `None` when the marks are not there.
    kernel: Option<(u64, u64)>,
    /// Where the kernel itself says that text lies. Empty when the marks are not there.
    text: Vec<(u64, u64)>,
}

impl fmt::Debug for SymbolTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SymbolTable({} symbols, {} modules)", self.len(), self.modules.len())
    }
}

/// Collects symbols in source order.
#[derive(Default)]
pub(crate) struct Builder {
    rows: Vec<Entry>,
    names: String,
    modules: Vec<String>,
    module_ids: HashMap<String, u16>,
    extents: Vec<(u64, u64)>,
}

impl Builder {
    pub(crate) fn push(&mut self, addr: u64, kind: char, name: &str, module: Option<&str>) -> Result<(), ErrorKind> {
        let start = self.names.len();
        let (Ok(name_start), Ok(name_bytes)) = (u32::try_from(start), u16::try_from(name.len())) else {
            return Err(ErrorKind::TooManyNames);
        };
        if start + name.len() > MAX_NAME_BYTES_TOTAL || self.rows.len() >= MAX_SYMBOLS {
            return Err(ErrorKind::TooManyNames);
        }
        let module = match module {
            None => NO_MODULE,
            Some(module) => self.module_id(module)?,
        };
        self.names.push_str(name);
        let kind = u8::try_from(kind).unwrap_or(b'?');
        let whole_bytes = name_bytes;
        self.rows.push(Entry { addr, name_start, next_same_name: NONE, name_bytes, whole_bytes, module, kind });
        Ok(())
    }

    fn module_id(&mut self, module: &str) -> Result<u16, ErrorKind> {
        if let Some(id) = self.module_ids.get(module) {
            return Ok(*id);
        }
        let id = u16::try_from(self.modules.len()).ok().filter(|id| *id != NO_MODULE);
        let id = id.ok_or(ErrorKind::TooManyNames)?;
        self.modules.push(module.to_owned());
        self.module_ids.insert(module.to_owned(), id);
        Ok(id)
    }

    /// A builder of the same image's other symbols.
    pub(crate) fn only_extents(&self) -> Self {
        Self { extents: self.extents.clone(), ..Self::default() }
    }

    /// States where the image has memory: `(first address, address after the last)`.
    pub(crate) fn extents(&mut self, extents: impl IntoIterator<Item = (u64, u64)>) {
        self.extents.extend(extents);
    }

    pub(crate) fn finish(mut self) -> SymbolTable {
        // Stable: aliases keep the order of the source.
        self.rows.sort_by_key(|row| row.addr);
        let mut table = SymbolTable {
            addrs: self.rows.iter().map(|row| row.addr).collect(),
            entries: self.rows,
            names: self.names,
            modules: self.modules,
            extents: merge_extents(self.extents),
            ..SymbolTable::default()
        };
        table.index_names();
        table.text = table.text_by_marks();
        table.kernel = table.kernel_by_marks();
        table
    }
}

/// Sorted and disjoint.
pub(crate) fn merge_extents(mut extents: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    extents.retain(|(start, end)| start < end);
    extents.sort_unstable();
    let mut merged: Vec<(u64, u64)> = Vec::new();
    for (start, end) in extents {
        match merged.last_mut() {
            Some(last) if start <= last.1 => last.1 = last.1.max(end),
            _ => merged.push((start, end)),
        }
    }
    merged
}

impl SymbolTable {
    /// A table of `(address, nm letter, name, module)` rows; rows of one address keep their order.
    /// For callers that get symbols from elsewhere than a file, and for tests.
    ///
    /// # Errors
    /// A name of more than 65,535 bytes, more than 4 million names, or more than 128 MiB of them.
    pub fn from_rows<'a>(
        rows: impl IntoIterator<Item = (GuestAddr, char, &'a str, Option<&'a str>)>,
    ) -> Result<Self, ErrorKind> {
        let mut builder = Builder::default();
        for (addr, kind, name, module) in rows {
            builder.push(addr.0, kind, name, module)?;
        }
        Ok(builder.finish())
    }

    /// How many symbols.
    #[must_use]
    pub fn len(&self) -> usize {
        self.addrs.len()
    }

    /// Is there none?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.addrs.is_empty()
    }

    /// All symbols, by ascending address.
    pub fn iter(&self) -> impl Iterator<Item = Symbol<'_>> + '_ {
        (0..self.len()).filter_map(|index| self.symbol(index))
    }

    /// The symbol that covers `addr`, and how far in `addr` lies. Among aliases the first, as the kernel names it.
    #[must_use]
    pub fn containing(&self, addr: GuestAddr) -> Option<(Symbol<'_>, u64)> {
        let last = self.addrs.partition_point(|a| *a <= addr.0).checked_sub(1)?;
        let start = *self.addrs.get(last)?;
        let symbol = self.symbol(self.first_alias(last, start))?;
        let offset = addr.0 - start;
        let covered = offset == 0 || offset < symbol.size;
        let in_memory = symbol.module.is_some() || self.is_kernel_memory(addr);
        (covered && in_memory).then_some((symbol, offset))
    }

    /// Can `addr` be one of the kernel's own, as far as is known? Not every symbol's value is: x86_64 kernels before 6.15 have the
    /// offsets of their per-CPU variables among them (`cpu_debug_store` is 0x1000), and linker scripts name numbers. The kernel's
    /// look-ups by address ask the same (`is_ksym_addr`, `kernel/kallsyms.c`).
    #[must_use]
    pub fn is_kernel_memory(&self, addr: GuestAddr) -> bool {
        self.kernel.is_none_or(|(start, end)| (start..end).contains(&addr.0))
            && (self.extents.is_empty() || self.extent_of(addr.0).is_some())
    }

    /// `(first address, address after the last)` of the kernel, when marks say.
    pub(crate) fn kernel_range(&self) -> Option<(u64, u64)> {
        self.kernel
    }

    /// Does `addr` lie in the kernel's own text, as the marks in its symbols say? `None` without marks.
    #[must_use]
    pub fn is_kernel_text(&self, addr: GuestAddr) -> Option<bool> {
        (!self.text.is_empty()).then(|| self.text.iter().any(|(start, end)| (*start..*end).contains(&addr.0)))
    }

    /// `(first address, address after the last)` of text and of init text, as far as marks say.
    pub(crate) fn text_ranges(&self) -> &[(u64, u64)] {
        &self.text
    }

    /// Does any symbol belong to this module?
    #[must_use]
    pub fn has_module(&self, module: &str) -> bool {
        self.modules.iter().any(|known| known == module)
    }

    /// From here on the symbols have the names that the kernel of this banner goes by (see `naming`).
    pub(crate) fn name_as_kernel(&mut self, banner: Option<&str>) {
        let naming = Naming::of(banner, self.entries.iter().filter_map(|entry| self.whole_name(*entry)));
        self.set_naming(naming);
    }

    pub(super) fn set_naming(&mut self, naming: Naming) {
        if naming == self.naming {
            return;
        }
        self.naming = naming;
        for index in 0..self.entries.len() {
            let Some(whole) = self.entries.get(index).and_then(|entry| self.whole_name(*entry)) else { continue };
            let kept = u16::try_from(naming.kept(whole)).ok();
            if let Some((entry, kept)) = self.entries.get_mut(index).zip(kept) {
                entry.name_bytes = kept;
            }
        }
        self.index_names();
    }

    /// The symbols whose name in the source is that of `name`, functions first, their parts last.
    #[must_use]
    pub fn spellings(&self, name: &str) -> Vec<Symbol<'_>> {
        let source = naming::in_source(name);
        let is_same = |entry: &Entry| self.whole_name(*entry).is_some_and(|whole| naming::in_source(whole) == source);
        let indices = self.entries.iter().enumerate().filter(|(_, entry)| is_same(entry)).map(|(index, _)| index);
        let mut found: Vec<_> = indices.filter_map(|index| self.symbol(index)).filter(|_| !source.is_empty()).collect();
        let is_part = |name: &str| naming::before_function(name).is_some() || name.contains(".cold");
        found.sort_by_key(|symbol| (!symbol.text, is_part(symbol.whole_name)));
        found
    }

    /// Up to three names like `name`, best first, for "did you mean".
    #[must_use]
    pub fn similar(&self, name: &str) -> Vec<&str> {
        crate::similar::most_similar(
            name,
            self.entries.iter().filter_map(|entry| Some((self.name(*entry)?, entry.kind))),
        )
    }

    /// By ascending address, each with its index: the rows that a look-up for `name` finds.
    fn rows_found(&self, name: &str) -> impl Iterator<Item = (usize, Entry)> {
        let kept = name.get(..self.naming.kept(name)).unwrap_or(name);
        self.rows_named(kept).filter(move |(_, entry)| {
            // The kernel leaves nothing away in look-ups of modules' symbols.
            let by_kept = entry.module == NO_MODULE && kept.len() == name.len();
            let by_whole = entry.module != NO_MODULE || self.naming.takes_whole;
            by_kept || (by_whole && self.whole_name(*entry) == Some(name))
        })
    }

    /// The rows of this name.
    fn rows_named(&self, name: &str) -> impl Iterator<Item = (usize, Entry)> {
        let row = |index: u32| Some((index as usize, *self.entries.get(index as usize)?));
        let first = self.slot_of(name).0.and_then(|slot| self.slots.get(slot)).map_or(NONE, |slot| slot.1);
        std::iter::successors(row(first), move |(_, entry)| row(entry.next_same_name))
    }

    fn symbol(&self, index: usize) -> Option<Symbol<'_>> {
        let entry = *self.entries.get(index)?;
        let kind = char::from(entry.kind);
        let addr = GuestAddr(entry.addr);
        let by_letter = matches!(kind, 'T' | 't' | 'W' | 'w' | 'i');
        let by_marks = if entry.module == NO_MODULE { self.is_kernel_text(addr) } else { None };
        Some(Symbol {
            name: self.name(entry)?,
            whole_name: self.whole_name(entry)?,
            addr,
            size: self.size(index, entry),
            kind,
            text: by_marks.unwrap_or(by_letter),
            module: self.module(entry),
        })
    }

    fn size(&self, index: usize, entry: Entry) -> u64 {
        let above = self.entries.get(index..).unwrap_or_default();
        // Aliases are few: walk, and search only past many.
        let next = match above.iter().take(8).position(|other| other.addr != entry.addr) {
            Some(aliases) => aliases,
            None => above.partition_point(|other| other.addr == entry.addr),
        };
        let next = above.get(next);
        let distance = next.map(|next| next.addr - entry.addr);
        match distance {
            Some(distance) if next.is_some_and(|next| next.module == entry.module) => distance,
            _ if entry.module != NO_MODULE => distance.unwrap_or(MAX_UNBOUNDED_SIZE).min(MAX_UNBOUNDED_SIZE),
            _ => self.extent_of(entry.addr).map_or(0, |(_, end)| end - entry.addr),
        }
    }

    /// The first entry at the address `start`, which `last` has too.
    fn first_alias(&self, last: usize, start: u64) -> usize {
        let below = self.addrs.get(..last).unwrap_or_default();
        match below.iter().rev().take(8).position(|addr| *addr != start) {
            Some(aliases) => last - aliases,
            None => below.partition_point(|addr| *addr < start),
        }
    }

    fn extent_of(&self, addr: u64) -> Option<(u64, u64)> {
        let above = self.extents.partition_point(|(start, _)| *start <= addr);
        self.extents.get(above.checked_sub(1)?).copied().filter(|(_, end)| addr < *end)
    }

    fn name(&self, entry: Entry) -> Option<&str> {
        let start = entry.name_start as usize;
        self.names.get(start..start + usize::from(entry.name_bytes))
    }

    fn whole_name(&self, entry: Entry) -> Option<&str> {
        let start = entry.name_start as usize;
        self.names.get(start..start + usize::from(entry.whole_bytes))
    }

    fn module(&self, entry: Entry) -> Option<&str> {
        self.modules.get(usize::from(entry.module)).map(String::as_str)
    }

    /// The slot that holds `name`, or the free one where it belongs; and the tag to write there.
    fn slot_of(&self, name: &str) -> (Option<usize>, u32) {
        let hash = self.hasher.hash_one(name);
        #[allow(clippy::cast_possible_truncation, reason = "any part of a hash will do")]
        let (mut slot, tag) = (hash as usize, (hash >> 32) as u32);
        loop {
            slot &= self.slots.len().wrapping_sub(1);
            let Some((other, first)) = self.slots.get(slot).copied() else { return (None, tag) };
            let same = || self.entries.get(first as usize).and_then(|entry| self.name(*entry)) == Some(name);
            if first == NONE || other == tag && same() {
                return (Some(slot), tag);
            }
            slot += 1;
        }
    }

    fn index_names(&mut self) {
        let count = self.entries.len();
        self.entries.iter_mut().for_each(|entry| entry.next_same_name = NONE);
        self.slots = vec![(0, NONE); (count * 2).next_power_of_two()];
        // Backwards, so that each chain ascends.
        for index in (0..count).rev() {
            let Some(entry) = self.entries.get(index).copied() else { continue };
            let Some((Some(slot), tag)) = self.name(entry).map(|name| self.slot_of(name)) else { continue };
            let Ok(id) = u32::try_from(index) else { continue };
            if let (Some(first), Some(entry)) = (self.slots.get_mut(slot), self.entries.get_mut(index)) {
                entry.next_same_name = std::mem::replace(first, (tag, id)).1;
            }
        }
    }

    /// The address of a symbol that the kernel has once.
    fn mark(&self, name: &str) -> Option<u64> {
        let mut core = self.rows_named(name).filter(|(_, entry)| entry.module == NO_MODULE);
        core.next().filter(|_| core.next().is_none()).map(|(_, entry)| entry.addr)
    }

    /// With `_text` for kernels that start before `_stext`.
    fn start_mark(&self) -> Option<u64> {
        [self.mark("_text"), self.mark("_stext")].into_iter().flatten().min()
    }

    /// The kernel's rule (`core_kernel_text`).
    fn text_by_marks(&self) -> Vec<(u64, u64)> {
        let ranges = [self.start_mark().zip(self.mark("_etext")), self.mark("_sinittext").zip(self.mark("_einittext"))];
        merge_extents(ranges.into_iter().flatten().collect())
    }

    fn kernel_by_marks(&self) -> Option<(u64, u64)> {
        self.start_mark().zip(self.mark("_end")).filter(|(start, end)| start < end)
    }
}
