//! Logic, counts and extensions: what writes RA.

use super::branch::sign_extend;
use super::flags;
use super::state::State;
use crate::ExecuteError;
use crate::powerpc::word::Word;

/// Immediate operands; false for other instructions.
pub(super) fn immediate(word: Word, state: &mut State<'_>) -> Result<bool, ExecuteError> {
    let opcode = word.opcode();
    if !matches!(opcode, 24..=29) {
        return Ok(false);
    }
    // The odd ones shift: ori, oris; xori, xoris; andi., andis.
    let right = if opcode & 1 == 0 { word.unsigned() } else { word.unsigned() << 16 };
    let left = state.general(word.t())?;
    let value = match opcode {
        24 | 25 => left | right,
        26 | 27 => left ^ right,
        _ => left & right,
    };
    state.set_general(word.a(), value)?;
    if opcode >= 28 {
        flags::record(value, state)?;
    }
    Ok(true)
}

/// Primary opcode 31; false for other instructions.
pub(super) fn registers(word: Word, state: &mut State<'_>) -> Result<bool, ExecuteError> {
    let extended = word.extended();
    let Some(needs) = needs(extended) else { return Ok(false) };
    if word.last() && needs.has_no_record {
        return Err(state.not_supported());
    }
    if needs.is_double {
        state.needs_64()?;
    }
    let (left, right) = (state.general(word.t())?, state.general(word.b())?);
    let value = match extended {
        28 => left & right,
        60 => left & !right,
        124 => !(left | right),
        284 => !(left ^ right),
        316 => left ^ right,
        412 => left | !right,
        444 => left | right,
        476 => !(left & right),
        954 => left as u8 as i8 as i64 as u64,
        922 => left as u16 as i16 as i64 as u64,
        986 => sign_extend(left),
        26 => u64::from((left as u32).leading_zeros()),
        58 => u64::from(left.leading_zeros()),
        538 => u64::from((left as u32).trailing_zeros()),
        570 => u64::from(left.trailing_zeros()),
        122 => by_lane::<1>(left, |byte| byte.count_ones().into()),
        378 => by_lane::<4>(left, |word| word.count_ones().into()),
        506 => u64::from(left.count_ones()),
        // The parity of the lowest bits of the bytes.
        154 => by_lane::<4>(left, |word| u64::from((word & 0x0101_0101).count_ones() & 1)),
        186 => u64::from((left & 0x0101_0101_0101_0101).count_ones() & 1),
        508 => compare_bytes(left, right),
        252 => permute_bits(left, right),
        219 => by_lane::<2>(left, |half| u64::from((half as u16).swap_bytes())),
        155 => by_lane::<4>(left, |word| u64::from((word as u32).swap_bytes())),
        187 => left.swap_bytes(),
        _ => return Ok(false),
    };
    let value = state.trim(value);
    state.set_general(word.a(), value)?;
    if word.last() {
        flags::record(value, state)?;
    }
    Ok(true)
}

struct Needs {
    is_double: bool,
    has_no_record: bool,
}

fn needs(extended: u32) -> Option<Needs> {
    // and, andc, nor, eqv, xor, orc, or, nand, extsb, extsh, cntlzw, cnttzw
    let plain = matches!(extended, 28 | 60 | 124 | 284 | 316 | 412 | 444 | 476 | 954 | 922 | 26 | 538);
    // extsw, cntlzd, cnttzd
    let double = matches!(extended, 986 | 58 | 570);
    // popcntb, popcntw, prtyw, cmpb, brh, brw
    let unrecorded = matches!(extended, 122 | 378 | 154 | 508 | 219 | 155);
    // popcntd, prtyd, bpermd, brd
    let unrecorded_double = matches!(extended, 506 | 186 | 252 | 187);
    (plain || double || unrecorded || unrecorded_double)
        .then_some(Needs { is_double: double || unrecorded_double, has_no_record: unrecorded || unrecorded_double })
}

/// Does it to each group of `BYTES` bytes, as a number.
fn by_lane<const BYTES: u32>(value: u64, lane: impl Fn(u64) -> u64) -> u64 {
    let mask = u64::MAX >> (64 - 8 * BYTES);
    (0..8 / BYTES).fold(0, |result, index| {
        let shift = 8 * BYTES * index;
        result | (lane(value >> shift & mask) & mask) << shift
    })
}

fn compare_bytes(left: u64, right: u64) -> u64 {
    by_lane::<1>(left ^ right, |byte| if byte == 0 { 0xff } else { 0 })
}

/// bpermd: each byte of the first operand names a bit of the second, bit 0 being the highest.
fn permute_bits(indices: u64, bits: u64) -> u64 {
    (0..8).fold(0, |result, byte| {
        let index = indices >> (8 * byte) & 0xff;
        result | if index < 64 { (bits >> (63 - index) & 1) << byte } else { 0 }
    })
}
