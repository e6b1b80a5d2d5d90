//! Decoding by iced-x86, and the walk from a function's start that finds instruction boundaries.

use iced_x86::{Code, Decoder, DecoderError, DecoderOptions, FlowControl, Instruction};

use crate::{BoundaryError, DecodeError, Flow, GuestAddr, Insn};

pub(super) fn decode(bitness: u32, addr: GuestAddr, bytes: &[u8]) -> Result<Insn, DecodeError> {
    let mut decoder = Decoder::with_ip(bitness, bytes, addr.0, DecoderOptions::NONE);
    let mut instruction = Instruction::default();
    decoder.decode_out(&mut instruction);
    match decoder.last_error() {
        DecoderError::None => {}
        DecoderError::NoMoreBytes => return Err(DecodeError::CutShort { addr }),
        _ => return Err(DecodeError::Invalid { addr }),
    }
    // An instruction is at most 15 bytes.
    let len = u8::try_from(instruction.len()).map_err(|_| DecodeError::Invalid { addr })?;
    Ok(Insn { len, flow: flow(&instruction) })
}

fn flow(instruction: &Instruction) -> Flow {
    let target = GuestAddr(instruction.near_branch_target());
    match instruction.flow_control() {
        FlowControl::Next | FlowControl::XbeginXabortXend => Flow::Next,
        FlowControl::UnconditionalBranch if is_near(instruction) => Flow::Jump { target },
        FlowControl::ConditionalBranch => Flow::Branch { target },
        FlowControl::Call if is_near(instruction) => Flow::Call { target },
        FlowControl::IndirectBranch => Flow::IndirectJump,
        FlowControl::IndirectCall => Flow::IndirectCall,
        FlowControl::Return if !is_interrupt_return(instruction) => Flow::Return,
        _ => Flow::Trap,
    }
}

fn is_near(instruction: &Instruction) -> bool {
    instruction.is_jmp_short_or_near() || instruction.is_call_near()
}

fn is_interrupt_return(instruction: &Instruction) -> bool {
    matches!(
        instruction.code(),
        Code::Iretw | Code::Iretd | Code::Iretq | Code::Sysretd | Code::Sysretq | Code::Sysexitd | Code::Sysexitq
    )
}

pub(super) fn check_boundary(bitness: u32, start: GuestAddr, text: &[u8], offset: u64) -> Result<(), BoundaryError> {
    let addr = start.wrapping_add(offset);
    let mut at = 0_usize;
    loop {
        let here = start.wrapping_add(at as u64);
        if at as u64 == offset {
            return Ok(());
        }
        let insn = decode(bitness, here, text.get(at..).unwrap_or_default())?;
        if at as u64 + u64::from(insn.len) > offset {
            return Err(BoundaryError::Inside { addr, start: here, len: insn.len });
        }
        at += usize::from(insn.len);
    }
}
