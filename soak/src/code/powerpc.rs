//! PowerPC, by the Power ISA 3.1, Book I.

use super::{Code, Insn, Kind};

/// A nop, which the kernel may replace by a branch.
const NOP: u32 = 0x6000_0000;
const BLR: u32 = 0x4e80_0020;
/// `mflr r0`: what a function that calls others begins with, among its first words.
const MFLR_R0: u32 = 0x7c08_02a6;
const PROLOGUE: usize = 4;

/// X-form and XO-form instructions on general registers, by their extended opcode: or, and, xor, nor, andc, extsb, extsh, extsw,
/// cntlzw, add, subf, neg, mullw, slw, srw, srawi, cmp, cmpl, mfspr of LR.
const PLAIN_31: [u32; 17] = [444, 28, 316, 124, 60, 954, 922, 986, 26, 266, 40, 104, 235, 24, 536, 0, 32];

/// The instructions of a function.
pub(super) fn read(addr: u64, words: &[u32]) -> Code {
    let places = (0u64..).step_by(4);
    // Primary opcode 0 is none: an address between the code.
    let insns = places.zip(words).filter(|(_, word)| **word >> 26 != 0);
    let insns = insns.map(|(offset, word)| Insn { offset, kind: kind(addr + offset, *word) }).collect();
    let is_c = words.iter().take(PROLOGUE).any(|word| *word == MFLR_R0);
    Code { insns, is_c, has_slots: false }
}

/// 2.4 (branches), 3.3 (fixed-point instructions).
fn kind(addr: u64, word: u32) -> Kind {
    let target = |field: u32, bits: u32| {
        let offset = i64::from((field << (32 - bits)).cast_signed() >> (32 - bits));
        if word & 2 == 0 { addr.wrapping_add_signed(offset) } else { offset.cast_unsigned() }
    };
    match word >> 26 {
        _ if word == NOP => Kind::Other,
        // addi, addis, ori, oris, xori, xoris, andi., andis., rlwinm, rlwimi, cmpi, cmpli; the rotates of doublewords.
        14 | 15 | 24..=29 | 20 | 21 | 10 | 11 | 30 => Kind::Plain,
        31 if PLAIN_31.contains(&(word >> 1 & 0x3ff)) => Kind::Plain,
        18 if word & 1 == 1 => Kind::Call,
        18 => Kind::Jump(target(word & 0x03ff_fffc, 26)),
        16 if word & 1 == 1 => Kind::Call,
        16 => Kind::Branch(target(word & 0xfffc, 16)),
        19 if word == BLR => Kind::Return,
        // bclr and bcctr: with a link they are calls. rfid and the like leave too.
        19 if matches!(word >> 1 & 0x3ff, 16 | 528) && word & 1 == 1 => Kind::Call,
        19 if matches!(word >> 1 & 0x3ff, 16 | 528 | 18 | 50 | 274 | 82) => Kind::Indirect,
        17 => Kind::Indirect,
        _ => Kind::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_words() {
        for (word, expected) in [
            (0x3821_0020, Kind::Plain),          // addi r1,r1,32
            (0x7c08_02a6, Kind::Other),          // mflr r0
            (0x7fe3_fb78, Kind::Plain),          // mr r3,r31
            (0x7863_0020, Kind::Plain),          // clrldi r3,r3,32
            (0xe861_0028, Kind::Other),          // ld r3,40(r1)
            (0x4800_0010, Kind::Jump(0x1010)),   // b .+16
            (0x4bff_fff0, Kind::Jump(0xff0)),    // b .-16
            (0x4bff_fff1, Kind::Call),           // bl .-16
            (0x4182_0008, Kind::Branch(0x1008)), // beq .+8
            (0x4082_fff8, Kind::Branch(0xff8)),  // bne .-8
            (0x4e80_0020, Kind::Return),
            (0x4d82_0020, Kind::Indirect), // beqlr
            (0x4e80_0420, Kind::Indirect), // bctr
            (0x4e80_0421, Kind::Call),     // bctrl
            (0x6000_0000, Kind::Other),
            (0x7fe0_0008, Kind::Other), // trap
        ] {
            assert_eq!(kind(0x1000, word), expected, "{word:08x}");
        }
    }
}
