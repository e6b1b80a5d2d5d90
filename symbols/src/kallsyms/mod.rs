//! The symbol table that a kernel carries for itself (CONFIG_KALLSYMS), read out of an image without symbols.
//!
//! Nothing points to it, so it is found by content, in this order: `tokens` finds the table of the 256 strings that
//! names are packed with (its digits and letters stand for themselves) and the index behind it, which proves it;
//! `names` finds the packed names and their markers before it; `addresses` tries the places and encodings that
//! Linux 5.10 to 7.x use for addresses, and takes the one under which known symbols lie where they must.
//!
//! | Linux | before the token table | behind the token index |
//! | --- | --- | --- |
//! | 5.10 to 6.1 | offsets, relative base, count, names, markers | |
//! | 6.2, 6.3 | the same, then the order of names (3 bytes each) | |
//! | 6.4 to 6.19 | count, names, markers | offsets, relative base, order of names |
//! | 7.x | the same, 4-byte aligned | offsets relative to their own place, order of names |
//!
//! Without CONFIG_KALLSYMS_BASE_RELATIVE whole addresses stand in place of the offsets. x86_64 before 6.15 stores
//! per-CPU symbols as they are, and others as the ones' complement of their offset (ABSOLUTE_PERCPU).

mod addresses;
mod names;
mod tokens;

#[cfg(test)]
mod tests;

use qkprobe_arch::ByteOrder;

use crate::error::ErrorKind;
use crate::image::Segment;
use crate::table::Builder;

/// The segment that is searched.
#[derive(Clone, Copy)]
struct Area<'a> {
    bytes: &'a [u8],
    base: u64,
    order: ByteOrder,
    word_bytes: usize,
}

impl Area<'_> {
    /// `offset`, moved up so that its address is a multiple of `to` (4 or 8).
    fn align(&self, offset: usize, to: usize) -> usize {
        let skew = (self.base & 7) as usize;
        offset.saturating_add(skew).saturating_add(to - 1) / to * to - skew
    }

    /// The alignments that the assembler's labels may have.
    fn alignments(&self) -> &'static [usize] {
        if self.word_bytes == 8 { &[8, 4] } else { &[4] }
    }
}

/// Steps that the whole search may take; a real image needs some ten millions. Keeps hostile images from hanging it.
struct Budget(u64);

impl Budget {
    const STEPS: u64 = 1 << 29;

    /// `None` when it is used up.
    fn spend(&mut self, steps: usize) -> Option<()> {
        self.0 = self.0.saturating_sub(steps as u64);
        (self.0 > 0).then_some(())
    }
}

/// Adds what the kallsyms of an image names to `builder`.
///
/// # Errors
/// There is none, or none of the known layouts fits; the text says how far the search came.
pub(crate) fn read(
    segments: &[Segment],
    order: ByteOrder,
    word_bytes: usize,
    mut builder: Builder,
) -> Result<Builder, ErrorKind> {
    let mut budget = Budget(Budget::STEPS);
    let mut came_to = "no table of name tokens";
    for segment in segments {
        let area = Area { bytes: &segment.bytes, base: segment.addr.0, order, word_bytes };
        for digits in tokens::digits(area) {
            if budget.spend(tokens::STEPS).is_none() {
                break;
            }
            let Some(table) = tokens::at(area, digits) else { continue };
            let Some(names) = names::find(area, &table, &mut budget) else {
                came_to = "a table of name tokens, but no names before it";
                continue;
            };
            if budget.spend(names.count * addresses::FORMS).is_none() {
                break;
            }
            let Some(decoded) = names::decode(area, &table, &names) else {
                came_to = "packed names, but they are no text";
                continue;
            };
            let Some(addresses) = addresses::find(area, segments, &table, &names, &decoded) else {
                came_to = "names, but no table of addresses under which _text, _stext or start_kernel lie in the image";
                continue;
            };
            for (row, addr) in decoded.iter().zip(addresses) {
                builder.push(addr, row.kind, row.name, None)?;
            }
            return Ok(builder);
        }
    }
    Err(ErrorKind::NoSymbols(came_to.into()))
}
