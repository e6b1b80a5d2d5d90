//! The fields of an instruction word. The Power ISA numbers bits from the most significant one, 0 to 31; so do the docs
//! here.

/// One word, as a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word(pub(super) u32);

impl Word {
    /// The primary opcode: bits 0 to 5.
    pub(super) const fn opcode(self) -> u32 {
        self.0 >> 26
    }

    /// Bits 6 to 10: RT, RS, BO, TO, BT.
    pub(super) const fn t(self) -> u32 {
        self.0 >> 21 & 31
    }

    /// Bits 11 to 15: RA, BI, BA.
    pub(super) const fn a(self) -> u32 {
        self.0 >> 16 & 31
    }

    /// Bits 16 to 20: RB, SH, BB.
    pub(super) const fn b(self) -> u32 {
        self.0 >> 11 & 31
    }

    /// Bits 21 to 25: RC, MB.
    pub(super) const fn c(self) -> u32 {
        self.0 >> 6 & 31
    }

    /// Bits 26 to 30: ME.
    pub(super) const fn e(self) -> u32 {
        self.0 >> 1 & 31
    }

    /// Bits 21 to 30: the extended opcode of the X and XL forms.
    pub(super) const fn extended(self) -> u32 {
        self.0 >> 1 & 0x3ff
    }

    /// Bits 16 to 31, sign-extended: SI, D.
    pub(super) const fn signed(self) -> i64 {
        self.0 as u16 as i16 as i64
    }

    /// Bits 16 to 31: UI.
    pub(super) const fn unsigned(self) -> u64 {
        self.0 as u16 as u64
    }

    /// Bit 31: Rc, LK.
    pub(super) const fn last(self) -> bool {
        self.0 & 1 != 0
    }

    /// Bit 30: AA, and in other forms the lowest bit of an extended opcode.
    pub(super) const fn is_absolute(self) -> bool {
        self.0 & 2 != 0
    }

    /// The displacement of a `b`, sign-extended.
    pub(super) const fn long_displacement(self) -> i64 {
        ((self.0 << 6) as i32 >> 6) as i64 & !3
    }

    /// The displacement of a `bc`, sign-extended.
    pub(super) const fn short_displacement(self) -> i64 {
        self.signed() & !3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_lie_where_the_manual_has_them() {
        // rlwinm r29,r3,28,27,3 with Rc
        let word = Word(0x547d_e6c7);
        assert_eq!([word.opcode(), word.t(), word.a(), word.b(), word.c(), word.e()], [21, 3, 29, 28, 27, 3]);
        assert!(word.last());
        // addi r1,r1,-32
        assert_eq!((Word(0x3821_ffe0).signed(), Word(0x3821_ffe0).unsigned()), (-32, 0xffe0));
        // b .-4; bne .-8; ba 0x1000; add r3,r4,r5
        assert_eq!(Word(0x4bff_fffc).long_displacement(), -4);
        assert_eq!(Word(0x4082_fff8).short_displacement(), -8);
        assert!(Word(0x4800_1002).is_absolute());
        assert_eq!(Word(0x7c64_2a14).extended(), 266);
    }
}
