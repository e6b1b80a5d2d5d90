//! Reading a record back. Any bytes may be handed in: what lies outside them counts as not readable.
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use qkprobe_arch::ByteOrder;

use super::{Field, Program};
use crate::arg::TypeKind;

/// One element of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Element<'a> {
    /// It could not be read.
    Fault,
    /// A number, zero-extended.
    Number(u64),
    /// A string.
    Bytes(&'a [u8]),
}

/// Element `index` of a field that is stored.
#[inline]
pub(crate) fn element<'a>(field: &Field, record: &'a [u8], index: u8) -> Element<'a> {
    let bit = usize::from(field.first_element) + usize::from(index);
    match record.get(bit / 8) {
        Some(byte) if byte >> (bit % 8) & 1 == 0 => {}
        _ => return Element::Fault,
    }
    let width = usize::from(field.bytes);
    let at = usize::from(field.offset) + usize::from(index) * width;
    let Some(stored) = record.get(at..at + width) else { return Element::Fault };
    let number = match *stored {
        [a] => u64::from(a),
        [a, b] => u64::from(u16::from_le_bytes([a, b])),
        [a, b, c, d] => u64::from(u32::from_le_bytes([a, b, c, d])),
        [a, b, c, d, e, f, g, h] => u64::from_le_bytes([a, b, c, d, e, f, g, h]),
        _ => return Element::Fault,
    };
    if !matches!(field.kind, TypeKind::String | TypeKind::UserString) {
        return Element::Number(number);
    }
    let (start, len) = ((number & 0xffff) as usize, (number >> 16 & 0xffff) as usize);
    record.get(start..start + len).map_or(Element::Fault, Element::Bytes)
}

/// An array of numbers as the one number that its bytes are in the guest's memory, if numbers can be so long.
#[inline]
pub(crate) fn whole<'a>(field: &Field, order: ByteOrder, record: &'a [u8]) -> Element<'a> {
    let mut number = 0_u64;
    if !matches!(usize::from(field.bytes) * usize::from(field.count), 1 | 2 | 4 | 8) {
        return Element::Fault;
    }
    for (index, place) in (0..field.count).zip(0_u32..) {
        let Element::Number(part) = element(field, record, index) else { return Element::Fault };
        let place = match order {
            ByteOrder::Little => place,
            ByteOrder::Big => u32::from(field.count) - 1 - place,
        };
        // At most 7 bytes: all elements together have 8.
        number |= part.wrapping_shl(place * u32::from(field.bytes) * 8);
    }
    Element::Number(number)
}

/// All elements of a field.
#[inline]
pub(crate) fn elements<'a>(field: &'a Field, record: &'a [u8]) -> impl Iterator<Item = Element<'a>> {
    (0..field.count).map(move |index| element(field, record, index))
}

impl Program {
    /// Number `index` of a record whose arguments are single numbers, as an entry program's are: what
    /// `HitContext::saved` answers with. `None` when it could not be read.
    #[must_use]
    pub fn number(&self, record: &[u8], index: usize) -> Option<u64> {
        match element(self.fields.get(index)?, record, 0) {
            Element::Number(number) => Some(number),
            _ => None,
        }
    }
}
