//! The type behind an argument's colon: `u32`, `x8[16]`, `b4@12/32`, `string`, ...

use crate::number;

/// What a stored value means, and so how it is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TypeKind {
    /// `u8`..`u64` and bit-fields: decimal.
    Unsigned,
    /// `s8`..`s64`: decimal with a sign.
    Signed,
    /// `x8`..`x64`: hexadecimal.
    Hex,
    /// `char`: one byte.
    Char,
    /// `symbol`: an address, shown by name.
    Symbol,
    /// `symstr`: an address whose name is a string, also for filters.
    SymbolString,
    /// `string`: from kernel memory.
    String,
    /// `ustring`: from user memory.
    UserString,
}

impl TypeKind {
    /// Whether filters treat it as a string.
    #[must_use]
    pub const fn is_string(self) -> bool {
        matches!(self, Self::SymbolString | Self::String | Self::UserString)
    }
}

/// A part of a container, counted from its least significant bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bits {
    /// How many bits.
    pub width: u8,
    /// The lowest one.
    pub offset: u8,
}

/// An argument's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArgType {
    /// Meaning.
    pub kind: TypeKind,
    /// Bytes of one number; the guest's word for `symbol` and `symstr`; 4 for strings.
    pub bytes: u8,
    /// Set for bit-fields.
    pub bits: Option<Bits>,
    /// Elements, for arrays.
    pub count: Option<u8>,
}

impl ArgType {
    const fn plain(kind: TypeKind, bytes: u8) -> Self {
        Self { kind, bytes, bits: None, count: None }
    }

    /// What an argument without a type is: a hexadecimal word.
    #[must_use]
    pub const fn default_for(word_bytes: usize) -> Self {
        Self::plain(TypeKind::Hex, if word_bytes >= 8 { 8 } else { 4 })
    }

    /// A time on any guest.
    pub(crate) const NANOSECONDS: Self = Self::plain(TypeKind::Unsigned, 8);

    /// An address of code.
    pub(crate) const fn symbol(word_bytes: usize) -> Self {
        Self { kind: TypeKind::Symbol, ..Self::default_for(word_bytes) }
    }

    /// A string, as constants and `$comm` are.
    pub(crate) const STRING: Self = Self::plain(TypeKind::String, 4);

    /// Elements: 1 without an array.
    #[must_use]
    pub const fn elements(self) -> u8 {
        match self.count {
            Some(count) => count,
            None => 1,
        }
    }

    /// Whether two probes of one event may have these: bit-fields are compared by their container, as the kernel does.
    pub(crate) fn is_same(self, other: Self) -> bool {
        (self.kind, self.bytes, self.count) == (other.kind, other.bytes, other.count)
    }
}

/// Names with their meaning and size; a size of 0 is the guest's word.
const NAMES: [(&str, TypeKind, u8); 17] = [
    ("u8", TypeKind::Unsigned, 1),
    ("u16", TypeKind::Unsigned, 2),
    ("u32", TypeKind::Unsigned, 4),
    ("u64", TypeKind::Unsigned, 8),
    ("s8", TypeKind::Signed, 1),
    ("s16", TypeKind::Signed, 2),
    ("s32", TypeKind::Signed, 4),
    ("s64", TypeKind::Signed, 8),
    ("x8", TypeKind::Hex, 1),
    ("x16", TypeKind::Hex, 2),
    ("x32", TypeKind::Hex, 4),
    ("x64", TypeKind::Hex, 8),
    ("char", TypeKind::Char, 1),
    ("symbol", TypeKind::Symbol, 0),
    ("symstr", TypeKind::SymbolString, 0),
    ("string", TypeKind::String, 4),
    ("ustring", TypeKind::UserString, 4),
];

/// All type names, for suggestions.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    NAMES.iter().map(|(name, ..)| *name)
}

/// The type called `name`, without its array part. A bit-field gives its container here.
pub(crate) fn find(name: &str, word_bytes: usize) -> Option<ArgType> {
    if name.starts_with('b') {
        let (_, container) = name.split_once('/')?;
        let bytes = match number::unsigned(container, number::Radix::ByPrefix, word_bytes)? {
            8 => 1,
            16 => 2,
            32 => 4,
            64 => 8,
            _ => return None,
        };
        return Some(ArgType::plain(TypeKind::Unsigned, bytes));
    }
    let (_, kind, bytes) = NAMES.iter().find(|(known, ..)| *known == name)?;
    let word = if word_bytes >= 8 { 8 } else { 4 };
    Some(ArgType::plain(*kind, if *bytes == 0 { word } else { *bytes }))
}

/// The bits of `bW@O/S`, or `None` when they make no sense.
pub(crate) fn bits(name: &str, container_bytes: u8) -> Option<Bits> {
    let (width, rest) = number::leading(name.strip_prefix('b')?);
    let rest = rest.strip_prefix('@').filter(|_| width > 0)?;
    let (offset, end) = number::leading(rest);
    if end.len() == rest.len() || !end.starts_with('/') {
        return None;
    }
    let last = width.checked_add(offset)?;
    if last > u64::from(container_bytes) * 8 {
        return None;
    }
    Some(Bits { width: u8::try_from(width).ok()?, offset: u8::try_from(offset).ok()? })
}
