//! Decoding by iced-x86, and the walk from a function's start that finds instruction boundaries.
//!
//! Where Intel and AMD decode differently (a 66 prefix on a near branch in 64-bit mode, `ud0`), Intel's way is taken,
//! which is QEMU's as well.

use iced_x86::{Decoder, DecoderError, DecoderOptions, FlowControl, Instruction, Mnemonic};

use super::mode::Mode;
use crate::{BoundaryError, DecodeError, Flow, GuestAddr, Insn};

/// The longest instruction: Intel SDM volume 2, section 2.3.11; one byte more raises #GP.
const MAX_BYTES: usize = 15;
/// `ud2`, and what follows it where the kernel asks a hypervisor to emulate the next instruction: text that is no
/// instruction (Linux `arch/x86/include/asm/emulate_prefix.h`). The kernel's own walk takes it for a prefix.
const UD2: [u8; 2] = [0x0f, 0x0b];
const EMULATE_SIGNATURES: [&[u8; 3]; 2] = [b"xen", b"kvm"];

pub(super) fn decode(mode: Mode, addr: GuestAddr, bytes: &[u8]) -> Result<Insn, DecodeError> {
    let instruction = instruction(mode, addr, bytes)?;
    let len = u8::try_from(instruction.len()).map_err(|_| DecodeError::Invalid { addr })?;
    Ok(Insn { len, flow: flow(&instruction) })
}

/// The instruction in iced's form, which knows the operands.
pub(super) fn instruction(mode: Mode, addr: GuestAddr, bytes: &[u8]) -> Result<Instruction, DecodeError> {
    let mut decoder = Decoder::with_ip(mode.bitness(), bytes, mode.trim(addr.0), DecoderOptions::NONE);
    let mut instruction = Instruction::default();
    decoder.decode_out(&mut instruction);
    match decoder.last_error() {
        DecoderError::None => Ok(instruction),
        // The decoder stops at the 15th byte with the same error: more text would not help there.
        DecoderError::NoMoreBytes if bytes.len() < MAX_BYTES => Err(DecodeError::CutShort { addr }),
        _ => Err(DecodeError::Invalid { addr }),
    }
}

/// Near transfers are told one by one; whatever else leaves the straight line changes CS, the privilege or the mode.
pub(super) fn flow(instruction: &Instruction) -> Flow {
    let target = GuestAddr(instruction.near_branch_target());
    match instruction.flow_control() {
        FlowControl::Next => Flow::Next,
        FlowControl::XbeginXabortXend if instruction.mnemonic() == Mnemonic::Xbegin => Flow::Branch { target },
        // `xabort` outside of a transaction does nothing; inside, any instruction may go where `xabort` goes.
        FlowControl::XbeginXabortXend => Flow::Next,
        FlowControl::UnconditionalBranch if instruction.is_jmp_short_or_near() => Flow::Jump { target },
        FlowControl::ConditionalBranch => Flow::Branch { target },
        FlowControl::Call if instruction.is_call_near() => Flow::Call { target },
        FlowControl::IndirectBranch if instruction.is_jmp_near_indirect() => Flow::IndirectJump,
        FlowControl::IndirectCall if instruction.is_call_near_indirect() => Flow::IndirectCall,
        FlowControl::Return if instruction.mnemonic() == Mnemonic::Ret => Flow::Return,
        _ => Flow::Trap,
    }
}

/// Decodes from `start` on until `offset` is met or covered.
pub(super) fn check_boundary(mode: Mode, start: GuestAddr, text: &[u8], offset: u64) -> Result<(), BoundaryError> {
    let addr = start.wrapping_add(offset);
    let mut at = 0_usize;
    loop {
        let here = start.wrapping_add(at as u64);
        if at as u64 == offset {
            return Ok(());
        }
        let rest = text.get(at..).unwrap_or_default();
        let len = decode(mode, here, rest)?.len + emulate_signature_len(rest);
        if at as u64 + u64::from(len) > offset {
            return Err(BoundaryError::Inside { addr, start: here, len });
        }
        at += usize::from(len);
    }
}

fn emulate_signature_len(text: &[u8]) -> u8 {
    let signed = |after: &[u8]| EMULATE_SIGNATURES.iter().any(|signature| after.starts_with(*signature));
    if text.strip_prefix(&UD2).is_some_and(signed) { 3 } else { 0 }
}
