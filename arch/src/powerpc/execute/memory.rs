//! Loads and stores of general registers.
//!
//! `lwarx`, `stwcx.` and their kin are not executed: a reservation is no register. Nor are `lq` and `stq`, which are atomic
//! as a whole, the string instructions, and all of floating point and vectors.

use super::branch::sign_extend;
use super::state::{MOST_BYTES, State};
use crate::powerpc::decode::Instruction;
use crate::powerpc::word::Word;
use crate::{ByteOrder, ExecuteError, GuestAddr};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Load,
    /// Sign-extends.
    LoadAlgebraic,
    LoadReversed,
    Store,
    StoreReversed,
    /// lmw, stmw
    LoadMultiple,
    StoreMultiple,
    /// dcbf, dcbst, icbi: faults as a load does, and changes nothing that a machine shows.
    Probe,
}

/// How the address is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Offset {
    Displacement(i64),
    Indexed,
    /// Of a prefixed instruction, from the instruction itself.
    Relative(i64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Access {
    kind: Kind,
    bytes: usize,
    /// RA becomes the address.
    updates: bool,
    offset: Offset,
    word: Word,
}

impl Access {
    /// `None` for what is no access, or none of these.
    pub(super) fn of(Instruction { prefix, word }: Instruction) -> Option<Self> {
        if let Some(prefix) = prefix {
            return Self::prefixed(prefix, word);
        }
        let displaced = |kind, bytes, updates| {
            Some(Self { kind, bytes, updates, offset: Offset::Displacement(word.signed()), word })
        };
        let short = |kind, updates| {
            Some(Self { kind, bytes: 8, updates, offset: Offset::Displacement(word.signed() & !3), word })
        };
        match (word.opcode(), word.0 & 3) {
            (32 | 33, _) => displaced(Kind::Load, 4, word.opcode() == 33),
            (34 | 35, _) => displaced(Kind::Load, 1, word.opcode() == 35),
            (36 | 37, _) => displaced(Kind::Store, 4, word.opcode() == 37),
            (38 | 39, _) => displaced(Kind::Store, 1, word.opcode() == 39),
            (40 | 41, _) => displaced(Kind::Load, 2, word.opcode() == 41),
            (42 | 43, _) => displaced(Kind::LoadAlgebraic, 2, word.opcode() == 43),
            (44 | 45, _) => displaced(Kind::Store, 2, word.opcode() == 45),
            (46, _) => displaced(Kind::LoadMultiple, 4, false),
            (47, _) => displaced(Kind::StoreMultiple, 4, false),
            (58, low @ (0 | 1)) => short(Kind::Load, low == 1),
            (58, 2) => short(Kind::LoadAlgebraic, false).map(|access| Self { bytes: 4, ..access }),
            (62, low @ (0 | 1)) => short(Kind::Store, low == 1),
            (31, low) if low & 1 == 0 => Self::indexed(word),
            _ => None,
        }
    }

    fn indexed(word: Word) -> Option<Self> {
        let (kind, bytes, updates) = match word.extended() {
            23 => (Kind::Load, 4, false),
            55 => (Kind::Load, 4, true),
            87 => (Kind::Load, 1, false),
            119 => (Kind::Load, 1, true),
            279 => (Kind::Load, 2, false),
            311 => (Kind::Load, 2, true),
            21 => (Kind::Load, 8, false),
            53 => (Kind::Load, 8, true),
            343 => (Kind::LoadAlgebraic, 2, false),
            375 => (Kind::LoadAlgebraic, 2, true),
            341 => (Kind::LoadAlgebraic, 4, false),
            373 => (Kind::LoadAlgebraic, 4, true),
            790 => (Kind::LoadReversed, 2, false),
            534 => (Kind::LoadReversed, 4, false),
            532 => (Kind::LoadReversed, 8, false),
            151 => (Kind::Store, 4, false),
            183 => (Kind::Store, 4, true),
            215 => (Kind::Store, 1, false),
            247 => (Kind::Store, 1, true),
            407 => (Kind::Store, 2, false),
            439 => (Kind::Store, 2, true),
            149 => (Kind::Store, 8, false),
            181 => (Kind::Store, 8, true),
            918 => (Kind::StoreReversed, 2, false),
            662 => (Kind::StoreReversed, 4, false),
            660 => (Kind::StoreReversed, 8, false),
            // dcbst, dcbf, icbi
            54 | 86 | 982 => (Kind::Probe, 1, false),
            _ => return None,
        };
        Some(Self { kind, bytes, updates, offset: Offset::Indexed, word })
    }

    fn prefixed(prefix: Word, word: Word) -> Option<Self> {
        let (kind, bytes) = match (prefix.0 >> 24 & 3, word.opcode()) {
            (2, 32) => (Kind::Load, 4),
            (2, 34) => (Kind::Load, 1),
            (2, 36) => (Kind::Store, 4),
            (2, 38) => (Kind::Store, 1),
            (2, 40) => (Kind::Load, 2),
            (2, 42) => (Kind::LoadAlgebraic, 2),
            (2, 44) => (Kind::Store, 2),
            (0, 41) => (Kind::LoadAlgebraic, 4),
            (0, 57) => (Kind::Load, 8),
            (0, 61) => (Kind::Store, 8),
            _ => return None,
        };
        let by = long_displacement(prefix, word);
        let offset = if is_relative(prefix) { Offset::Relative(by) } else { Offset::Displacement(by) };
        Some(Self { kind, bytes, updates: false, offset, word })
    }

    /// Has a CPU of this width the instruction, in a form that is valid?
    fn check(&self, state: &State<'_>) -> Result<(), ExecuteError> {
        let (target, base) = (self.word.t(), self.word.a());
        let is_double = self.bytes == 8 || self.kind == Kind::LoadAlgebraic && self.bytes == 4;
        let is_multiple = matches!(self.kind, Kind::LoadMultiple | Kind::StoreMultiple);
        let is_invalid = self.updates && base == 0
            || self.updates && self.loads() && base == target
            || matches!(self.offset, Offset::Relative(_)) && base != 0
            // What it loads would overwrite its base.
            || self.kind == Kind::LoadMultiple && base >= target
            // Raises an alignment interrupt.
            || is_multiple && state.order() == ByteOrder::Little;
        if is_invalid || is_double && !state.is_64() { Err(state.not_supported()) } else { Ok(()) }
    }

    fn loads(&self) -> bool {
        matches!(self.kind, Kind::Load | Kind::LoadAlgebraic | Kind::LoadReversed | Kind::LoadMultiple)
    }

    fn address(&self, state: &mut State<'_>) -> Result<GuestAddr, ExecuteError> {
        let base = match self.offset {
            Offset::Relative(_) => state.here().0,
            _ => state.general_or_zero(self.word.a())?,
        };
        let by = match self.offset {
            Offset::Displacement(by) | Offset::Relative(by) => by.cast_unsigned(),
            Offset::Indexed => state.general(self.word.b())?,
        };
        state.address(base.wrapping_add(by))
    }

    /// Leaves in the state what becomes of the stack pointer: memory is read only for a load of it.
    pub(super) fn move_stack_pointer(&self, sp: u32, state: &mut State<'_>) -> Result<(), ExecuteError> {
        let is_loaded = match self.kind {
            Kind::LoadMultiple => self.word.t() <= sp,
            _ => self.loads() && self.word.t() == sp,
        };
        if is_loaded {
            return self.run(state);
        }
        self.check(state)?;
        if self.updates && self.word.a() == sp {
            let address = self.address(state)?;
            state.set_general(sp, address.0)?;
        }
        Ok(())
    }

    pub(super) fn run(&self, state: &mut State<'_>) -> Result<(), ExecuteError> {
        self.check(state)?;
        let address = self.address(state)?;
        let target = self.word.t();
        match self.kind {
            Kind::Load | Kind::LoadAlgebraic | Kind::LoadReversed => {
                let value = self.extend(self.load(address, state)?);
                state.set_general(target, value)?;
            }
            Kind::Store | Kind::StoreReversed => {
                let value = state.general(target)?;
                let (bytes, len) = self.stored(value, state.order());
                state.store(address, bytes.get(..len).unwrap_or_default())?;
            }
            Kind::LoadMultiple => load_multiple(target, address, state)?,
            Kind::StoreMultiple => store_multiple(target, address, state)?,
            Kind::Probe => state.load(address, &mut [0])?,
        }
        if self.updates {
            state.set_general(self.word.a(), address.0)?;
        }
        Ok(())
    }

    fn load(&self, address: GuestAddr, state: &mut State<'_>) -> Result<u64, ExecuteError> {
        let mut bytes = [0; 8];
        let part = bytes.get_mut(..self.bytes).unwrap_or_default();
        state.load(address, part)?;
        if self.kind == Kind::LoadReversed {
            part.reverse();
        }
        Ok(state.order().number(part))
    }

    fn extend(&self, value: u64) -> u64 {
        match (self.kind, self.bytes) {
            (Kind::LoadAlgebraic, 2) => value as u16 as i16 as i64 as u64,
            (Kind::LoadAlgebraic, _) => sign_extend(value),
            _ => value,
        }
    }

    fn stored(&self, value: u64, order: ByteOrder) -> ([u8; 8], usize) {
        let mut bytes = value.to_le_bytes();
        if (order == ByteOrder::Big) != (self.kind == Kind::StoreReversed) {
            bytes.get_mut(..self.bytes).unwrap_or_default().reverse();
        }
        (bytes, self.bytes)
    }
}

fn load_multiple(first: u32, address: GuestAddr, state: &mut State<'_>) -> Result<(), ExecuteError> {
    let mut bytes = [0; MOST_BYTES];
    let part = bytes.get_mut(4 * first as usize..).unwrap_or_default();
    state.load(address, part)?;
    for (number, word) in (first..32).zip(part.chunks_exact(4)) {
        let value = state.order().number(word);
        state.set_general(number, value)?;
    }
    Ok(())
}

fn store_multiple(first: u32, address: GuestAddr, state: &mut State<'_>) -> Result<(), ExecuteError> {
    let mut bytes = [0; MOST_BYTES];
    let part = bytes.get_mut(4 * first as usize..).unwrap_or_default();
    for (number, word) in (first..32).zip(part.chunks_exact_mut(4)) {
        word.copy_from_slice(&(state.general(number)? as u32).to_be_bytes());
    }
    state.store(address, part)
}

/// R: bit 11 of a prefix.
fn is_relative(prefix: Word) -> bool {
    prefix.0 & 1 << 20 != 0
}

/// 34 bits: 18 of the prefix, 16 of the suffix.
fn long_displacement(prefix: Word, word: Word) -> i64 {
    let number = u64::from(prefix.0 & 0x3_ffff) << 16 | word.unsigned();
    (number << 30).cast_signed() >> 30
}

/// paddi; false for other instructions.
pub(super) fn add_immediate(instruction: Instruction, state: &mut State<'_>) -> Result<bool, ExecuteError> {
    let Instruction { prefix: Some(prefix), word } = instruction else { return Ok(false) };
    if prefix.0 >> 24 & 3 != 2 || word.opcode() != 14 {
        return Ok(false);
    }
    let base = match (is_relative(prefix), word.a()) {
        (true, 0) => state.here().0,
        (true, _) => return Err(state.not_supported()),
        (false, number) => state.general_or_zero(number)?,
    };
    state.set_general(word.t(), base.wrapping_add_signed(long_displacement(prefix, word)))?;
    Ok(true)
}
