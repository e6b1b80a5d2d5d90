//! From parsed arguments to a program: operands, register slots, the record's layout.

use qkprobe_arch::{Arch, GuestAddr, RegisterId};

use super::{Field, MAX_STRING_BYTES, MAX_TAIL_BYTES, Operand, Program, Space, Store};
use crate::arg::{ArgType, Deref, Parsed, Source, TypeKind};

/// One argument to compile; symbols are resolved already.
pub(crate) struct Input<'a> {
    pub(crate) ty: ArgType,
    pub(crate) parsed: &'a Parsed,
    /// The address behind `Source::Symbol`.
    pub(crate) symbol: Option<GuestAddr>,
}

struct Registers(Vec<RegisterId>);

impl Registers {
    /// There are at most 128 arguments, and each names one register.
    fn slot(&mut self, id: RegisterId) -> u8 {
        let found = self.0.iter().position(|known| *known == id);
        let slot = found.unwrap_or_else(|| {
            self.0.push(id);
            self.0.len() - 1
        });
        u8::try_from(slot).unwrap_or(u8::MAX)
    }
}

/// Compiles the arguments. `saved` lists the argument numbers that the entry program saves, in its order.
pub(crate) fn compile(arch: &dyn Arch, inputs: &[Input<'_>], saved: &[u32]) -> Program {
    let mut registers = Registers(Vec::new());
    let mut derefs = Vec::new();
    let elements: usize = inputs.iter().map(stored_elements).sum();
    let bitmap_bytes = elements.div_ceil(8);
    let mut offset = bitmap_bytes;
    let mut element = 0;
    let mut strings = 0;
    let mut fields = Vec::with_capacity(inputs.len());
    for input in inputs {
        let count = stored_elements(input);
        let (store, before) = last_step(input);
        let bytes = if matches!(store, Store::String(_) | Store::Strings { .. }) { 4 } else { input.ty.bytes };
        fields.push(Field {
            operand: operand(arch, input, saved, &mut registers),
            store,
            kind: input.ty.kind,
            bytes,
            bits: input.ty.bits,
            count: input.ty.elements(),
            is_array: input.ty.count.is_some(),
            first_deref: u16::try_from(derefs.len()).unwrap_or(u16::MAX),
            derefs: u16::try_from(before.len()).unwrap_or(0),
            offset: u16::try_from(offset).unwrap_or(u16::MAX),
            first_element: u16::try_from(element).unwrap_or(u16::MAX),
        });
        derefs.extend_from_slice(before);
        element += count;
        offset += count * usize::from(bytes);
        if matches!(store, Store::String(_) | Store::Strings { .. }) {
            strings += count;
        }
    }
    let word_bytes = arch.word_bytes();
    Program {
        fields: fields.into(),
        derefs: derefs.into(),
        registers: registers.0.into(),
        bitmap_bytes,
        fixed_len: offset,
        max_len: offset + (strings * MAX_STRING_BYTES).min(MAX_TAIL_BYTES),
        word_bytes,
        order: arch.byte_order(),
        mask: if word_bytes >= 8 { u64::MAX } else { u64::from(u32::MAX) },
        stack_bias: arch.stack_bias(),
        thread_size: arch.thread_size(),
    }
}

fn stored_elements(input: &Input<'_>) -> usize {
    match input.parsed.source {
        Source::Text(_) => 0,
        _ => usize::from(input.ty.elements()),
    }
}

/// The last step, and the pointers to follow before it.
fn last_step<'a>(input: &Input<'a>) -> (Store, &'a [Deref]) {
    let ty = input.ty;
    let all = input.parsed.derefs.as_slice();
    if matches!(input.parsed.source, Source::Text(_)) {
        return (Store::Nothing, &[]);
    }
    let space = if ty.kind == TypeKind::UserString { Space::User } else { Space::Kernel };
    let is_text = matches!(ty.kind, TypeKind::String | TypeKind::UserString);
    match (all.split_last(), is_text) {
        // The kernel reads the strings of `+u0(x):string[N]` from kernel memory, where they cannot be.
        (Some((last, before)), true) if ty.count.is_some() => {
            let space = if last.space == Space::User { Space::User } else { space };
            (Store::Strings { pointers: *last, space }, before)
        }
        (Some((last, before)), true) => {
            let space = if last.space == Space::User { Space::User } else { space };
            (Store::String(Deref { space, ..*last }), before)
        }
        (None, true) => (Store::String(Deref { offset: 0, space }), &[]),
        (Some((last, before)), false) => (Store::Memory(*last), before),
        (None, false) => (Store::Value, &[]),
    }
}

fn operand(arch: &dyn Arch, input: &Input<'_>, saved: &[u32], registers: &mut Registers) -> Operand {
    match &input.parsed.source {
        Source::Register(id) => Operand::Register(registers.slot(*id)),
        Source::Stack(offset) => Operand::Stack { slot: registers.slot(arch.stack_pointer()), offset: *offset },
        Source::Constant(value) => Operand::Constant(*value),
        Source::Text(_) | Source::Comm => Operand::Constant(0),
        Source::Symbol(_) => Operand::Image(input.symbol.unwrap_or_default()),
        Source::Saved(n) => {
            let index = saved.iter().position(|known| known == n).unwrap_or(usize::MAX);
            Operand::Saved(u16::try_from(index).unwrap_or(u16::MAX))
        }
        Source::NextPc => Operand::NextPc,
        Source::Latency => Operand::Latency,
        Source::EntryTime => Operand::EntryTime,
    }
}
