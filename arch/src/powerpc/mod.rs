//! powerpc: 64-bit kernels of both byte orders, and 32-bit ones.

mod abi;
mod decode;
mod execute;
mod frame;
#[cfg(test)]
mod golden;
mod opcodes;
mod regs;
mod word;

use crate::ByteOrder;

/// One of the three kernels. They differ in width and byte order alone.
#[derive(Debug)]
pub struct Powerpc {
    name: &'static str,
    is_64: bool,
    order: ByteOrder,
}

/// 64 bits, little-endian: ELFv2.
pub static PPC64LE: Powerpc = Powerpc { name: "ppc64le", is_64: true, order: ByteOrder::Little };
/// 64 bits, big-endian: ELFv1, or ELFv2 by configuration (CONFIG_PPC64_BIG_ENDIAN_ELF_ABI_V2).
pub static PPC64: Powerpc = Powerpc { name: "ppc64", is_64: true, order: ByteOrder::Big };
/// 32 bits, big-endian.
pub static PPC: Powerpc = Powerpc { name: "ppc", is_64: false, order: ByteOrder::Big };
