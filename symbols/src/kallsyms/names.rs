//! `kallsyms_names`: per symbol a length and that many token numbers, and `kallsyms_markers`: where every 256th
//! begins. They lie before the token table; the count lies before the names.

use super::tokens::Tokens;
use super::{Area, Budget};
use crate::bytes::read_u32;

/// One marker for so many names.
const NAMES_PER_MARKER: usize = 256;
/// The kernel's KSYM_NAME_LEN is 512 since 6.1; a packed name is no longer than the name.
const MAX_PACKED_BYTES: usize = 1024;
const MAX_NAME_BYTES: usize = 1024;
const MAX_NAME_BYTES_TOTAL: usize = 128 << 20;
/// How far the bytes that one marker spans may reach.
const MAX_MARKER_STEP: usize = NAMES_PER_MARKER * (MAX_PACKED_BYTES + 2);
/// 10 times what a distribution kernel has.
const MAX_NAMES: usize = 2_000_000;

/// Where the names lie.
pub(super) struct Names {
    pub(super) count: usize,
    /// Offset of the count in the area.
    pub(super) count_at: usize,
    names_at: usize,
}

/// All names, unpacked.
pub(super) struct Decoded {
    arena: String,
    rows: Vec<(char, usize, usize)>,
}

/// One of them.
pub(super) struct Row<'a> {
    pub(super) kind: char,
    pub(super) name: &'a str,
}

impl Decoded {
    pub(super) fn iter(&self) -> impl Iterator<Item = Row<'_>> {
        self.rows
            .iter()
            .map(|(kind, start, end)| Row { kind: *kind, name: self.arena.get(*start..*end).unwrap_or_default() })
    }
}

/// Finds the names that `tokens` unpack: every marker must be where a name begins.
pub(super) fn find(area: Area<'_>, tokens: &Tokens<'_>, budget: &mut Budget) -> Option<Names> {
    // Nearest first: the markers end at the token table, except where the order of names (6.2, 6.3) is in between.
    let reach = MAX_NAMES * 3 + MAX_NAMES / NAMES_PER_MARKER * 4 + 64;
    let mut markers = area.align(tokens.start, 4);
    while markers >= 4 && tokens.start.saturating_sub(markers) < reach {
        markers -= 4;
        budget.spend(1)?;
        if read_u32(area.bytes, markers, area.order) != Some(0) {
            continue;
        }
        let run = run_of_markers(area, markers, tokens.start);
        budget.spend(run)?;
        // A run of one is no evidence; that many symbols no kernel has, except in tests, right before the tokens.
        if run == 1 && tokens.start - markers > 4 + 3 * NAMES_PER_MARKER + 16 {
            continue;
        }
        // What follows the markers may look like some more of them.
        for count in (run.saturating_sub(3).max(1)..=run).rev() {
            for alignment in area.alignments() {
                if let Some(names) = before_markers(area, tokens, markers, count, *alignment, budget)? {
                    return Some(names);
                }
            }
        }
    }
    None
}

/// How many numbers from `at` on ascend as markers do.
fn run_of_markers(area: Area<'_>, at: usize, end: usize) -> usize {
    let mut last = 0;
    let mut count = 1;
    while at + 4 * count + 4 <= end {
        let Some(next) = read_u32(area.bytes, at + 4 * count, area.order) else { break };
        // A packed name has a length and at least one token.
        let step = (next as usize).saturating_sub(last);
        if !(2 * NAMES_PER_MARKER..=MAX_MARKER_STEP).contains(&step) {
            break;
        }
        last = next as usize;
        count += 1;
    }
    count
}

/// Outer `None`: the budget is spent.
#[expect(clippy::option_option, reason = "`?` on the budget, and found or not")]
fn before_markers(
    area: Area<'_>,
    tokens: &Tokens<'_>,
    markers: usize,
    marker_count: usize,
    alignment: usize,
    budget: &mut Budget,
) -> Option<Option<Names>> {
    let Some(last) = read_u32(area.bytes, markers + 4 * (marker_count - 1), area.order) else { return Some(None) };
    let markers_end = area.align(markers + 4 * marker_count, alignment);
    let Some(highest) = markers.checked_sub(last as usize) else { return Some(None) };
    let lowest = highest.saturating_sub(MAX_MARKER_STEP + alignment).max(alignment);
    let mut names_at = area.align(highest, alignment);
    while names_at >= lowest + alignment {
        names_at -= alignment;
        budget.spend(1)?;
        let count_at = names_at - alignment;
        let Some(count) = read_u32(area.bytes, count_at, area.order).map(|count| count as usize) else { continue };
        if count == 0 || count > MAX_NAMES || count.div_ceil(NAMES_PER_MARKER) != marker_count {
            continue;
        }
        let order_end = area.align(markers_end + 3 * count, alignment);
        if tokens.start != markers_end && tokens.start != order_end {
            continue;
        }
        budget.spend(count)?;
        if agree(area, names_at, count, markers, alignment) {
            return Some(Some(Names { count, count_at, names_at }));
        }
    }
    Some(None)
}

/// Do `count` names from `names_at` begin where the markers say, and end right before them?
fn agree(area: Area<'_>, names_at: usize, count: usize, markers: usize, alignment: usize) -> bool {
    let mut at = names_at;
    for number in 0..count {
        if number % NAMES_PER_MARKER == 0 {
            let marker = read_u32(area.bytes, markers + number / NAMES_PER_MARKER * 4, area.order);
            if marker.map(|marker| marker as usize) != Some(at - names_at) {
                return false;
            }
        }
        let Some((start, length)) = packed(area, at) else { return false };
        at = start + length;
        if at > markers {
            return false;
        }
    }
    area.align(at, alignment) == markers
}

/// The packed name at `at`: its first token's offset and how many. Lengths from 128 on take two bytes (since 6.1).
fn packed(area: Area<'_>, at: usize) -> Option<(usize, usize)> {
    let low = usize::from(*area.bytes.get(at)?);
    let (start, length) =
        if low < 0x80 { (at + 1, low) } else { (at + 2, (low & 0x7f) | usize::from(*area.bytes.get(at + 1)?) << 7) };
    (1..=MAX_PACKED_BYTES).contains(&length).then_some((start, length))
}

/// Unpacks all names; `None` when one is no text or has no name behind its type letter.
pub(super) fn decode(area: Area<'_>, tokens: &Tokens<'_>, names: &Names) -> Option<Decoded> {
    let mut arena = String::new();
    let mut rows = Vec::with_capacity(names.count);
    let mut at = names.names_at;
    let mut name = Vec::new();
    for _ in 0..names.count {
        let (start, length) = packed(area, at)?;
        name.clear();
        for token in area.bytes.get(start..start + length)? {
            name.extend_from_slice(tokens.strings.get(usize::from(*token))?);
            if name.len() > MAX_NAME_BYTES {
                return None;
            }
        }
        at = start + length;
        let (kind, text) = name.split_first()?;
        let text = std::str::from_utf8(text).ok().filter(|text| !text.is_empty())?;
        if !kind.is_ascii_graphic() || arena.len() + text.len() > MAX_NAME_BYTES_TOTAL {
            return None;
        }
        let name_start = arena.len();
        arena.push_str(text);
        rows.push((char::from(*kind), name_start, arena.len()));
    }
    Some(Decoded { arena, rows })
}
