//! SPARC, by the SPARC V9 manual, appendix A.

use super::{Code, Insn, Kind};

/// `return %i7+8`, `ret`, `retl`.
const RETURNS: [u32; 3] = [0x81cf_e008, 0x81c7_e008, 0x81c3_e008];
const SETHI_NOP: u32 = 0x0100_0000;

/// The instructions of a function.
pub(super) fn read(addr: u64, words: &[u32]) -> Code {
    let places = (0u64..).step_by(4);
    // ILLTRAP fills the room between functions.
    let insns = places.zip(words).filter(|(_, word)| **word & 0xc1c0_0000 != 0);
    let insns = insns.map(|(offset, word)| Insn { offset, kind: kind(addr + offset, *word) }).collect();
    // `save` first; and no call whose slot gives the return address away, which is a jump.
    let begins = words.first().is_some_and(|word| word & 0xffff_c000 == 0x9de3_8000);
    let gives_away = |slot: u32| {
        let writes_o7 = slot >> 30 == 2 && slot >> 25 & 31 == 15;
        slot & 0xc1f8_0000 == 0x81e8_0000 || writes_o7
    };
    let tail = words.windows(2).any(|pair| pair[0] >> 30 == 1 && gives_away(pair[1]));
    Code { insns, is_c: begins && !tail, has_slots: true }
}

fn kind(addr: u64, word: u32) -> Kind {
    let target = |bits: u32| {
        let words = i64::from((word << (32 - bits)).cast_signed() >> (32 - bits));
        addr.wrapping_add_signed(words * 4)
    };
    let always = word >> 25 & 15 == 8;
    let by = |target: u64| if always { Kind::Jump(target) } else { Kind::Branch(target) };
    match (word >> 30, word >> 22 & 7, word >> 19 & 0x3f) {
        (0, 4, _) if word != SETHI_NOP => Kind::Plain,
        // Bicc and FBfcc have 22 bits, BPcc and FBPfcc 19, BPr 16 in two pieces.
        (0, 2 | 6, _) => by(target(22)),
        (0, 1 | 5, _) => by(target(19)),
        (0, 3, _) => {
            let field = (word >> 20 & 3) << 14 | word & 0x3fff;
            let words = i64::from((field << 16).cast_signed() >> 16);
            Kind::Branch(addr.wrapping_add_signed(words * 4))
        }
        (1, ..) => Kind::Call,
        _ if RETURNS.contains(&word) => Kind::Return,
        // jmpl with a link is a call. return, done and retry leave.
        (2, _, 0x38) if word >> 25 & 31 == 15 => Kind::Call,
        (2, _, 0x38 | 0x39 | 0x3e) => Kind::Indirect,
        // Arithmetic, logic, shifts, sethi: no division, nothing tagged, no register of the CPU's state.
        (2, _, 0x00..=0x09 | 0x0c | 0x10..=0x19 | 0x1c | 0x25..=0x27) => Kind::Plain,
        _ => Kind::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_words() {
        for (word, expected) in [
            (0x9de3_bf50, Kind::Other),          // save %sp, -176, %sp
            (0x9010_2001, Kind::Plain),          // mov 1, %o0
            (0x0300_0010, Kind::Plain),          // sethi %hi(0x4000), %g1
            (0x0100_0000, Kind::Other),          // nop
            (0xc25a_2008, Kind::Other),          // ldx [%o0 + 8], %g1
            (0x1080_0004, Kind::Jump(0x1010)),   // ba 0x1010
            (0x0280_0004, Kind::Branch(0x1010)), // be 0x1010
            (0x0248_0004, Kind::Branch(0x1010)), // be,pt %icc, 0x1010
            (0x02c2_0004, Kind::Branch(0x1010)), // brz,pn %o0, 0x1010
            (0x02f2_3ffe, Kind::Branch(0x0ff8)), // brz,pn %o0, 0xff8
            (0x4000_0010, Kind::Call),
            (0x81c7_e008, Kind::Return),
            (0x81cf_e008, Kind::Return),
            (0x9fc0_4000, Kind::Call),     // call %g1
            (0x81c0_4000, Kind::Indirect), // jmp %g1
            (0x83f0_0000, Kind::Indirect), // retry
            (0x81e8_0000, Kind::Other),    // restore
            (0x8268_4001, Kind::Other),    // udivx %g1, %g1, %g1
        ] {
            assert_eq!(kind(0x1000, word), expected, "{word:08x}");
        }
    }

    #[test]
    fn a_call_that_gives_its_return_address_away() {
        let (save, call, nop, restore, mov) = (0x9de3_bf50, 0x4000_0010, SETHI_NOP, 0x81e8_0000, 0x9e10_0001);
        assert!(read(0, &[save, call, nop]).is_c);
        assert!(!read(0, &[save, call, restore]).is_c);
        assert!(!read(0, &[save, call, mov]).is_c);
        assert!(!read(0, &[call, nop]).is_c);
    }
}
