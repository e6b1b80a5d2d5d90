//! Moves between general and special registers.

use super::state::{CA32, OV32, State};
use crate::powerpc::regs;
use crate::powerpc::word::Word;
use crate::{ExecuteError, RegisterId};

/// The flags and the byte count of the string instructions. What else is written QEMU keeps in a place that the machine does
/// not show.
const XER: u64 = 0xe00c_007f;

/// The register behind an SPR's number, whose halves are swapped in the instruction.
fn special(word: Word, state: &State<'_>) -> Option<RegisterId> {
    match word.a() | word.b() << 5 {
        1 => Some(regs::XER),
        8 => Some(regs::LINK),
        9 => Some(regs::CTR),
        815 if state.is_64() => Some(regs::TAR),
        _ => None,
    }
}

/// Primary opcode 31; false for other instructions.
pub(super) fn registers(word: Word, state: &mut State<'_>) -> Result<bool, ExecuteError> {
    match word.extended() {
        // mfmsr
        83 => {
            let msr = state.get(regs::MSR)?;
            state.set_general(word.t(), msr)?;
        }
        // mfspr
        339 => {
            let Some(id) = special(word, state) else { return Ok(false) };
            let value = if id == regs::XER { state.xer()? } else { state.get(id)? };
            state.set_general(word.t(), value)?;
        }
        // mtspr
        467 => {
            // TAR the machine does not let be set.
            let Some(id) = special(word, state).filter(|id| *id != regs::TAR) else { return Ok(false) };
            let value = state.general(word.t())?;
            let value = match id {
                regs::XER if value & 0xffff_ffff & !XER != 0 => return Err(state.not_supported()),
                regs::XER if state.has_isa_300()? => value,
                regs::XER => value & !(OV32 | CA32),
                _ => value,
            };
            state.set(id, value)?;
        }
        _ => return Ok(false),
    }
    Ok(true)
}
