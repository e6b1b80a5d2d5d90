//! What a guest ISA is. Pure and safe: no QEMU, no I/O.
#![forbid(unsafe_code)]

mod addr;

pub use addr::GuestAddr;
