//! The addresses of the names: where they lie and how they are written depends on the kernel's version and
//! configuration, and nothing says which. So all forms are tried; one must put known symbols where they can be.

use super::Area;
use super::names::{Decoded, Names};
use super::tokens::Tokens;
use crate::GuestAddr;
use crate::bytes::{read_u32, read_word};
use crate::image::{Segment, bytes_at};

/// How one table is written.
#[derive(Clone, Copy, Debug)]
enum Form {
    /// 4 bytes, added to the base.
    Relative { base: u64 },
    /// 4 bytes with sign: from 0 on an address itself (per-CPU), below 0 the complement of what is added to the base.
    RelativeOrPerCpu { base: u64 },
    /// 4 bytes with sign, added to the address of these 4 bytes.
    OwnPlace,
    /// The address, one word.
    Absolute,
}

/// How many tables are tried at most.
pub(super) const FORMS: usize = 13;

/// One of these must be known, and those that are must lie in the image.
const ANCHORS: [&str; 4] = ["_text", "_stext", "start_kernel", "linux_banner"];

/// The address of each name, in order.
pub(super) fn find(
    area: Area<'_>,
    segments: &[Segment],
    tokens: &Tokens<'_>,
    names: &Names,
    decoded: &Decoded,
) -> Option<Vec<u64>> {
    let anchors: Vec<(usize, &str)> = decoded
        .iter()
        .enumerate()
        .filter_map(|(index, row)| Some((index, *ANCHORS.iter().find(|anchor| **anchor == row.name)?)))
        .take(64)
        .collect();
    if anchors.is_empty() {
        return None;
    }
    candidates(area, tokens, names)
        .into_iter()
        .filter_map(|(at, form)| addresses(area, at, form, names.count))
        .find(|addresses| plausible(addresses, &anchors, segments))
}

/// Places and forms, the newest kernels' first.
fn candidates(area: Area<'_>, tokens: &Tokens<'_>, names: &Names) -> Vec<(usize, Form)> {
    let word = area.word_bytes;
    let mut found = Vec::new();
    let mut relative = |at: usize, base_at: usize| {
        if let Some(base) = read_word(area.bytes, base_at, area.order, word) {
            found.push((at, Form::Relative { base }));
            found.push((at, Form::RelativeOrPerCpu { base }));
        }
    };
    for alignment in area.alignments() {
        let behind = area.align(tokens.index_end, *alignment);
        relative(behind, area.align(behind + 4 * names.count, *alignment));
        let base_at = names.count_at.checked_sub(word);
        let before = base_at.and_then(|base| base.checked_sub((4 * names.count).next_multiple_of(*alignment)));
        if let (Some(at), Some(base_at)) = (before, base_at) {
            relative(at, base_at);
        }
    }
    for alignment in area.alignments() {
        let behind = area.align(tokens.index_end, *alignment);
        found.push((behind, Form::OwnPlace));
        found.push((behind, Form::Absolute));
    }
    found.extend(names.count_at.checked_sub(word * names.count).map(|at| (at, Form::Absolute)));
    found
}

/// Reads one table; `None` where it does not fit or does not ascend, as all of them do.
fn addresses(area: Area<'_>, at: usize, form: Form, count: usize) -> Option<Vec<u64>> {
    let mask = if area.word_bytes == 4 { u64::from(u32::MAX) } else { u64::MAX };
    let entry_bytes = if matches!(form, Form::Absolute) { area.word_bytes } else { 4 };
    let table = area.bytes.get(at..at.checked_add(count.checked_mul(entry_bytes)?)?)?;
    let mut last = 0;
    let mut addresses = Vec::with_capacity(count);
    for index in 0..count {
        let offset = index * entry_bytes;
        let number = || read_u32(table, offset, area.order);
        let signed = || number().map(|number| i64::from(number.cast_signed()));
        let addr = match form {
            Form::Relative { base } => base.wrapping_add(u64::from(number()?)),
            Form::RelativeOrPerCpu { base } => match signed()? {
                offset @ 0.. => offset.cast_unsigned(),
                offset => base.wrapping_add((-1 - offset).cast_unsigned()),
            },
            Form::OwnPlace => area.base.wrapping_add((at + offset) as u64).wrapping_add(signed()?.cast_unsigned()),
            Form::Absolute => read_word(table, offset, area.order, area.word_bytes)?,
        } & mask;
        if addr < last {
            return None;
        }
        last = addr;
        addresses.push(addr);
    }
    Some(addresses)
}

fn plausible(addresses: &[u64], anchors: &[(usize, &str)], segments: &[Segment]) -> bool {
    anchors.iter().all(|(index, name)| {
        let Some(addr) = addresses.get(*index) else { return false };
        let text = bytes_at(segments, GuestAddr(*addr), 14);
        match *name {
            "linux_banner" => text == Some(b"Linux version "),
            _ => text.is_some(),
        }
    })
}
