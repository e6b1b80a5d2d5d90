//! The two modes of a CPU in which kernels run: 64-bit mode, and protected mode with 32-bit segments. All that the code
//! of this folder does otherwise in one than in the other hangs on this.
//!
//! Of segments only the bases of FS and GS are looked at: the others are flat in both, as Linux sets them up. (It does not
//! for the few instructions that return to a 16-bit stack of the user's by way of `espfix`, on 32 bits.)

use iced_x86::Instruction;

use crate::GuestAddr;

/// What instructions mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Protected mode, 32-bit code and stack segments.
    Protected,
    /// 64-bit mode.
    Long,
}

impl Mode {
    /// The decoder's number for it.
    pub(super) const fn bitness(self) -> u32 {
        match self {
            Self::Protected => 32,
            Self::Long => 64,
        }
    }

    /// Bytes of an address, of a whole register, and of what a plain `push` stores.
    pub(super) const fn word_bytes(self) -> u8 {
        match self {
            Self::Protected => 4,
            Self::Long => 8,
        }
    }

    /// The bits of an address and of a whole register.
    pub(super) const fn trim(self, value: u64) -> u64 {
        match self {
            Self::Protected => value & 0xffff_ffff,
            Self::Long => value,
        }
    }

    /// The address behind an instruction.
    pub(super) fn behind(self, instruction: &Instruction) -> GuestAddr {
        GuestAddr(self.trim(instruction.next_ip()))
    }
}
