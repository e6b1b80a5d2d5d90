//! Operand widths: 8, 16, 32 and 64 bits, and what a value of that width is.

/// An operand's width. Values are kept zero-extended in a `u64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Width {
    /// 8 bits.
    Byte,
    /// 16 bits.
    Word,
    /// 32 bits.
    Long,
    /// 64 bits.
    Quad,
}

impl Width {
    pub(super) fn from_bytes(bytes: usize) -> Option<Self> {
        match bytes {
            1 => Some(Self::Byte),
            2 => Some(Self::Word),
            4 => Some(Self::Long),
            8 => Some(Self::Quad),
            _ => None,
        }
    }

    pub(super) fn bytes(self) -> u8 {
        match self {
            Self::Byte => 1,
            Self::Word => 2,
            Self::Long => 4,
            Self::Quad => 8,
        }
    }

    pub(super) fn bits(self) -> u32 {
        u32::from(self.bytes()) * 8
    }

    pub(super) fn mask(self) -> u64 {
        u64::MAX >> (64 - self.bits())
    }

    /// The most significant bit.
    pub(super) fn top(self) -> u64 {
        1 << (self.bits() - 1)
    }

    /// The low bits of `value`.
    pub(super) fn trim(self, value: u64) -> u64 {
        value & self.mask()
    }

    /// The low bits of `value`, read as a signed number.
    pub(super) fn signed(self, value: u64) -> i64 {
        let unused = 64 - self.bits();
        (value << unused).cast_signed() >> unused
    }

    pub(super) fn is_negative(self, value: u64) -> bool {
        value & self.top() != 0
    }
}

#[cfg(test)]
mod tests {
    use super::Width;

    #[test]
    fn widths_cut_and_extend() {
        assert_eq!(Width::Byte.trim(0x1ff), 0xff);
        assert_eq!(Width::Quad.trim(u64::MAX), u64::MAX);
        assert_eq!(Width::Byte.signed(0x80), -128);
        assert_eq!(Width::Long.signed(0x1_7fff_ffff), 0x7fff_ffff);
        assert_eq!(Width::Quad.signed(u64::MAX), -1);
        assert_eq!(Width::Word.top(), 0x8000);
        assert!(Width::Long.is_negative(0x8000_0000));
        assert_eq!(Width::from_bytes(8), Some(Width::Quad));
        assert_eq!(Width::from_bytes(16), None);
    }
}
