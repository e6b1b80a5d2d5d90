//! Counters that translated code adds to by itself, without a callback: QEMU's scoreboards.

use super::api::{Api, INLINE_ADD_U64, Insn, Scoreboard, ScoreboardEntry};
use crate::primitive::Mutex;

/// Counters a scoreboard; one `u64` a counter and a vCPU.
const PER_BOARD: usize = 512;

/// Hands out counters. They live as long as the process, so that a translated block may always add to one.
#[derive(Debug)]
pub(crate) struct InlineCounters {
    api: &'static Api,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    board: Option<Board>,
    used: usize,
}

#[derive(Clone, Copy, Debug)]
struct Board(*mut Scoreboard);

// SAFETY: a scoreboard is QEMU's, and QEMU guards it; the pointer is only handed back to QEMU.
unsafe impl Send for Board {}

/// One counter.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InlineCounter {
    board: Board,
    offset: usize,
}

// SAFETY: as for `Board`.
unsafe impl Sync for InlineCounter {}

impl InlineCounters {
    pub(crate) fn new(api: &'static Api) -> Self {
        Self { api, state: Mutex::new(State::default()) }
    }

    /// A new counter, at zero.
    pub(crate) fn allocate(&self) -> InlineCounter {
        let mut state = self.state.lock();
        let board = match state.board {
            Some(board) if state.used < PER_BOARD => board,
            _ => {
                // SAFETY: may be called from any thread; QEMU zeroes it.
                let board = Board(unsafe { (self.api.scoreboard_new)(PER_BOARD * size_of::<u64>()) });
                state.board = Some(board);
                state.used = 0;
                board
            }
        };
        let offset = state.used * size_of::<u64>();
        state.used += 1;
        InlineCounter { board, offset }
    }

    /// Its sum over all vCPUs.
    pub(crate) fn sum(&self, counter: InlineCounter) -> u64 {
        // SAFETY: the scoreboard lives as long as the process.
        unsafe { (self.api.u64_sum)(counter.entry()) }
    }

    /// Makes the instruction add one each time it executes. Only in the translation callback.
    pub(crate) fn plant(&self, insn: *mut Insn, counter: InlineCounter) {
        // SAFETY: `insn` belongs to the block that is being translated.
        unsafe { (self.api.register_vcpu_insn_exec_inline_per_vcpu)(insn, INLINE_ADD_U64, counter.entry(), 1) };
    }
}

impl InlineCounter {
    /// One that is never planted.
    #[cfg(test)]
    pub(crate) fn for_tests() -> Self {
        Self { board: Board(std::ptr::null_mut()), offset: 0 }
    }

    fn entry(self) -> ScoreboardEntry {
        ScoreboardEntry { score: self.board.0, offset: self.offset }
    }
}
