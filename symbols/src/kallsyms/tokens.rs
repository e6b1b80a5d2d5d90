//! `kallsyms_token_table`: 256 NUL-terminated strings, and `kallsyms_token_index`: where each begins.

use super::Area;
use crate::bytes::read_u16;

/// The digits occur in symbols, so that their tokens stand for themselves.
const DIGITS: &[u8] = b"0\x001\x002\x003\x004\x005\x006\x007\x008\x009\x00";
const FIRST_DIGIT: usize = b'0' as usize;
/// The tokens of a kernel have some 1,000 bytes together.
const MAX_TABLE_BYTES: usize = 0x4000;

/// A token table whose index agrees with it.
pub(super) struct Tokens<'a> {
    pub(super) strings: Vec<&'a [u8]>,
    /// Offset of the table in the area.
    pub(super) start: usize,
    /// Offset behind the index.
    pub(super) index_end: usize,
}

/// What `at` costs, about.
pub(super) const STEPS: usize = 64;

/// Where the digits stand one by one; one of these places is in the token table.
pub(super) fn digits(area: Area<'_>) -> impl Iterator<Item = usize> {
    memchr::memmem::find_iter(area.bytes, DIGITS)
}

/// The token table whose token `0` is at `digits`, when an index behind it agrees.
pub(super) fn at<'a>(area: Area<'a>, digits: usize) -> Option<Tokens<'a>> {
    let behind = area.bytes.get(digits..)?;
    let behind = behind.get(..MAX_TABLE_BYTES).unwrap_or(behind);
    let last_nul = memchr::memchr_iter(0, behind).nth(255 - FIRST_DIGIT)?;
    let table_end = digits + last_nul + 1;

    let before = area.bytes.get(digits.saturating_sub(MAX_TABLE_BYTES)..digits)?;
    let first_nul = memchr::memrchr_iter(0, before).nth(FIRST_DIGIT - 1)?;
    let second_token = digits - before.len() + first_nul + 1;

    area.alignments().iter().find_map(|alignment| {
        let index = area.align(table_end, *alignment);
        // The index says how long the first token is, which its text cannot: padding comes before it.
        let start = second_token.checked_sub(usize::from(read_u16(area.bytes, index + 2, area.order)?))?;
        let mut strings = Vec::with_capacity(256);
        let mut token = start;
        for number in 0..256 {
            if usize::from(read_u16(area.bytes, index + 2 * number, area.order)?) != token - start {
                return None;
            }
            let rest = area.bytes.get(token..table_end)?;
            let string = rest.get(..memchr::memchr(0, rest)?)?;
            strings.push(string);
            token += string.len() + 1;
        }
        (token == table_end).then_some(Tokens { strings, start, index_end: index + 512 })
    })
}
