//! x86: the 64-bit kernel ABI. i386 joins this folder as a second `Arch` over the same decoder.

mod abi;
mod decode;
mod execute;
#[cfg(test)]
mod golden;
mod regs;

pub use abi::X86_64;
