//! Where a kernel replaces instructions of its own text by others of other lengths when it boots: alternatives, calls through the tables
//! of paravirtualization, and calls of retpolines. Its tables of these places are in the image; x86 kernels alone have them, because
//! elsewhere all instructions have one length.
//!
//! What is replaced by an instruction of the same length (jump labels, ftrace's calls, static calls) is not asked for: there an
//! instruction begins where one began before. Nor are returns, behind which nothing runs.

use std::sync::OnceLock;

use qkprobe_arch::{ByteOrder, GuestAddr};

use crate::bytes::{read_u32, read_word};
use crate::image::{Segment, bytes_at};
use crate::table::{Lookup, SymbolTable};

/// No instruction is longer, so no call of a retpoline is.
const LONGEST: u64 = 15;
/// No table of a kernel is longer.
const MAX_TABLE_BYTES: u64 = 16 << 20;

/// The places, worked out when first asked for.
#[derive(Debug, Default)]
pub(crate) struct PatchSites(OnceLock<Vec<(u64, u64)>>);

impl PatchSites {
    /// The place that has one of these bytes: `(first address, address after the last)`.
    pub(crate) fn around(
        &self,
        symbols: &SymbolTable,
        segments: &[Segment],
        start: GuestAddr,
        end: GuestAddr,
    ) -> Option<(GuestAddr, GuestAddr)> {
        let sites = self.0.get_or_init(|| read(symbols, segments));
        let above = sites.partition_point(|(first, _)| *first < end.0);
        let (first, after) = *sites.get(above.checked_sub(1)?)?;
        (after > start.0).then_some((GuestAddr(first), GuestAddr(after)))
    }
}

/// All of them, sorted and disjoint.
fn read(symbols: &SymbolTable, segments: &[Segment]) -> Vec<(u64, u64)> {
    let table = |first: &str, end: &str| {
        let one = |name| match symbols.lookup(None, name) {
            Lookup::One(symbol) => Some(symbol.addr),
            _ => None,
        };
        let (first, end) = (one(first)?, one(end)?);
        let len = end.0.checked_sub(first.0).filter(|len| *len <= MAX_TABLE_BYTES)?;
        Some((first.0, bytes_at(segments, first, usize::try_from(len).ok()?)?))
    };
    let is_text = |addr: u64| symbols.is_kernel_text(GuestAddr(addr)).unwrap_or(true);
    let mut sites = Vec::new();
    if let Some((addr, bytes)) = table("__alt_instructions", "__alt_instructions_end") {
        sites.extend(alternatives(addr, bytes, &is_text));
    }
    if let Some((_, bytes)) = table("__parainstructions", "__parainstructions_end") {
        sites.extend(paravirt(bytes, &is_text));
    }
    if let Some((addr, bytes)) = table("__retpoline_sites", "__retpoline_sites_end") {
        let calls = (0..bytes.len()).step_by(4).filter_map(|offset| relative(addr, bytes, offset));
        sites.extend(calls.filter(|call| is_text(*call)).map(|call| (call, call.saturating_add(1))));
    }
    crate::table::merge_extents(sites)
}

/// The address that 4 bytes of a table say relative to their own.
fn relative(table: u64, bytes: &[u8], offset: usize) -> Option<u64> {
    let distance = i64::from(read_u32(bytes, offset, ByteOrder::Little)?.cast_signed());
    Some(table.wrapping_add(offset as u64).wrapping_add_signed(distance))
}

/// `struct alt_instr`, packed: two relative addresses, the feature (2 bytes; with flags 4 since Linux 6.3, 5df6e7a4ee2f), the
/// length of the text, that of the replacement, and until Linux 5.12 that of a padding.
fn alternatives(table: u64, bytes: &[u8], is_text: &dyn Fn(u64) -> bool) -> Vec<(u64, u64)> {
    const FORMS: [(usize, usize); 3] = [(14, 12), (12, 10), (13, 10)];
    let read = |(entry, len_at): (usize, usize)| {
        if !bytes.len().is_multiple_of(entry) {
            return None;
        }
        (0..bytes.len())
            .step_by(entry)
            .map(|offset| {
                let addr = relative(table, bytes, offset).filter(|addr| is_text(*addr))?;
                let len = u64::from(*bytes.get(offset + len_at)?);
                Some((addr, addr.checked_add(len)?))
            })
            .collect()
    };
    FORMS.into_iter().find_map(read).unwrap_or_default()
}

/// `struct paravirt_patch_site`, until Linux 6.7: an address, a type and a length of one byte each, padded to words.
fn paravirt(bytes: &[u8], is_text: &dyn Fn(u64) -> bool) -> Vec<(u64, u64)> {
    let read = |word: usize| {
        (0..bytes.len())
            .step_by(2 * word)
            .map(|offset| {
                let addr = read_word(bytes, offset, ByteOrder::Little, word).filter(|addr| is_text(*addr))?;
                let len = u64::from(*bytes.get(offset + word + 1)?).min(LONGEST);
                Some((addr, addr.checked_add(len)?))
            })
            .collect()
    };
    [8, 4].into_iter().find_map(read).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: u64 = 0xffff_ffff_8100_0000;
    const TABLES: u64 = TEXT + 0x2000;

    /// A kernel with these tables, one after the other from [`TABLES`] on.
    fn sites(tables: &[(&'static str, &'static str, Vec<u8>)]) -> impl Fn(u64, u64) -> Option<(u64, u64)> + use<> {
        let mut bytes = Vec::new();
        let mut rows = vec![(TEXT, 'T', "_text"), (TEXT + 0x1000, 'T', "_etext"), (TEXT + 0x9000, 'B', "_end")];
        for (first, end, table) in tables {
            rows.push((TABLES + bytes.len() as u64, 'R', *first));
            bytes.extend_from_slice(table);
            rows.push((TABLES + bytes.len() as u64, 'R', *end));
        }
        let rows = rows.into_iter().map(|(addr, kind, name)| (GuestAddr(addr), kind, name, None));
        let symbols = SymbolTable::from_rows(rows).unwrap();
        let segments =
            [Segment { addr: GuestAddr(TABLES), phys: 0, bytes: bytes.as_slice().into(), executable: false }];
        let sites = PatchSites::default();
        move |start, end| {
            let found = sites.around(&symbols, &segments, GuestAddr(TEXT + start), GuestAddr(TEXT + end));
            found.map(|(first, after)| (first.0 - TEXT, after.0 - TEXT))
        }
    }

    /// An entry of `size` bytes at `at` of the table for `len` bytes of text at `text`.
    fn alternative(at: u64, text: u64, len: u8, size: usize) -> Vec<u8> {
        let mut entry = vec![0; size];
        let distance = (TEXT + text).wrapping_sub(TABLES + at) as u32;
        entry[..4].copy_from_slice(&distance.to_le_bytes());
        entry[if size == 14 { 12 } else { 10 }] = len;
        entry
    }

    #[test]
    fn alternatives_of_every_version() {
        for size in [12, 13, 14] {
            let table = [(0, 0x100, 5), (size as u64, 0x40, 12), (2 * size as u64, 0x200, 0)];
            let table = table.iter().flat_map(|(at, text, len)| alternative(*at, *text, *len, size)).collect();
            let around = sites(&[("__alt_instructions", "__alt_instructions_end", table)]);
            assert_eq!(around(0x102, 0x104), Some((0x100, 0x105)), "{size}");
            assert_eq!(around(0x0f0, 0x101), Some((0x100, 0x105)), "{size}");
            assert_eq!(around(0x40, 0x41), Some((0x40, 0x4c)), "{size}");
            for (start, end) in [(0x0f0, 0x100), (0x105, 0x10a), (0x4c, 0x50), (0x200, 0x204), (0, 0x40)] {
                assert_eq!(around(start, end), None, "{size} {start:#x}");
            }
        }
    }

    #[test]
    fn paravirtualization_and_retpolines() {
        let mut calls = Vec::new();
        for (text, len) in [(0x300_u64, 6_u8), (0x400, 7)] {
            calls.extend((TEXT + text).to_le_bytes());
            calls.extend([3, len, 0, 0, 0, 0, 0, 0]);
        }
        let retpoline = (TEXT + 0x500).wrapping_sub(TABLES + 32) as u32;
        let around = sites(&[
            ("__parainstructions", "__parainstructions_end", calls),
            ("__retpoline_sites", "__retpoline_sites_end", retpoline.to_le_bytes().to_vec()),
        ]);
        assert_eq!((around(0x302, 0x304), around(0x406, 0x407)), (Some((0x300, 0x306)), Some((0x400, 0x407))));
        assert_eq!((around(0x4fe, 0x505), around(0x501, 0x506)), (Some((0x500, 0x501)), None));
    }

    #[test]
    fn tables_that_are_none() {
        let absurd = vec![0xff; 42];
        let around = sites(&[("__alt_instructions", "__alt_instructions_end", absurd)]);
        assert_eq!(around(0, 0x1000), None);
        assert_eq!(sites(&[])(0, 0x1000), None);
    }
}
