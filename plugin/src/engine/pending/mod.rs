//! What is awaited: the return of a call, the end of an instruction, the restart of one that faulted.
//!
//! All three are the same question: when does execution reach this address with this stack pointer? So there is one
//! table of *instances*, each a (stack pointer, one or two addresses) with the probe that waits, and one set of
//! *landings*, the addresses where somebody may come (see `landing`). Keying by the stack pointer makes it independent of
//! tasks and vCPUs: a task may go on elsewhere, a function may call itself, a tail call returns for both.
//!
//! Instances are listed by the kernel stack that they lie on, newest first. A stack belongs to one vCPU at a time, so
//! a bit in its word suffices against a guest that breaks the rule (two vCPUs on one stack): nobody waits for it in a guest
//! that does not. Such a guest gets wrong counts and nothing worse: every link is an index that is checked, every walk is
//! bounded, and an instance is freed once. Programs that were forked have equal stacks: what kernel code awaits on one, at
//! the begin of a trap, is taken one by one, and is over by arrival only.
//!
//! An instance whose frame is gone is dropped when its stack is seen at a higher address on the same page, and when its
//! task ends.
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

pub(crate) mod landing;
#[cfg(test)]
mod tests;

use std::cell::Cell as StdCell;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use qkprobe_arch::Arch;

/// Bytes of private data an instance has: the bitmap and ten words of a return probe's entry program.
pub(crate) const DATA_BYTES: usize = qkprobe_resolve::SAVED_BYTES;
const DATA_WORDS: usize = DATA_BYTES / 8;
/// Most instances at a time: every sleeping task may stand in a probed function.
const INSTANCES: usize = 1 << 16;
/// Stacks a line of the table, and lines.
const WAYS: usize = 8;
const LINES: usize = 1 << 12;
/// The frames of one page belong to one stack, on every ISA.
const PAGE: u64 = 4096;
/// No walk is longer, whatever the guest does.
const MOST_STEPS: usize = INSTANCES;

/// Bits of a stack's word that hold the index of its newest instance, plus one.
const INDEX_BITS: u32 = 20;
/// Set in a stack's word while somebody works on its list.
const LOCKED: u64 = 1 << (INDEX_BITS - 1);
const INDEX_MASK: u64 = LOCKED - 1;
const _: () = assert!((INSTANCES as u64) < LOCKED);
/// How often a stack that somebody works on is looked at again. In a guest that keeps the rule nobody ever does.
const MOST_SPINS: usize = 1 << 16;

/// What is awaited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The return from a call.
    Return,
    /// The end of an instruction.
    Post,
    /// The restart of an instruction that raised an exception.
    Restart,
}

const FREE: u32 = 0;
/// Listed, and its probe is registered.
const RETURN: u32 = 1;
const POST: u32 = 2;
const RESTART: u32 = 3;
/// Listed, but nobody waits any more: freed by whoever walks its list next.
const DEAD: u32 = 4;
/// The bits above count how often the cell was used, so that nobody takes one instance for the next in its cell.
const KIND: u32 = 7;
const USE: u32 = 8;

impl Kind {
    fn bits(self) -> u32 {
        match self {
            Self::Return => RETURN,
            Self::Post => POST,
            Self::Restart => RESTART,
        }
    }

    fn of(state: u32) -> Option<Self> {
        match state & KIND {
            RETURN => Some(Self::Return),
            POST => Some(Self::Post),
            RESTART => Some(Self::Restart),
            _ => None,
        }
    }
}

/// Something awaited.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Instance {
    pub(crate) kind: Kind,
    /// Who waits: what `Probe::token` gave, or the restarted site's.
    pub(crate) token: usize,
    /// The stack pointer on arrival.
    pub(crate) sp: u64,
    /// Where it arrives.
    pub(crate) first: u64,
    /// Or here; equal to `first` if there is one way only.
    pub(crate) second: u64,
    /// Of a call: when it began. Of an instruction: where it is.
    pub(crate) time: u64,
    /// The probe's private data.
    pub(crate) data: [u8; DATA_BYTES],
}

impl Instance {
    fn arrives(&self, addr: u64) -> bool {
        self.first == addr || self.second == addr
    }

    /// Whether its frame is gone when the stack pointer is at `sp`. Where a call puts the return address on the stack
    /// (`pops`), that lies below the stack pointer which the return leaves; where it is in a register, the function begins
    /// with that stack pointer. An instruction that is interrupted before its successor leaves `sp` as it is.
    fn is_over(&self, sp: u64, pops: bool) -> bool {
        self.sp & !(PAGE - 1) == sp & !(PAGE - 1)
            && match self.kind {
                Kind::Return if pops => self.sp <= sp,
                Kind::Return | Kind::Post | Kind::Restart => self.sp < sp,
            }
    }
}

/// An instance's place in memory. Atomics, because `forget` and `each` look at all of them at any time; relaxed, because the
/// state publishes them.
#[derive(Debug)]
struct Cell {
    /// In its stack's list: changed only by who has locked the stack.
    next: AtomicU32,
    /// Among the free ones.
    next_free: AtomicU32,
    state: AtomicU32,
    token: AtomicUsize,
    sp: AtomicU64,
    first: AtomicU64,
    second: AtomicU64,
    time: AtomicU64,
    data: [AtomicU64; DATA_WORDS],
}

impl Cell {
    fn new() -> Self {
        Self {
            next: AtomicU32::new(0),
            next_free: AtomicU32::new(0),
            state: AtomicU32::new(FREE),
            token: AtomicUsize::new(0),
            sp: AtomicU64::new(0),
            first: AtomicU64::new(0),
            second: AtomicU64::new(0),
            time: AtomicU64::new(0),
            data: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    /// Everything but the data, which is looked at only when it arrives; and the state that it was in.
    #[inline]
    fn head(&self) -> Option<(u32, Instance)> {
        let state = self.state.load(Ordering::Acquire);
        let instance = Instance {
            kind: Kind::of(state)?,
            token: self.token.load(Ordering::Relaxed),
            sp: self.sp.load(Ordering::Relaxed),
            first: self.first.load(Ordering::Relaxed),
            second: self.second.load(Ordering::Relaxed),
            time: self.time.load(Ordering::Relaxed),
            data: [0; DATA_BYTES],
        };
        Some((state, instance))
    }

    #[inline]
    fn load_data(&self, instance: &mut Instance) {
        for (word, bytes) in self.data.iter().zip(instance.data.chunks_exact_mut(8)) {
            bytes.copy_from_slice(&word.load(Ordering::Relaxed).to_le_bytes());
        }
    }

    #[inline]
    fn store(&self, instance: &Instance, data_len: usize) {
        self.token.store(instance.token, Ordering::Relaxed);
        self.sp.store(instance.sp, Ordering::Relaxed);
        self.first.store(instance.first, Ordering::Relaxed);
        self.second.store(instance.second, Ordering::Relaxed);
        self.time.store(instance.time, Ordering::Relaxed);
        for (word, bytes) in self.data.iter().zip(instance.data.chunks_exact(8)).take(data_len.div_ceil(8)) {
            word.store(u64::from_le_bytes(bytes.try_into().unwrap_or_default()), Ordering::Relaxed);
        }
        let state = self.state.load(Ordering::Relaxed);
        // A full barrier: whoever takes a landing away either sees this instance, or this thread sees the landing gone.
        self.state.swap((state & !KIND).wrapping_add(USE) | instance.kind.bits(), Ordering::SeqCst);
    }

    /// From one state to another of the same use; false if somebody was faster.
    fn change(&self, from: u32, to: u32) -> bool {
        self.state.compare_exchange(from, from & !KIND | to, Ordering::SeqCst, Ordering::Relaxed).is_ok()
    }
}

/// All that is awaited.
#[derive(Debug)]
pub(crate) struct Pending {
    /// log2 of the size that kernel stacks are aligned to.
    stack_shift: u32,
    /// A return moves the stack pointer.
    pops: bool,
    cells: Box<[Cell]>,
    /// Cells below this index were used at some time.
    fresh: AtomicU32,
    /// Free cells that were used before: index plus one, under a tag that changes with every change.
    free: AtomicU64,
    /// A stack's number and the index of its newest instance plus one; 0 where no stack is.
    stacks: Box<[[AtomicU64; WAYS]]>,
    /// Changes whenever a task begins or ends: what is known of its stack's memory may be over then.
    generation: AtomicU64,
}

/// Why something cannot be awaited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

impl Pending {
    pub(crate) fn new(arch: &dyn Arch) -> Self {
        Self {
            stack_shift: arch.thread_size().max(PAGE).ilog2(),
            pops: arch.sp_after_return(0) != 0,
            cells: (0..INSTANCES).map(|_| Cell::new()).collect(),
            fresh: AtomicU32::new(0),
            free: AtomicU64::new(0),
            stacks: (0..LINES).map(|_| std::array::from_fn(|_| AtomicU64::new(0))).collect(),
            generation: AtomicU64::new(0),
        }
    }

    fn stack_of(&self, sp: u64) -> u64 {
        (sp >> self.stack_shift) & (u64::MAX >> INDEX_BITS)
    }

    fn line(&self, stack: u64) -> &[AtomicU64] {
        // Fibonacci hashing: neighbouring stacks fall far apart.
        let hash = stack.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - LINES.ilog2());
        self.stacks.get(hash as usize).map_or(&[], |line| line)
    }

    fn word(&self, stack: u64) -> Option<&AtomicU64> {
        self.line(stack).iter().find(|word| {
            let value = word.load(Ordering::Acquire);
            value != 0 && value >> INDEX_BITS == stack
        })
    }

    /// Takes a stack's word for this thread; with `create` one that nobody uses, if it has none yet.
    fn lock(&self, stack: u64, create: bool) -> Option<List<'_>> {
        for _ in 0..MOST_SPINS {
            let (word, old) = match self.word(stack) {
                Some(word) => (word, word.load(Ordering::Acquire)),
                None if create => (self.line(stack).iter().find(|word| word.load(Ordering::Relaxed) == 0)?, 0),
                None => return None,
            };
            let free = old == 0 && create || old != 0 && old >> INDEX_BITS == stack && old & LOCKED == 0;
            let locked = stack << INDEX_BITS | LOCKED | old & INDEX_MASK;
            // Acquire, paired with the Release in `List::drop`: the list as the last one left it.
            if free && word.compare_exchange(old, locked, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                return Some(List { word, stack, head: (old & INDEX_MASK) as u32 });
            }
            std::hint::spin_loop();
        }
        None
    }

    /// A cell by its index plus one.
    #[inline]
    fn cell(&self, link: u32) -> Option<&Cell> {
        self.cells.get((link as usize).wrapping_sub(1))
    }

    fn take_cell(&self) -> Option<u32> {
        let mut head = self.free.load(Ordering::Acquire);
        while head as u32 != 0 {
            let link = head as u32;
            let next = self.cell(link)?.next_free.load(Ordering::Relaxed);
            let tagged = (head >> 32).wrapping_add(1) << 32 | u64::from(next);
            match self.free.compare_exchange_weak(head, tagged, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Some(link),
                Err(now) => head = now,
            }
        }
        let fresh = self.fresh.fetch_add(1, Ordering::Relaxed);
        if (fresh as usize) < INSTANCES {
            return Some(fresh + 1);
        }
        self.fresh.store(INSTANCES as u32, Ordering::Relaxed);
        None
    }

    /// Gives a cell back that is in no list any more.
    fn free_cell(&self, link: u32, cell: &Cell) {
        let mut head = self.free.load(Ordering::Relaxed);
        loop {
            cell.next_free.store(head as u32, Ordering::Relaxed);
            let tagged = (head >> 32).wrapping_add(1) << 32 | u64::from(link);
            match self.free.compare_exchange_weak(head, tagged, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => head = now,
            }
        }
    }

    /// Waits for `instance`, of whose data the first `data_len` bytes are used.
    ///
    /// # Errors
    /// Everything is in use.
    pub(crate) fn push(&self, instance: &Instance, data_len: usize) -> Result<(), Full> {
        let link = self.take_cell().ok_or(Full)?;
        let cell = self.cell(link).ok_or(Full)?;
        let Some(mut list) = self.lock(self.stack_of(instance.sp), true) else {
            self.free_cell(link, cell);
            return Err(Full);
        };
        cell.next.store(list.head, Ordering::Relaxed);
        cell.store(instance, data_len);
        list.head = link;
        Ok(())
    }

    /// As a hit does it: the stack pointer is `sp`, and then something is waited for.
    #[cfg(test)]
    pub(crate) fn push_at(
        &self,
        instance: &Instance,
        data_len: usize,
        sp: u64,
        over: &mut dyn FnMut(&Instance),
    ) -> Result<(), Full> {
        self.drop_over(sp, over);
        self.push(instance, data_len)
    }

    /// The stack pointer is `sp` now: drops what lies below it on the same page, and tells each to `over`.
    #[inline]
    pub(crate) fn drop_over(&self, sp: u64, over: &mut dyn FnMut(&Instance)) {
        // The newest lies lowest: if it is not over, none is.
        let Some(word) = self.word(self.stack_of(sp)) else { return };
        let newest = self.cell((word.load(Ordering::Acquire) & INDEX_MASK) as u32).and_then(Cell::head);
        if newest.is_none_or(|(_, instance)| instance.is_over(sp, self.pops)) {
            self.sweep(sp, &mut |instance| instance.is_over(sp, self.pops), over);
        }
    }

    /// Something arrives at `addr` with this stack pointer: takes what waited for it, newest first, and tells each to `arrived`.
    /// An instruction ends once: what else its probe awaits here began on another vCPU with an equal stack pointer.
    #[inline]
    pub(crate) fn arrive(&self, sp: u64, addr: u64, arrived: &mut dyn FnMut(&Instance)) {
        let ended: [StdCell<usize>; 8] = std::array::from_fn(|_| StdCell::new(0)); // 0 is no probe's token
        let again =
            |i: &Instance| i.kind == Kind::Post && i.token != 0 && ended.iter().any(|token| token.get() == i.token);
        self.sweep(sp, &mut |i| i.kind != Kind::Restart && i.sp == sp && i.arrives(addr) && !again(i), &mut |i| {
            if let (Kind::Post, Some(free)) = (i.kind, ended.iter().find(|token| token.get() == 0)) {
                free.set(i.token);
            }
            arrived(i);
        });
    }

    /// Takes an instance of exactly this kind, waiter, stack pointer and address; returns whether there was one.
    pub(crate) fn cancel(&self, kind: Kind, token: usize, sp: u64, first: u64) -> bool {
        let mut found = false;
        let mut wanted = |i: &Instance| i.kind == kind && i.token == token && i.sp == sp && i.first == first;
        self.sweep(sp, &mut wanted, &mut |_| found = true);
        found
    }

    /// Takes the restarts of a site for which `wanted` says so, on the stack of `sp`.
    pub(crate) fn take_restarts(
        &self,
        sp: u64,
        wanted: &mut dyn FnMut(&Instance) -> bool,
        taken: &mut dyn FnMut(&Instance),
    ) {
        self.sweep(sp, &mut |instance| instance.kind == Kind::Restart && wanted(instance), taken);
    }

    /// Everything on the stack of `sp` is over: its task has ended, or a new one begins on it.
    pub(crate) fn end_stack(&self, sp: u64, over: &mut dyn FnMut(&Instance)) {
        self.new_generation();
        self.sweep(sp, &mut |_| true, over);
    }

    /// Tasks may have begun or ended unseen.
    pub(crate) fn new_generation(&self) {
        self.generation.fetch_add(1, Ordering::Relaxed);
    }

    /// Another value since the last task began or ended.
    #[inline]
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    /// Takes from the list of a stack what is `wanted`, newest first. The stack is not locked while `taken` runs: that may
    /// take long.
    #[inline]
    fn sweep(&self, sp: u64, wanted: &mut dyn FnMut(&Instance) -> bool, taken: &mut dyn FnMut(&Instance)) {
        let stack = self.stack_of(sp);
        for _ in 0..MOST_STEPS {
            if !self.any(stack, wanted) {
                return;
            }
            let Some(instance) = self.take_one(stack, wanted) else { return };
            taken(&instance);
        }
    }

    /// Whether there is anything to take: without the lock, because most often there is nothing.
    #[inline]
    fn any(&self, stack: u64, wanted: &mut dyn FnMut(&Instance) -> bool) -> bool {
        let Some(word) = self.word(stack) else { return false };
        let mut link = (word.load(Ordering::Acquire) & INDEX_MASK) as u32;
        for _ in 0..MOST_STEPS {
            let Some(cell) = self.cell(link) else { return false };
            if cell.head().is_none_or(|(_, instance)| wanted(&instance)) {
                return true;
            }
            link = cell.next.load(Ordering::Relaxed);
        }
        true
    }

    fn take_one(&self, stack: u64, wanted: &mut dyn FnMut(&Instance) -> bool) -> Option<Instance> {
        let mut list = self.lock(stack, false)?;
        let mut link = list.head;
        let mut before: Option<&Cell> = None;
        for _ in 0..MOST_STEPS {
            let cell = self.cell(link)?;
            let next = cell.next.load(Ordering::Relaxed);
            let head = cell.head();
            if head.is_some_and(|(_, instance)| !wanted(&instance)) {
                before = Some(cell);
                link = next;
                continue;
            }
            match before {
                Some(before) => before.next.store(next, Ordering::Relaxed),
                None => list.head = next,
            }
            let taken = head.filter(|(state, _)| cell.change(*state, FREE)).map(|(_, mut instance)| {
                cell.load_data(&mut instance);
                instance
            });
            if taken.is_none() {
                // Forgotten, perhaps just now: nobody is told.
                cell.state.store(cell.state.load(Ordering::Relaxed) & !KIND | FREE, Ordering::Release);
            }
            self.free_cell(link, cell);
            if taken.is_some() {
                return taken;
            }
            link = next;
        }
        None
    }

    fn used(&self) -> impl Iterator<Item = &Cell> {
        let used = (self.fresh.load(Ordering::Relaxed) as usize).min(INSTANCES);
        self.cells.iter().take(used)
    }

    /// Nobody waits any more for those that are `wanted`; tells `gone` of each. Any thread, at any time.
    pub(crate) fn forget(&self, wanted: impl Fn(&Instance) -> bool, mut gone: impl FnMut(&Instance)) {
        for cell in self.used() {
            let Some((state, instance)) = cell.head().filter(|(_, instance)| wanted(instance)) else { continue };
            if cell.change(state, DEAD) {
                gone(&instance);
            }
        }
    }

    /// Looks at everything that is awaited now.
    pub(crate) fn each(&self, mut look: impl FnMut(&Instance)) {
        self.used().filter_map(Cell::head).for_each(|(_, instance)| look(&instance));
    }
}

/// The list of one stack, while this thread works on it.
#[derive(Debug)]
struct List<'a> {
    word: &'a AtomicU64,
    stack: u64,
    head: u32,
}

impl Drop for List<'_> {
    fn drop(&mut self) {
        let word = if self.head == 0 { 0 } else { self.stack << INDEX_BITS | u64::from(self.head) };
        // Release: see `lock`.
        self.word.store(word, Ordering::Release);
    }
}
