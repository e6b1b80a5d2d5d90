//! x86: the kernels of 64 and of 32 bits. One code for both; what differs hangs on the CPU's mode (`mode`).

mod abi;
#[cfg(test)]
mod abi_tests;
mod decode;
#[cfg(test)]
mod decode_tests;
mod execute;
#[cfg(test)]
mod golden;
mod mode;
mod regs;

use self::mode::Mode;

/// An x86 kernel.
#[derive(Debug)]
pub struct X86 {
    mode: Mode,
}

/// The 64-bit kernel.
pub static X86_64: X86 = X86 { mode: Mode::Long };

/// The 32-bit kernel, with PAE or without.
pub static X86_32: X86 = X86 { mode: Mode::Protected };
