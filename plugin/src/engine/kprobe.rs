//! What a probe is to the engine: the payload that the registry keeps, one per probe.
//!
//! A definition of the user's, a handler of a Rust program, a return probe's entry side, and what the engine itself wants
//! to know of the guest are all the same to a site: a `Kprobe`.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use qkprobe_arch::InsnSlot;
use qkprobe_lang::{Action, Definition, Effects, FaultState, Filter, FlowChange, Halt, Privilege};

use crate::api::handlers::{ReturnHandlers, StepHandlers};
use crate::qemu::inline_count::InlineCounter;

/// What a callback may do to the guest. What a QEMU lacks is refused when the probe is registered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Access {
    /// Reads registers and memory.
    #[default]
    Read,
    /// Writes them, too: QEMU 10.1.
    Write,
    /// And sets the program counter: QEMU 11.0.
    Pc,
}

/// The payload of the registry.
#[derive(Debug)]
pub(crate) struct Kprobe {
    /// Index into the outputs and the counters.
    pub(crate) output: u32,
    pub(crate) privilege: Privilege,
    pub(crate) access: Access,
    /// Set where translated code counts by itself: no callback is needed for this probe.
    pub(crate) inline: Option<InlineCounter>,
    /// Runs at re-executions as well.
    pub(crate) attempts: bool,
    pub(crate) handler: Handler,
}

/// What runs.
#[derive(Debug)]
pub(crate) enum Handler {
    /// A definition, before the instruction.
    Pre(Event),
    /// A definition, after the instruction.
    Post(Event),
    /// A return probe, at the function's entry.
    Return(Kretprobe),
    /// Handlers of a Rust program, before and after the instruction.
    Step(StepHandlers),
    /// The engine's own.
    Watch(Watch),
}

/// What the engine wants to know of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Watch {
    /// A task begins or ends on this stack.
    Stack,
    /// A kernel starts: nothing of an earlier life is pending.
    Life,
}

/// A definition at work.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) definition: Arc<Definition>,
    pub(crate) filter: Option<Filter>,
    pub(crate) action: Action,
    pub(crate) effects: Option<Box<Changes>>,
}

/// What a hit changes.
#[derive(Debug)]
pub(crate) struct Changes {
    pub(crate) effects: Effects,
    pub(crate) state: FaultState,
    /// The decoded instruction of `replace`.
    pub(crate) replacement: Option<InsnSlot>,
}

/// A return probe: its entry handler puts an instance aside, its return handler finds it again.
#[derive(Debug)]
pub(crate) struct Kretprobe {
    pub(crate) work: ReturnWork,
    pub(crate) limit: Option<Limit>,
    needs_time: bool,
}

impl Kretprobe {
    /// Whether anybody asks when the call began.
    fn asks_for_time(work: &ReturnWork) -> bool {
        match work {
            ReturnWork::Event(event) => event.definition.program.needs_entry_time(),
            ReturnWork::Handlers(_) => true,
        }
    }

    pub(crate) fn new(work: ReturnWork, maxactive: Option<u32>) -> Self {
        Self { needs_time: Self::asks_for_time(&work), work, limit: maxactive.map(Limit::new) }
    }

    #[inline]
    pub(crate) fn needs_time(&self) -> bool {
        self.needs_time
    }
}

/// What runs at the return.
#[derive(Debug)]
pub(crate) enum ReturnWork {
    Event(Event),
    Handlers(ReturnHandlers),
}

/// `maxactive`: how many calls may be pending.
#[derive(Debug)]
pub(crate) struct Limit {
    maxactive: i64,
    pending: AtomicI64,
}

impl Limit {
    pub(crate) fn new(maxactive: u32) -> Self {
        Self { maxactive: i64::from(maxactive), pending: AtomicI64::new(0) }
    }

    /// Takes one of the places, if there is one.
    pub(crate) fn take(&self) -> bool {
        let taken = self.pending.fetch_add(1, Ordering::Relaxed) < self.maxactive;
        if !taken {
            self.give_back();
        }
        taken
    }

    pub(crate) fn give_back(&self) {
        self.pending.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Kprobe {
    /// Whether it has something to do before the instruction.
    #[inline]
    pub(crate) fn is_pre(&self) -> bool {
        match &self.handler {
            Handler::Pre(_) | Handler::Return(_) | Handler::Watch(_) => true,
            Handler::Post(_) => false,
            Handler::Step(handlers) => handlers.pre.is_some(),
        }
    }

    /// Whether it holds the vCPU before the instruction.
    pub(crate) fn holds(&self) -> bool {
        let Handler::Pre(event) = &self.handler else { return false };
        event.effects.as_ref().is_some_and(|changes| changes.effects.halt == Some(Halt::Stop))
    }

    /// Whether it has something to do after the instruction.
    #[inline]
    pub(crate) fn is_post(&self) -> bool {
        match &self.handler {
            Handler::Post(_) => true,
            Handler::Pre(_) | Handler::Return(_) | Handler::Watch(_) => false,
            Handler::Step(handlers) => handlers.post.is_some(),
        }
    }
}

impl Event {
    /// Whether a hit has nothing to do but count.
    pub(crate) fn counts_only(&self) -> bool {
        self.action == Action::Count && self.filter.is_none() && self.effects.is_none()
    }
}

impl Changes {
    /// What a callback must be able to do for this.
    pub(crate) fn access(&self) -> Access {
        match (&self.effects.flow, self.effects.sets.is_empty()) {
            (Some(FlowChange::Skip | FlowChange::Replace(_) | FlowChange::Override(_)), _) => Access::Pc,
            (None, false) => Access::Write,
            (None, true) => Access::Read,
        }
    }
}
