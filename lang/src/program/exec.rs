//! Running a program at a hit: no lock, no allocation, no panic.
//!
//! 1. Read every needed register once.
//! 2. Per field: the operand's value, the pointers behind it, the last step.
//! 3. Strings go behind the fixed part, read in pieces that stay within a page.
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use qkprobe_arch::GuestAddr;

use super::{Field, HitContext, MAX_STRING_BYTES, Operand, PAGE_BYTES, Program, Space, Store};
use crate::arg::{Bits, Deref};

/// First piece of a string: one access covers nearly all names and paths.
const FIRST_PIECE: usize = 128;
/// Every further piece.
const NEXT_PIECE: usize = 512;

/// Few registers, as nearly all programs need, take no time to set up.
const FEW: usize = 8;
/// One per argument at most.
const MANY: usize = 128;

struct Run<'a, C: ?Sized, const N: usize> {
    program: &'a Program,
    ctx: &'a mut C,
    values: [u64; N],
    missing: u128,
}

impl Program {
    /// Fetches all arguments and writes the record into `out`, which must have `max_len` bytes (else nothing is
    /// written). Returns the record's length.
    #[inline]
    pub fn run<C: HitContext + ?Sized>(&self, ctx: &mut C, out: &mut [u8]) -> usize {
        if self.registers.len() <= FEW { self.run_with::<C, FEW>(ctx, out) } else { self.run_with::<C, MANY>(ctx, out) }
    }

    /// Where the first argument's number lies in memory: a probe writes there. `None` when it lies in no memory, or a
    /// pointer on the way cannot be read.
    pub(crate) fn locate<C: HitContext + ?Sized>(&self, ctx: &mut C) -> Option<(Space, GuestAddr)> {
        let field = self.fields.first()?;
        let Store::Memory(deref) = field.store else { return None };
        let mut run = Run::<C, FEW>::new(self, ctx);
        let value = run.start(field)?;
        Some((deref.space, GuestAddr(run.address(deref, value))))
    }

    fn run_with<C: HitContext + ?Sized, const N: usize>(&self, ctx: &mut C, out: &mut [u8]) -> usize {
        let Some(out) = out.get_mut(..self.max_len) else { return 0 };
        if let Some(bitmap) = out.get_mut(..self.bitmap_bytes) {
            bitmap.fill(0);
        }
        let mut run = Run::<C, N>::new(self, ctx);
        let mut end = self.fixed_len;
        for field in &self.fields {
            match run.start(field) {
                Some(value) => run.store(field, value, out, &mut end),
                None => fault_all(field, out),
            }
        }
        end
    }
}

impl<'a, C: HitContext + ?Sized, const N: usize> Run<'a, C, N> {
    /// Reads every register, once.
    #[inline]
    fn new(program: &'a Program, ctx: &'a mut C) -> Self {
        let mut values = [0; N];
        let mut missing = 0;
        for (slot, (id, value)) in program.registers.iter().zip(&mut values).enumerate() {
            match ctx.register(*id) {
                Some(read) => *value = read & program.mask,
                None => missing |= 1 << slot,
            }
        }
        Self { program, ctx, values, missing }
    }

    /// The value that the last step starts from.
    #[inline]
    fn start(&mut self, field: &Field) -> Option<u64> {
        let mut value = match field.operand {
            Operand::Register(slot) => self.register(slot)?,
            Operand::Stack { slot, offset } => {
                let sp = self.register(slot)?;
                self.stack_word(sp, offset)?
            }
            Operand::Constant(value) => value,
            Operand::Image(addr) => self.ctx.slide(addr)?.0,
            Operand::Saved(index) => self.ctx.saved(usize::from(index))?,
            Operand::NextPc => self.ctx.next_pc()?,
            Operand::Latency => self.ctx.latency()?,
            Operand::EntryTime => self.ctx.entry_time()?,
        };
        if field.derefs > 0 {
            let first = usize::from(field.first_deref);
            for deref in self.program.derefs.get(first..first + usize::from(field.derefs))? {
                value = self.word(*deref, value)?;
            }
        }
        Some(value)
    }

    #[inline]
    fn register(&self, slot: u8) -> Option<u64> {
        let value = self.values.get(usize::from(slot))?;
        (self.missing >> (slot & 127) & 1 == 0).then_some(*value)
    }

    /// A word of the stack; 0 outside the thread's stack, as in the kernel.
    fn stack_word(&mut self, sp: u64, offset: u64) -> Option<u64> {
        let sp = sp.wrapping_add(self.program.stack_bias) & self.program.mask;
        let addr = sp.wrapping_add(offset) & self.program.mask;
        // The size is a power of two: both must lie in the same aligned block.
        if (addr ^ sp) & !(self.program.thread_size.wrapping_sub(1)) != 0 {
            return Some(0);
        }
        self.word(Deref { offset: 0, space: Space::Kernel }, addr)
    }

    fn address(&self, deref: Deref, value: u64) -> u64 {
        value.wrapping_add_signed(deref.offset) & self.program.mask
    }

    fn word(&mut self, deref: Deref, value: u64) -> Option<u64> {
        let addr = self.address(deref, value);
        let mut bytes = [0; 8];
        let bytes = bytes.get_mut(..self.program.word_bytes)?;
        self.read(deref.space, addr, bytes).then(|| self.program.order.number(bytes))
    }

    /// Reads across page boundaries, one access a page.
    fn read(&mut self, space: Space, addr: u64, out: &mut [u8]) -> bool {
        let (mut addr, mut rest) = (addr, out);
        while !rest.is_empty() {
            let Some((piece, behind)) = rest.split_at_mut_checked(rest.len().min(page_left(addr))) else {
                return false;
            };
            if !self.ctx.read(space, GuestAddr(addr), piece) {
                return false;
            }
            addr = addr.wrapping_add(piece.len() as u64) & self.program.mask;
            rest = behind;
        }
        true
    }

    #[inline]
    fn store(&mut self, field: &Field, value: u64, out: &mut [u8], end: &mut usize) {
        match field.store {
            Store::Value => put(field, 0, self.shape(field, value), out),
            Store::Memory(deref) => {
                let addr = self.address(deref, value);
                if field.count == 1 {
                    let mut bytes = [0; 8];
                    let Some(bytes) = bytes.get_mut(..usize::from(field.bytes)) else { return };
                    if self.read(deref.space, addr, bytes) {
                        let number = self.program.order.number(bytes);
                        put(field, 0, self.shape(field, number), out);
                    } else {
                        fault(field, 0, out);
                    }
                } else {
                    self.numbers(field, deref.space, addr, out);
                }
            }
            Store::String(deref) => {
                let addr = self.address(deref, value);
                self.string(field, 0, deref.space, addr, out, end);
            }
            Store::Strings { pointers, space } => {
                let word = self.program.word_bytes as i64;
                for index in 0..field.count {
                    let offset = pointers.offset.wrapping_add(i64::from(index) * word);
                    match self.word(Deref { offset, ..pointers }, value) {
                        Some(addr) => self.string(field, index, space, addr, out, end),
                        None => fault(field, index, out),
                    }
                }
            }
            Store::Nothing => {}
        }
    }

    /// An array of numbers: one access a page; each element that lies in no readable page is marked.
    fn numbers(&mut self, field: &Field, space: Space, addr: u64, out: &mut [u8]) {
        let width = usize::from(field.bytes);
        let total = width * usize::from(field.count);
        // At most 64 elements of 8 bytes.
        let mut buffer = [0; 512];
        let mut done = 0;
        let mut bad = [(0, 0); 2];
        let mut bad_pages = 0;
        while done < total {
            let at = addr.wrapping_add(done as u64) & self.program.mask;
            let len = (total - done).min(page_left(at));
            let Some(piece) = buffer.get_mut(done..done + len) else { return };
            if !self.ctx.read(space, GuestAddr(at), piece) {
                if let Some(range) = bad.get_mut(bad_pages) {
                    *range = (done, done + len);
                }
                bad_pages += 1;
            }
            done += len;
        }
        for (index, bytes) in (0..field.count).zip(buffer.chunks_exact(width)) {
            let start = usize::from(index) * width;
            let faulted = bad.iter().any(|(from, to)| start < *to && start + width > *from);
            if faulted {
                fault(field, index, out);
            } else {
                put(field, index, self.shape(field, self.program.order.number(bytes)), out);
            }
        }
    }

    /// A string up to its NUL, or cut at `MAX_STRING_BYTES` or at the end of the record's room.
    fn string(&mut self, field: &Field, index: u8, space: Space, addr: u64, out: &mut [u8], end: &mut usize) {
        let start = *end;
        let room = out.len().saturating_sub(start).min(MAX_STRING_BYTES);
        let mut done = 0;
        let mut piece_len = FIRST_PIECE;
        let len = loop {
            if done >= room {
                // No NUL so far: the last byte's place is the NUL's.
                break room.saturating_sub(1);
            }
            let at = addr.wrapping_add(done as u64) & self.program.mask;
            let len = piece_len.min(page_left(at)).min(room - done);
            let Some(piece) = out.get_mut(start + done..start + done + len) else { break done };
            if !self.ctx.read(space, GuestAddr(at), piece) {
                fault(field, index, out);
                return;
            }
            if let Some(nul) = memchr::memchr(0, piece) {
                break done + nul;
            }
            done += len;
            piece_len = NEXT_PIECE;
        };
        *end = start + len;
        put(field, index, start as u64 | (len as u64) << 16, out);
    }

    /// Truncates to the field's width and takes a bit-field's bits.
    fn shape(&self, field: &Field, value: u64) -> u64 {
        match field.bits {
            Some(Bits { width, offset }) => {
                let moved = value.checked_shr(u32::from(offset)).unwrap_or(0);
                if width >= 64 { moved } else { moved & ((1 << width) - 1) }
            }
            None => value,
        }
    }
}

fn page_left(addr: u64) -> usize {
    // At most 4096, so that no conversion can fail.
    usize::try_from(PAGE_BYTES - addr % PAGE_BYTES).unwrap_or(1)
}

/// Writes element `index`, truncated to the field's width.
#[inline]
fn put(field: &Field, index: u8, value: u64, out: &mut [u8]) {
    let width = usize::from(field.bytes);
    let at = usize::from(field.offset) + usize::from(index) * width;
    if let (Some(place), Some(bytes)) = (out.get_mut(at..at + width), value.to_le_bytes().get(..width)) {
        place.copy_from_slice(bytes);
    }
}

#[cold]
fn fault(field: &Field, index: u8, out: &mut [u8]) {
    put(field, index, 0, out);
    let bit = usize::from(field.first_element) + usize::from(index);
    if let Some(byte) = out.get_mut(bit / 8) {
        *byte |= 1 << (bit % 8);
    }
}

#[cold]
fn fault_all(field: &Field, out: &mut [u8]) {
    if field.store != Store::Nothing {
        (0..field.count).for_each(|index| fault(field, index, out));
    }
}

#[cfg(test)]
#[path = "exec_tests.rs"]
mod tests;
