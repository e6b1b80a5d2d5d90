//! Decoding: 4 bytes an instruction, and every address that is a multiple of 4 is a boundary.
//!
//! No crate decodes SPARC V9 in Rust alone, and what is needed is little: whether a word is an instruction (`opcode`),
//! and where it goes (`transfer`).

use super::opcode;
use super::transfer;
use super::word::Word;
use crate::{BoundaryError, DecodeError, GuestAddr, Insn};

pub(super) const INSN_BYTES: u8 = 4;

pub(super) fn decode(addr: GuestAddr, bytes: &[u8]) -> Result<Insn, DecodeError> {
    let word = instruction(addr, bytes)?;
    Ok(Insn { len: INSN_BYTES, flow: transfer::flow(word, addr) })
}

/// The instruction's word.
pub(super) fn instruction(addr: GuestAddr, bytes: &[u8]) -> Result<Word, DecodeError> {
    let word = Word::from_bytes(bytes).ok_or(DecodeError::CutShort { addr })?;
    if opcode::is_valid(word) { Ok(word) } else { Err(DecodeError::Invalid { addr }) }
}

/// As the kernel's `arch_prepare_kprobe` asks it (Linux `arch/sparc/kernel/kprobes.c`).
pub(super) fn check_boundary(start: GuestAddr, offset: u64) -> Result<(), BoundaryError> {
    let addr = start.wrapping_add(offset);
    if addr.0.is_multiple_of(u64::from(INSN_BYTES)) {
        Ok(())
    } else {
        Err(BoundaryError::Unaligned { addr, align: INSN_BYTES })
    }
}
