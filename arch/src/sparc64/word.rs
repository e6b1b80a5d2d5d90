//! The fields of an instruction word (The SPARC Architecture Manual, Version 9, chapter 6 and appendix A).

/// `%o6`, the stack pointer.
pub(super) const SP: u32 = 14;
/// `%o7`, where `call` puts its own address.
pub(super) const O7: u32 = 15;
/// `%i7`, the same after a `save`.
pub(super) const I7: u32 = 31;

/// One instruction, 4 bytes, big endian in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word(pub(super) u32);

impl Word {
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.first_chunk::<4>().map(|bytes| Self(u32::from_be_bytes(*bytes)))
    }

    /// `count` bits from bit `low` on.
    pub(super) const fn bits(self, low: u32, count: u32) -> u32 {
        self.0 >> low & ((1 << count) - 1)
    }

    pub(super) const fn bit(self, number: u32) -> bool {
        self.bits(number, 1) != 0
    }

    /// The same, as a signed number.
    pub(super) const fn signed(self, low: u32, count: u32) -> i64 {
        sign_extend(self.bits(low, count), count)
    }

    pub(super) const fn op(self) -> u32 {
        self.bits(30, 2)
    }

    pub(super) const fn op2(self) -> u32 {
        self.bits(22, 3)
    }

    pub(super) const fn op3(self) -> u32 {
        self.bits(19, 6)
    }

    pub(super) const fn opf(self) -> u32 {
        self.bits(5, 9)
    }

    pub(super) const fn rd(self) -> u32 {
        self.bits(25, 5)
    }

    pub(super) const fn rs1(self) -> u32 {
        self.bits(14, 5)
    }

    pub(super) const fn rs2(self) -> u32 {
        self.bits(0, 5)
    }

    /// The second operand is a constant.
    pub(super) const fn is_immediate(self) -> bool {
        self.bit(13)
    }

    /// The condition of a branch, a trap or an integer register move on condition codes.
    pub(super) const fn cond(self) -> u32 {
        self.bits(25, 4)
    }
}

/// The low `count` bits of `value`, the highest of which is the sign.
pub(super) const fn sign_extend(value: u32, count: u32) -> i64 {
    let shift = 64 - count;
    ((value as u64) << shift).cast_signed() >> shift
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_lie_where_the_manual_says() {
        // save  %sp, -176, %sp
        let word = Word::from_bytes(&[0x9d, 0xe3, 0xbf, 0x50, 0xff]).expect("4 bytes");
        assert_eq!((word.op(), word.op3(), word.rd(), word.rs1()), (2, 0x3c, SP, SP));
        assert!(word.is_immediate());
        assert_eq!(word.signed(0, 13), -176);
        assert_eq!(Word::from_bytes(&[0x9d, 0xe3, 0xbf]), None);
    }

    #[test]
    fn signs_are_extended() {
        assert_eq!(sign_extend(0x3f_ffff, 22), -1);
        assert_eq!(sign_extend(0x1f_ffff, 22), 0x1f_ffff);
        assert_eq!(sign_extend(0xffff_ffff, 30), -1);
        assert_eq!(sign_extend(0x10, 5), -16);
    }
}
