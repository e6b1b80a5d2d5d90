//! Why a file cannot serve as a kernel image. Every text says what was found and what to give instead.

use std::io;

/// A file that cannot be used, and why.
#[derive(Debug, thiserror::Error)]
#[error("kernel image {file}: {kind}")]
pub struct Error {
    /// The file as the user named it.
    pub file: String,
    /// What is wrong with it.
    pub kind: ErrorKind,
}

/// What is wrong with a kernel image.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The operating system refused the read (errno in the source).
    #[error("cannot be read: {0}")]
    Read(#[source] io::Error),
    /// A directory instead of a file (EISDIR).
    #[error("is a directory; give the file in it: vmlinux, vmlinuz, System.map or a copy of /proc/kallsyms")]
    Directory,
    /// Not a byte in it (ENODATA).
    #[error("is empty; give a vmlinux, a vmlinuz, a System.map or a copy of /proc/kallsyms")]
    Empty,
    /// It would take more memory than [`crate::MAX_IMAGE_BYTES`] (EFBIG).
    #[error("{what} more than {} MiB, which no kernel needs; {advice}", limit >> 20)]
    TooBig {
        /// `holds`, `loads` or `unpacks to`.
        what: &'static str,
        /// The limit in bytes.
        limit: usize,
        /// What to do.
        advice: &'static str,
    },
    /// Recognised as something else (ENOEXEC).
    #[error("seems to be {seems}; {advice}")]
    NotAKernel {
        /// What it looks like.
        seems: String,
        /// What to do.
        advice: &'static str,
    },
    /// A structure ends before it should (ENOEXEC).
    #[error(
        "{what} at byte {offset:#x} does not fit in the {have} bytes there are: the file is cut short or corrupt; copy it again"
    )]
    CutShort {
        /// Which structure.
        what: &'static str,
        /// Where it begins.
        offset: u64,
        /// How many bytes the file has.
        have: u64,
    },
    /// An ELF file whose headers contradict each other (ENOEXEC).
    #[error("not a readable ELF file: {0}; copy it again, or give the bzImage or the System.map")]
    Elf(String),
    /// A bzImage that this cannot open (ENOEXEC).
    #[error("a bzImage whose boot header is not usable: {0}; give the vmlinux instead")]
    BzImage(String),
    /// The compressed data is corrupt (EBADMSG).
    #[error(
        "{method} data at byte {offset:#x} cannot be unpacked: {reason}; the file is cut short or corrupt: copy it again"
    )]
    Unpack {
        /// `gzip`, `xz`, ...
        method: &'static str,
        /// Where the compressed data begins in the file.
        offset: usize,
        /// The unpacker's words.
        reason: String,
    },
    /// A kernel without kallsyms, and with a symbol table that is not all of it (ENOENT).
    #[error(
        "its symbol table is not the kernel's: it names {names} symbols and no start_kernel, as `strip -K` leaves it, and \
         no kallsyms table was found in it ({came_to}); give a vmlinux that is not stripped, its System.map, or a copy \
         of the guest's /proc/kallsyms"
    )]
    PartOfSymbols {
        /// How many symbols the file names.
        names: usize,
        /// How far the search for kallsyms came.
        came_to: String,
    },
    /// The packed kernel of a boot wrapper is none (ENOEXEC).
    #[error("{wrapper} whose packed kernel begins with {beginning}, which is no ELF file and none of {methods}; give the vmlinux of the same build",
        methods = crate::decompress::METHOD_NAMES)]
    Wrapped {
        /// The wrapper's name.
        wrapper: &'static str,
        /// What the packed kernel begins with.
        beginning: String,
    },
    /// An image with neither symbol table nor kallsyms (ENOENT).
    #[error(
        "has no symbol table, and no kallsyms table was found in it ({0}); give a vmlinux that is not stripped, \
         its System.map, or a copy of the guest's /proc/kallsyms"
    )]
    NoSymbols(String),
    /// More names than any kernel has (E2BIG).
    #[error(
        "holds more than 4 million symbols, or more than 128 MiB of names, which no kernel does: the file is corrupt; copy it again"
    )]
    TooManyNames,
    /// Debian ships a System.map of one line (ENOENT).
    #[error(
        "a System.map without symbols, as Debian ships it; give the vmlinuz of the same kernel instead (its symbols \
         are in there), or the System.map of the -dbg package"
    )]
    SystemMapStub,
    /// All addresses are zero (EPERM).
    #[error(
        "every address in this kallsyms text is 0, because it was read without permission; read it as root with \
         kernel.kptr_restrict=1 or 0 (`sudo cat /proc/kallsyms`)"
    )]
    AddressesHidden,
    /// A line of a symbol text that is none (EINVAL).
    #[error("line {line} is not `ADDRESS TYPE NAME [MODULE]`: {text:?}; give System.map or /proc/kallsyms unchanged")]
    MapLine {
        /// 1-based.
        line: usize,
        /// The line's beginning.
        text: String,
    },
}
