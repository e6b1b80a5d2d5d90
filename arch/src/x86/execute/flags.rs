//! The status flags of RFLAGS (Intel SDM volume 1, section 3.4.3.1) and the conditions made of them.

use iced_x86::{ConditionCode, Instruction, Mnemonic, Register};

use super::state::State;
use super::width::Width;
use crate::ExecuteError;

pub(super) const CF: u64 = 1 << 0;
pub(super) const PF: u64 = 1 << 2;
pub(super) const AF: u64 = 1 << 4;
pub(super) const ZF: u64 = 1 << 6;
pub(super) const SF: u64 = 1 << 7;
const DF: u64 = 1 << 10;
pub(super) const OF: u64 = 1 << 11;
/// Alignment check; with SMAP: the kernel may access the user's pages.
const AC: u64 = 1 << 18;
pub(super) const STATUS: u64 = CF | PF | AF | ZF | SF | OF;

/// `flag`, or nothing.
pub(super) fn when(flag: u64, condition: bool) -> u64 {
    if condition { flag } else { 0 }
}

/// SF, ZF and PF as a result of that width sets them. PF looks at the low byte only.
pub(super) fn of_result(result: u64, width: Width) -> u64 {
    when(SF, width.is_negative(result))
        | when(ZF, width.trim(result) == 0)
        | when(PF, (result & 0xff).count_ones().is_multiple_of(2))
}

/// Does the condition hold? `None` for what is no condition.
pub(super) fn holds(condition: ConditionCode, flags: u64) -> Option<bool> {
    let any = |mask: u64| flags & mask != 0;
    let less = any(SF) != any(OF);
    Some(match condition {
        ConditionCode::o => any(OF),
        ConditionCode::no => !any(OF),
        ConditionCode::b => any(CF),
        ConditionCode::ae => !any(CF),
        ConditionCode::e => any(ZF),
        ConditionCode::ne => !any(ZF),
        ConditionCode::be => any(CF | ZF),
        ConditionCode::a => !any(CF | ZF),
        ConditionCode::s => any(SF),
        ConditionCode::ns => !any(SF),
        ConditionCode::p => any(PF),
        ConditionCode::np => !any(PF),
        ConditionCode::l => less,
        ConditionCode::ge => !less,
        ConditionCode::le => less || any(ZF),
        ConditionCode::g => !less && !any(ZF),
        _ => return None,
    })
}

/// Instructions that set, clear or copy flags, and do nothing else: which they touch, and their new values. `None` for others.
pub(super) fn directly(instruction: &Instruction, state: &mut State<'_>) -> Result<Option<(u64, u64)>, ExecuteError> {
    Ok(Some(match instruction.mnemonic() {
        Mnemonic::Clc => (CF, 0),
        Mnemonic::Stc => (CF, CF),
        Mnemonic::Cmc => (CF, !state.flags()?),
        Mnemonic::Cld => (DF, 0),
        Mnemonic::Std => (DF, DF),
        Mnemonic::Clac => (AC, 0),
        Mnemonic::Stac => (AC, AC),
        Mnemonic::Sahf => (STATUS & !OF, state.register(Register::AH)?),
        _ => return Ok(None),
    }))
}

/// Does the instruction write the flags register and keep all the arithmetic ones?
pub(super) fn keeps_status(instruction: &Instruction) -> bool {
    matches!(instruction.mnemonic(), Mnemonic::Cld | Mnemonic::Std | Mnemonic::Clac | Mnemonic::Stac)
}

/// `lahf`: the low byte, of which bit 1 is always set and bits 3 and 5 are not.
pub(super) fn low_byte(flags: u64) -> u64 {
    flags & (STATUS & !OF) | 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_set_sign_zero_and_parity() {
        assert_eq!(of_result(0, Width::Quad), ZF | PF);
        assert_eq!(of_result(0x80, Width::Byte), SF);
        assert_eq!(of_result(0x80, Width::Word), 0);
        assert_eq!(of_result(0xffff_ff00, Width::Byte), ZF | PF);
        assert_eq!(of_result(0x103, Width::Long), PF);
    }

    #[test]
    fn signed_conditions_compare_sign_and_overflow() {
        let conditions = [ConditionCode::l, ConditionCode::ge, ConditionCode::le, ConditionCode::g];
        let held = |flags| conditions.map(|condition| holds(condition, flags));
        assert_eq!(held(0), [Some(false), Some(true), Some(false), Some(true)]);
        assert_eq!(held(SF), [Some(true), Some(false), Some(true), Some(false)]);
        assert_eq!(held(OF), [Some(true), Some(false), Some(true), Some(false)]);
        assert_eq!(held(SF | OF), [Some(false), Some(true), Some(false), Some(true)]);
        assert_eq!(held(ZF), [Some(false), Some(true), Some(true), Some(false)]);
        assert_eq!(holds(ConditionCode::None, STATUS), None);
    }
}
