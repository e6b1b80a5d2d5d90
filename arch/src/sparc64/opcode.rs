//! Which words are instructions: the opcode maps of The SPARC Architecture Manual, Version 9 (appendix E), with what
//! UltraSPARC (VIS), JPS1, UltraSPARC Architecture 2007 and Oracle SPARC Architecture 2015 added. Reserved fields must
//! be 0, as GNU binutils has it too for nearly all of them: data between functions is then seldom taken for code.

use super::word::Word;

pub(super) fn is_valid(word: Word) -> bool {
    match word.op() {
        0 => is_branch_or_sethi(word),
        1 => true,
        2 => is_computation(word),
        _ => is_memory_access(word),
    }
}

fn is_branch_or_sethi(word: Word) -> bool {
    match word.op2() {
        // illtrap
        0 => word.rd() == 0,
        // BPcc: of cc only icc (00) and xcc (10).
        1 => !word.bit(20),
        // Bicc, sethi, FBPfcc, FBfcc
        2 | 4 | 5 | 6 => true,
        // CBcond, and BPr
        3 if word.bit(28) => word.bits(25, 3) != 0,
        3 => !matches!(word.bits(25, 3), 0 | 4),
        _ => false,
    }
}

/// A register operand leaves bits 5 to 12 unused.
fn has_operand(word: Word) -> bool {
    word.is_immediate() || word.bits(5, 8) == 0
}

fn is_computation(word: Word) -> bool {
    match word.op3() {
        // aes_*, des_*, kasumi_*, camellia_f
        0x19 => word.bits(5, 4) <= 12,
        0x1d => false,
        0x00..=0x24 | 0x2d => has_operand(word),
        0x25..=0x27 => is_shift(word),
        // membar, stbar; rd %asr
        0x28 if word.is_immediate() => word.rd() == 0 && word.rs1() == 15 && word.bits(7, 6) == 0,
        0x28 => word.bits(0, 13) == 0,
        0x29 => word.bits(0, 14) == 0 && is_hyperprivileged(word.rs1(), true),
        0x2a => word.bits(0, 14) == 0 && is_privileged(word.rs1()),
        // flushw
        0x2b => word.rd() == 0 && word.bits(0, 19) == 0,
        0x2c => is_move_on_condition(word),
        // popc
        0x2e => word.rs1() == 0 && has_operand(word),
        // movr
        0x2f => {
            let is_known = !matches!(word.bits(10, 3), 0 | 4);
            is_known && (word.is_immediate() || word.bits(5, 5) == 0)
        }
        // wr %asr, sir
        0x30 => has_operand(word),
        // saved, restored, allclean, otherw, normalw, invalw
        0x31 => word.rd() <= 5 && word.bits(0, 19) == 0,
        0x32 => has_operand(word) && is_privileged(word.rd()),
        0x33 => has_operand(word) && is_hyperprivileged(word.rd(), false),
        0x34 => is_float_operation(word),
        0x35 => is_float_compare_or_move(word),
        0x36 => is_vis(word.opf()),
        // Fused multiply-add, and the unfused one.
        0x37 => matches!(word.bits(5, 4), 0 | 1 | 2 | 4 | 5 | 6 | 9 | 10 | 13 | 14),
        0x3f => matches!(word.bits(5, 4), 1 | 2 | 5 | 6 | 9 | 10 | 13 | 14),
        // jmpl, return, flush, save, restore
        0x38 | 0x39 | 0x3b | 0x3c | 0x3d => has_operand(word),
        // Tcc: of cc only icc (00) and xcc (10).
        0x3a => {
            let is_reserved = word.bit(29) || word.bit(11);
            let unused = if word.is_immediate() { word.bits(8, 3) } else { word.bits(5, 6) };
            !is_reserved && unused == 0
        }
        // done, retry
        0x3e => word.rd() <= 1 && word.bits(0, 19) == 0,
        _ => false,
    }
}

fn is_shift(word: Word) -> bool {
    let is_wide = word.bit(12);
    match (word.is_immediate(), is_wide) {
        (true, true) => word.bits(6, 6) == 0,
        (true, false) | (false, _) => word.bits(5, 7) == 0,
    }
}

fn is_move_on_condition(word: Word) -> bool {
    // Of the integer condition codes only icc (00) and xcc (10).
    let is_integer = word.bit(18);
    let is_reserved = is_integer && word.bit(11);
    !is_reserved && (word.is_immediate() || word.bits(5, 6) == 0)
}

/// tpc to wstate, fq (15), gl; 23 is pmcdper, 31 ver.
const fn is_privileged(number: u32) -> bool {
    matches!(number, 0..=16 | 23 | 31)
}

/// `hver` (6) can only be read.
const fn is_hyperprivileged(number: u32, reads: bool) -> bool {
    matches!(number, 0 | 1 | 3 | 5 | 23 | 24 | 27..=29 | 31) || (number == 6 && reads)
}

fn is_float_operation(word: Word) -> bool {
    let has_one_operand = word.rs1() == 0;
    match word.opf() {
        // fmov, fneg, fabs, fsqrt; conversions
        0x01..=0x03 | 0x05..=0x07 | 0x09..=0x0b | 0x29..=0x2b => has_one_operand,
        0x81..=0x84 | 0x88 | 0x8c => has_one_operand,
        0xc4 | 0xc6..=0xc9 | 0xcb..=0xce | 0xd1..=0xd3 => has_one_operand,
        // fadd, fsub, fmul, fdiv; of products; of halves and negated
        0x41..=0x43 | 0x45..=0x47 | 0x49..=0x4b | 0x4d..=0x4f => true,
        0x51 | 0x52 | 0x59 | 0x5a | 0x61 | 0x62 | 0x65 | 0x66 | 0x69 | 0x6e | 0x71 | 0x72 | 0x79 => true,
        _ => false,
    }
}

fn is_float_compare_or_move(word: Word) -> bool {
    match (word.opf(), word.bits(5, 6)) {
        // fcmp, fcmpe: which condition code is rd.
        (0x51..=0x53 | 0x55..=0x57, _) => word.rd() <= 3,
        // fmovr: the condition lies in bits 10 to 12.
        _ if matches!(word.bits(5, 5), 5..=7) => !matches!(word.bits(10, 3), 0 | 4),
        // fmovcc on fcc0 to fcc3, icc, xcc; the condition lies in bits 14 to 17.
        (_, 1..=3) => !word.bit(18) && matches!(word.bits(11, 3), 0..=4 | 6),
        _ => false,
    }
}

const fn is_vis(opf: u32) -> bool {
    matches!(
        opf,
        0x00..=0x0b
            | 0x10..=0x4d
            | 0x50..=0x81
            | 0x106 | 0x107 | 0x10f
            | 0x110 | 0x111 | 0x113 | 0x115 | 0x116 | 0x118..=0x120
            | 0x122..=0x124 | 0x126..=0x128 | 0x12a..=0x12c | 0x12e..=0x131
            | 0x134..=0x136 | 0x138 | 0x13c | 0x13d
            | 0x140..=0x144 | 0x147..=0x14a
            | 0x151..=0x154 | 0x156 | 0x157 | 0x15a..=0x15f
            | 0x190..=0x19e
    )
}

fn is_memory_access(word: Word) -> bool {
    // An immediate offset with the address space in %asi, or a register and the address space in the word.
    match word.op3() {
        // And the unaligned accesses of SPARC M8, which no kernel has: 0x31, 0x35.
        0x0c | 0x1c | 0x28..=0x2c | 0x2e | 0x2f | 0x31 | 0x35 | 0x38..=0x3b | 0x3f => false,
        // ldfsr, ldxfsr, ldxefsr; stfsr, stxfsr
        0x21 => matches!(word.rd(), 0 | 1 | 3) && has_operand(word),
        0x25 => matches!(word.rd(), 0 | 1) && has_operand(word),
        // cas, casx
        0x3c | 0x3e => !word.is_immediate() || word.bits(5, 8) == 0,
        // The same with an address space.
        0x10..=0x1f | 0x30 | 0x32 | 0x33 | 0x34 | 0x36 | 0x37 | 0x3d => true,
        _ => has_operand(word),
    }
}
