//! sparc64: SPARC V9 as a 64-bit Linux kernel runs it on sun4u and sun4v.

mod abi;
mod decode;
mod execute;
#[cfg(test)]
mod golden;
mod mmu;
mod opcode;
mod regs;
mod transfer;
mod word;

pub use abi::Sparc64;
