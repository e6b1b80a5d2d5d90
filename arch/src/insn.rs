//! A decoded instruction and its slot: the copy that registration makes, once per address.

use std::fmt;

use crate::GuestAddr;

/// The longest instruction of any ISA (x86: 15) fits.
pub const MAX_INSN_BYTES: usize = 16;

/// Where execution goes after an instruction; on an ISA with delay slots, after the instruction and its delay slot, which
/// `Arch::has_delay_slot` tells of. "The next instruction" is then the one behind the delay slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// To the next instruction.
    Next,
    /// To `target`, always.
    Jump {
        /// Destination.
        target: GuestAddr,
    },
    /// To `target` or to the next instruction. Counting branches (`loop`, `bdnz`) are among them.
    Branch {
        /// Destination when taken.
        target: GuestAddr,
    },
    /// To an address in a register or in memory.
    IndirectJump,
    /// A call of `target`; the return address is the next instruction.
    Call {
        /// The callee.
        target: GuestAddr,
    },
    /// A call through a register or memory.
    IndirectCall,
    /// Back to the caller.
    Return,
    /// A trap, system call, return from interrupt, far transfer: leaves the straight line through the machine (another
    /// privilege, mode or code segment), or ends it (`ud2`).
    Trap,
}

impl fmt::Display for Flow {
    /// One word, then the destination when the instruction holds one: `next`, `branch 0xffffffff81000040`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Next => f.write_str("next"),
            Self::Jump { target } => write!(f, "jump {target}"),
            Self::Branch { target } => write!(f, "branch {target}"),
            Self::IndirectJump => f.write_str("indirect-jump"),
            Self::Call { target } => write!(f, "call {target}"),
            Self::IndirectCall => f.write_str("indirect-call"),
            Self::Return => f.write_str("return"),
            Self::Trap => f.write_str("trap"),
        }
    }
}

/// One decoded instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Insn {
    /// Its length in bytes.
    pub len: u8,
    /// Where it goes.
    pub flow: Flow,
}

/// Why bytes are no instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// No such instruction.
    #[error("no valid instruction at {addr}")]
    Invalid {
        /// Where.
        addr: GuestAddr,
    },
    /// The bytes end inside the instruction.
    #[error("the instruction at {addr} is cut short")]
    CutShort {
        /// Where.
        addr: GuestAddr,
    },
}

/// Why an address is no instruction boundary. The kernel's errno is EILSEQ (x86) or EINVAL (powerpc).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BoundaryError {
    /// Another instruction covers the address.
    #[error("{addr} is inside the instruction at {start} ({len} bytes)")]
    Inside {
        /// The address asked for.
        addr: GuestAddr,
        /// Where the covering instruction starts.
        start: GuestAddr,
        /// Its length.
        len: u8,
    },
    /// Not aligned as the ISA demands.
    #[error("{addr} is not aligned to {align} bytes")]
    Unaligned {
        /// The address asked for.
        addr: GuestAddr,
        /// The demanded alignment.
        align: u8,
    },
    /// Decoding from the function's start came to no end before the address.
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

/// The out-of-line copy of a probed instruction. One per address, not per probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InsnSlot {
    bytes: [u8; MAX_INSN_BYTES],
    /// The decoded form.
    pub insn: Insn,
}

impl InsnSlot {
    /// Copies and decodes the instruction at the start of `text`.
    ///
    /// # Errors
    /// What `Arch::decode` says.
    pub fn prepare(arch: &dyn crate::Arch, addr: GuestAddr, text: &[u8]) -> Result<Self, DecodeError> {
        let insn = arch.decode(addr, text)?;
        let mut bytes = [0; MAX_INSN_BYTES];
        let len = usize::from(insn.len);
        let source = text.get(..len).ok_or(DecodeError::CutShort { addr })?;
        bytes.get_mut(..len).ok_or(DecodeError::Invalid { addr })?.copy_from_slice(source);
        Ok(Self { bytes, insn })
    }

    /// The copied instruction.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.insn.len)]
    }
}
