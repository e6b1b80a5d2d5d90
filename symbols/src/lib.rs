//! What a kernel image says: its symbols, its text, its banner.
//!
//! In order: `image` recognises a file by content; `bzimage`, `elf` and `decompress` peel off wrappers; `elf` reads segments
//! and a symbol table; `kallsyms` reads the table that the kernel carries for itself, which the other may be a part of; `map` reads
//! System.map and /proc/kallsyms text. All of them fill one [`SymbolTable`], and `naming` tells which of two spellings the kernel
//! goes by. [`TextIndex`] answers where in the image
//! a piece of guest code lies, which is how the load slide is found with no help from the guest.
//!
//! Images are untrusted: truncated, corrupt or hostile input ends in one [`Error`], with bounded memory and time.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::unreachable)
)]

mod bytes;
mod bzimage;
mod decompress;
mod elf;
mod error;
#[cfg(test)]
mod fuzz_tests;
mod image;
mod kallsyms;
mod lzop;
mod map;
mod naming;
mod parts;
mod patch_sites;
mod several;
mod similar;
mod table;
#[cfg(test)]
mod testing;
mod text_index;

pub use error::{Error, ErrorKind};
pub use image::{KernelImage, Machine, Segment};
pub use naming::before_function;
pub use qkprobe_arch::{ByteOrder, GuestAddr};
pub use table::{Lookup, Symbol, SymbolTable};
pub use text_index::{Location, PageMatch, TextIndex};

/// The most memory that a file may take: that it unpacks to, that it loads, and, if it is no ELF file, that it holds. An ELF
/// file itself may be larger: its debug information is not read. Of the largest distribution kernels 100 MiB are loaded.
pub const MAX_IMAGE_BYTES: usize = 512 << 20;
