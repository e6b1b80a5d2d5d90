//! Probes as a user describes them, before they are registered.

use std::fmt;

use qkprobe_arch::GuestAddr;
use qkprobe_lang::Privilege;

use super::handlers::{DATA_BYTES, EntryFn, Hit, PostFn, Pre, PreFn, ReturnFn};
use crate::engine::kprobe::Access;

/// Where, as the user says it.
#[derive(Clone, Debug)]
pub(super) enum At {
    /// `[MOD:]SYM[+OFF]`.
    Symbol(String),
    Addr(GuestAddr),
}

/// What both kinds have.
#[derive(Clone, Debug)]
pub(super) struct Common {
    pub(super) at: At,
    pub(super) offset: u64,
    pub(super) name: Option<String>,
    pub(super) enabled: bool,
    pub(super) access: Access,
}

impl Common {
    fn new(at: At) -> Self {
        Self { at, offset: 0, name: None, enabled: true, access: Access::Read }
    }
}

/// The methods that both kinds have.
macro_rules! common_methods {
    () => {
        /// At `[MOD:]SYM[+OFF]`, OFF in decimal or `0x` hexadecimal. On x86 a function that begins with ENDBR is probed
        /// behind it: offset 0 and offset 4 are one place.
        #[must_use]
        pub fn at(symbol: impl Into<String>) -> Self {
            Self::new(At::Symbol(symbol.into()))
        }

        /// At an address: as linked (as `nm` and System.map show it) if it lies in the kernel image, which may run elsewhere;
        /// else the running guest's.
        #[must_use]
        pub fn at_addr(addr: u64) -> Self {
            Self::new(At::Addr(GuestAddr(addr)))
        }

        /// So many bytes behind; adds to what `at` says.
        #[must_use]
        pub fn offset(mut self, bytes: u64) -> Self {
            self.common.offset = self.common.offset.wrapping_add(bytes);
            self
        }

        /// The name in summary, list and profile, in the group `rust`: letters, digits and `_`, at most 63, and no other Rust
        /// probe may have it. Without it the name is the symbol's, made unique.
        #[must_use]
        pub fn named(mut self, name: impl Into<String>) -> Self {
            self.common.name = Some(name.into());
            self
        }

        /// Registered, but silent until `Guest::enable`.
        #[must_use]
        pub fn disabled(mut self) -> Self {
            self.common.enabled = false;
            self
        }

        /// The handlers may write registers and memory of the guest: QEMU 10.1.
        #[must_use]
        pub fn changes_state(mut self) -> Self {
            self.common.access = self.common.access.max(Access::Write);
            self
        }
    };
}

/// A probe of an instruction. It is registered by `Guest::register`; without handlers it only counts.
pub struct Kprobe {
    pub(super) common: Common,
    pub(super) privilege: Privilege,
    pub(super) pre: Option<Box<PreFn>>,
    pub(super) post: Option<Box<PostFn>>,
}

impl Kprobe {
    fn new(at: At) -> Self {
        Self { common: Common::new(at), privilege: Privilege::default(), pre: None, post: None }
    }

    common_methods!();

    /// Runs before the instruction. Of several probes of a place the one registered last runs first.
    #[must_use]
    pub fn pre_handler(mut self, handler: impl Fn(&mut Hit<'_>) -> Pre + Send + Sync + 'static) -> Self {
        self.pre = Some(Box::new(handler));
        self
    }

    /// Runs after the instruction, wherever it has led: `Hit::next_pc` tells.
    #[must_use]
    pub fn post_handler(mut self, handler: impl Fn(&mut Hit<'_>) + Send + Sync + 'static) -> Self {
        self.post = Some(Box::new(handler));
        self
    }

    /// Whose executions count, where user programs may execute at the address as well. Otherwise the kernel's.
    #[must_use]
    pub fn privilege(mut self, privilege: Privilege) -> Self {
        self.privilege = privilege;
        self
    }

    /// The pre handler may answer `Pre::JumpTo`, and whatever `changes_state` allows: QEMU 11.0.
    #[must_use]
    pub fn changes_flow(mut self) -> Self {
        self.common.access = Access::Pc;
        self
    }
}

/// A probe of a function's entry and of its return. It is registered by `Guest::register_kretprobe`. The guest's stack and
/// registers stay as they are: there is no trampoline.
pub struct Kretprobe {
    pub(super) common: Common,
    pub(super) maxactive: Option<u32>,
    pub(super) entry: Option<Box<EntryFn>>,
    pub(super) handler: Option<Box<ReturnFn>>,
}

impl Kretprobe {
    fn new(at: At) -> Self {
        Self { common: Common::new(at), maxactive: None, entry: None, handler: None }
    }

    common_methods!();

    /// Most calls that are awaited at a time; what is beyond counts as missed. Without it there is no such limit. (The
    /// kernel's default is a small number; here a call costs no memory of the guest.)
    #[must_use]
    pub fn maxactive(mut self, calls: u32) -> Self {
        self.maxactive = Some(calls);
        self
    }

    /// Runs at the entry. What it leaves in the data, its return handler gets; false: this return is of no interest. (The
    /// kernel's answer is the other way round: 0 awaits the return.)
    #[must_use]
    pub fn entry_handler(
        mut self,
        handler: impl Fn(&mut Hit<'_>, &mut [u8; DATA_BYTES]) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.entry = Some(Box::new(handler));
        self
    }

    /// Runs where the function has returned to. Of several probes of a function the one registered first runs first.
    #[must_use]
    pub fn handler(mut self, handler: impl Fn(&mut Hit<'_>, &[u8; DATA_BYTES]) + Send + Sync + 'static) -> Self {
        self.handler = Some(Box::new(handler));
        self
    }
}

/// Either, for `Guest::register_all`.
#[derive(Debug)]
pub enum Probe {
    /// Of an instruction.
    Kprobe(Kprobe),
    /// Of a function's return.
    Kretprobe(Kretprobe),
}

impl From<Kprobe> for Probe {
    fn from(probe: Kprobe) -> Self {
        Self::Kprobe(probe)
    }
}

impl From<Kretprobe> for Probe {
    fn from(probe: Kretprobe) -> Self {
        Self::Kretprobe(probe)
    }
}

impl fmt::Debug for Kprobe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kprobe").field("common", &self.common).finish_non_exhaustive()
    }
}

impl fmt::Debug for Kretprobe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kretprobe").field("common", &self.common).finish_non_exhaustive()
    }
}
