//! A kernel image of any form: recognised by content, unwrapped, read.

use std::fs;
use std::io::{Read, Seek};
use std::path::Path;
use std::sync::Arc;

use qkprobe_arch::{ByteOrder, GuestAddr};

use crate::MAX_IMAGE_BYTES;
use crate::bytes::beginning;
use crate::decompress::Method;
use crate::error::{Error, ErrorKind};
use crate::parts::Parts;
use crate::patch_sites::PatchSites;
use crate::table::{Builder, Lookup, SymbolTable};
use crate::{bzimage, elf, kallsyms, map};

/// How many wrappers are peeled off (a gzipped bzImage is two).
const MAX_WRAPPERS: u32 = 3;
const ELF_MAGIC: &[u8] = b"\x7fELF";

/// Which machine an image runs on, by ELF's `e_machine`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machine {
    /// 32-bit x86.
    I386,
    /// 64-bit x86.
    X86_64,
    /// 32-bit PowerPC.
    Ppc,
    /// 64-bit PowerPC, either byte order.
    Ppc64,
    /// 64-bit SPARC.
    Sparc64,
    /// Another machine: its `e_machine` number.
    Other(u16),
    /// A text of symbols does not say.
    Unknown,
}

impl Machine {
    pub(crate) fn from_elf(number: u16) -> Self {
        match number {
            3 => Self::I386,
            62 => Self::X86_64,
            20 => Self::Ppc,
            21 => Self::Ppc64,
            43 => Self::Sparc64,
            other => Self::Other(other),
        }
    }
}

/// A piece of memory that the image's file fills.
#[derive(Clone, Debug)]
pub struct Segment {
    /// Where it is linked to run.
    pub addr: GuestAddr,
    /// Where it is loaded.
    pub phys: u64,
    /// The file's bytes; memory behind them (bss) is not in here.
    pub bytes: Arc<[u8]>,
    /// The segment's execute flag. Linux 7 marks the segment of its init text as not executable.
    pub executable: bool,
}

/// What one file says about a kernel.
#[derive(Debug)]
pub struct KernelImage {
    /// All names. Addresses are link-time ones, except from /proc/kallsyms.
    pub symbols: SymbolTable,
    /// The memory that the file fills; none for a text of symbols.
    pub segments: Vec<Segment>,
    /// `Linux version 6.1.0-...`, up to the line's end.
    pub banner: Option<String>,
    /// The machine it runs on.
    pub machine: Machine,
    /// The byte order of its memory; `None` for a text of symbols.
    pub byte_order: Option<ByteOrder>,
    /// Sections of code, when the file names them: `(first address, address after the last)`.
    pub(crate) text_sections: Vec<(u64, u64)>,
    /// Where the kernel patches its text when it boots.
    pub(crate) patch_sites: PatchSites,
    /// Why it has no symbols: another file may have them, see [`KernelImage::load_all`].
    pub(crate) unnamed: Option<ErrorKind>,
}

impl KernelImage {
    /// Reads a file: ELF vmlinux, bzImage, either of them packed, System.map, or /proc/kallsyms text.
    ///
    /// # Errors
    /// The file cannot be read, is no kernel image, is corrupt, or has no symbols. The text says what to give instead.
    pub fn load(path: &Path) -> Result<Self, Error> {
        Self::load_all(path, &[])
    }

    /// The same from memory; `name` is for messages.
    ///
    /// # Errors
    /// As [`KernelImage::load`].
    pub fn parse(name: &str, bytes: Vec<u8>) -> Result<Self, Error> {
        read(bytes).and_then(Self::named).map_err(|kind| Error { file: name.to_owned(), kind })
    }

    /// An image that comes from elsewhere than a file: its symbols and its memory.
    #[must_use]
    pub fn from_parts(
        mut symbols: SymbolTable,
        segments: Vec<Segment>,
        banner: Option<String>,
        machine: Machine,
    ) -> Self {
        symbols.name_as_kernel(banner.as_deref());
        Self {
            symbols,
            segments,
            banner,
            machine,
            byte_order: None,
            text_sections: Vec::new(),
            patch_sites: PatchSites::default(),
            unnamed: None,
        }
    }

    /// The image's bytes at a link-time address; `None` where the file has none.
    #[must_use]
    pub fn bytes(&self, addr: GuestAddr, len: usize) -> Option<&[u8]> {
        bytes_at(&self.segments, addr, len)
    }

    /// The piece of text that overlaps with `start..end` and that the kernel replaces when it boots, by instructions that may
    /// begin elsewhere: its first address, and the one after its last.
    #[must_use]
    pub fn patched_at_boot(&self, start: GuestAddr, end: GuestAddr) -> Option<(GuestAddr, GuestAddr)> {
        self.patch_sites.around(&self.symbols, &self.segments, start, end)
    }
}

/// Bytes that lie within one segment.
pub(crate) fn bytes_at(segments: &[Segment], addr: GuestAddr, len: usize) -> Option<&[u8]> {
    segments.iter().find_map(|segment| {
        let offset = usize::try_from(addr.0.checked_sub(segment.addr.0)?).ok()?;
        segment.bytes.get(offset..offset.checked_add(len)?)
    })
}

/// What a file begins with tells most kinds.
const HEAD_BYTES: u64 = 4096;

/// One file, which may lack symbols. An ELF file is read by parts, whatever its size; it may change or shrink meanwhile. Any other
/// is read as a whole.
pub(crate) fn load(path: &Path) -> Result<KernelImage, ErrorKind> {
    let mut file = fs::File::open(path).map_err(ErrorKind::Read)?;
    let meta = file.metadata().map_err(ErrorKind::Read)?;
    if meta.is_dir() {
        return Err(ErrorKind::Directory);
    }
    let mut bytes = Vec::new();
    (&file).take(HEAD_BYTES).read_to_end(&mut bytes).map_err(ErrorKind::Read)?;
    if meta.is_file() && bytes.starts_with(ELF_MAGIC) {
        file.rewind().map_err(ErrorKind::Read)?;
        return match elf::parse(&Parts::new(file, MAX_IMAGE_BYTES))? {
            elf::File::Plain(elf) => of_elf(elf),
            elf::File::Wrapped(kernel) => read(kernel),
        };
    }
    // Not by the size: /proc files say 0.
    let limit = MAX_IMAGE_BYTES as u64 + 1 - HEAD_BYTES;
    let known = !bzimage::is_bzimage(&bytes) && other_format(&bytes).is_some();
    if !known {
        file.take(limit).read_to_end(&mut bytes).map_err(ErrorKind::Read)?;
    }
    if bytes.len() > MAX_IMAGE_BYTES {
        let advice = "give a vmlinux, a vmlinuz, a System.map or a copy of /proc/kallsyms";
        return Err(ErrorKind::TooBig { what: "is no ELF file and holds", limit: MAX_IMAGE_BYTES, advice });
    }
    read(bytes)
}

fn read(mut bytes: Vec<u8>) -> Result<KernelImage, ErrorKind> {
    for _ in 0..MAX_WRAPPERS {
        if bytes.is_empty() {
            return Err(ErrorKind::Empty);
        }
        if bytes.starts_with(ELF_MAGIC) {
            match elf::parse(bytes.as_slice())? {
                elf::File::Plain(elf) => return of_elf(elf),
                elf::File::Wrapped(kernel) => bytes = kernel,
            }
            continue;
        }
        if bzimage::is_bzimage(&bytes) {
            bytes = bzimage::unpack(&bytes)?;
            continue;
        }
        if let Some(error) = other_format(&bytes) {
            return Err(error);
        }
        if map::is_map(&bytes) {
            return Ok(KernelImage {
                symbols: map::parse(&bytes)?.finish(),
                segments: Vec::new(),
                banner: None,
                machine: Machine::Unknown,
                byte_order: None,
                text_sections: Vec::new(),
                patch_sites: PatchSites::default(),
                unnamed: None,
            });
        }
        match Method::of(&bytes) {
            Some(method) => bytes = method.unpack(&bytes, 0)?,
            None => {
                return Err(ErrorKind::NotAKernel {
                    seems: format!("no kernel (it begins with {})", beginning(&bytes)),
                    advice: "give a vmlinux, a vmlinuz, a System.map or a copy of /proc/kallsyms",
                });
            }
        }
    }
    Err(ErrorKind::NotAKernel {
        seems: format!("packed more than {MAX_WRAPPERS} times"),
        advice: "unpack it, and give the vmlinux",
    })
}

fn of_elf(mut elf: elf::Elf) -> Result<KernelImage, ErrorKind> {
    let named = std::mem::take(&mut elf.symbols);
    let Named { mut symbols, banner, unnamed } = symbols_and_banner(&elf.segments, elf.order, elf.word_bytes, named)?;
    // x86_64 before 6.15 links the first copy of its per-CPU variables to 0: nothing of the kernel is there.
    if let Some((start, end)) = symbols.kernel_range() {
        let segment_end = |segment: &Segment| segment.addr.0.saturating_add(segment.bytes.len() as u64);
        elf.segments.retain(|segment| segment.addr.0 < end && segment_end(segment) > start);
    }
    symbols.name_as_kernel(banner.as_deref());
    Ok(KernelImage {
        symbols,
        segments: elf.segments,
        banner,
        machine: elf.machine,
        byte_order: Some(elf.order),
        text_sections: elf.text,
        patch_sites: PatchSites::default(),
        unnamed,
    })
}

/// What an ELF file names.
struct Named {
    symbols: SymbolTable,
    banner: Option<String>,
    /// Why there are no symbols.
    unnamed: Option<ErrorKind>,
}

/// The kernel resolves names by its own table, kallsyms. A symbol table of ELF has all of that and more; one that has not
/// is what `strip` left of it, and only adds to kallsyms. Without kallsyms it must be a kernel's, if the image is one.
fn symbols_and_banner(
    segments: &[Segment],
    order: ByteOrder,
    word_bytes: usize,
    named: Builder,
) -> Result<Named, ErrorKind> {
    let extents = named.only_extents();
    let mut named = named.finish();
    let mut unnamed = None;
    match kallsyms::read(segments, order, word_bytes, extents) {
        Ok(own) => {
            let mut own = own.finish();
            if named.lacks(&own) {
                own.merge(&named)?;
                named = own;
            }
        }
        Err(kind @ ErrorKind::NoSymbols(_)) if named.is_empty() => unnamed = Some(kind),
        Err(ErrorKind::NoSymbols(came_to)) => {
            let is_part = named.lookup(None, "start_kernel") == Lookup::None;
            if is_part && find_banner(segments, &named).is_some() {
                unnamed = Some(ErrorKind::PartOfSymbols { names: named.len(), came_to });
                named = SymbolTable::default();
            }
        }
        Err(error) => return Err(error),
    }
    let banner = find_banner(segments, &named);
    Ok(Named { symbols: named, banner, unnamed })
}

/// What `linux_banner` says; without that symbol, the first text of its form, and better one with the build's number: Linux 6
/// leaves another without it behind.
fn find_banner(segments: &[Segment], symbols: &SymbolTable) -> Option<String> {
    const START: &[u8] = b"Linux version ";
    let line = |text: &[u8]| {
        let text = text.get(..512).unwrap_or(text);
        let end = text.iter().position(|byte| matches!(byte, 0 | b'\n')).unwrap_or(text.len());
        String::from_utf8_lossy(text.get(..end).unwrap_or_default()).into_owned()
    };
    if let Lookup::One(symbol) = symbols.lookup(None, "linux_banner") {
        let named = segments.iter().find_map(|segment| {
            let offset = usize::try_from(symbol.addr.0.checked_sub(segment.addr.0)?).ok()?;
            segment.bytes.get(offset..).filter(|text| text.starts_with(START))
        });
        if let Some(text) = named {
            return Some(line(text));
        }
    }
    let mut found: Option<String> = None;
    for segment in segments {
        let texts = memchr::memmem::find_iter(&segment.bytes, START).filter_map(|offset| segment.bytes.get(offset..));
        for text in texts.filter(|text| text.get(START.len()).is_some_and(u8::is_ascii_digit)).take(64) {
            let text = line(text);
            let numbered =
                text.split_once(" #").is_some_and(|(_, rest)| rest.starts_with(|c: char| c.is_ascii_digit()));
            if numbered {
                return Some(text);
            }
            found.get_or_insert(text);
        }
    }
    found
}

/// Files that users give by mistake.
fn other_format(bytes: &[u8]) -> Option<ErrorKind> {
    let begins = |magic: &[u8]| bytes.starts_with(magic);
    let at = |offset: usize, magic: &[u8]| bytes.get(offset..).is_some_and(|rest| rest.starts_with(magic));
    let (seems, advice) = if begins(b"070701") || begins(b"070702") || begins(b"070707") || begins(&[0xc7, 0x71]) {
        ("an initramfs (a cpio archive)", "give the kernel (vmlinuz or vmlinux), not its initrd")
    } else if begins(b"!<arch>\n") {
        ("a package or library (an ar archive)", "unpack it (`dpkg-deb -x`) and give the vmlinuz in its boot folder")
    } else if begins(&[0xed, 0xab, 0xee, 0xdb]) {
        ("an rpm package", "unpack it (`rpm2cpio`) and give the vmlinuz in it")
    } else if at(257, b"ustar") {
        ("a tar archive", "unpack it and give the vmlinuz or vmlinux in it")
    } else if begins(b"MZ") && at(4, b"zimg") {
        ("an EFI zboot image (arm64, riscv, loongarch)", "give the vmlinux of the same build")
    } else if at(0x38, b"ARM\x64") {
        ("an arm64 Image", "give the vmlinux of the same build")
    } else if begins(&[0x27, 0x05, 0x19, 0x56]) {
        ("a U-Boot image", "give the vmlinux of the same build")
    } else if begins(b"MZ") {
        ("a Windows or EFI program", "give the kernel's vmlinuz or vmlinux")
    } else if begins(b"PK\x03\x04") {
        ("a zip archive", "unpack it and give the vmlinuz or vmlinux in it")
    } else if begins(&[0xd0, 0x0d, 0xfe, 0xed]) {
        ("a device tree or FIT image", "give the vmlinux of the same build")
    } else if begins(&[0x04, 0x22, 0x4d, 0x18]) {
        ("packed in the new LZ4 frame, which no kernel is", "unpack it (`lz4 -d`)")
    } else if begins(&[0x01, 0xdf]) || begins(&[0x01, 0xf7]) {
        ("an XCOFF boot image (zImage.coff)", "give the vmlinux of the same build")
    } else if begins(&[0x01, 0x03, 0x01, 0x07]) {
        ("a SPARC a.out boot image", "give the vmlinux of the same build")
    } else if begins(b"QFI\xfb") {
        ("a qcow2 disk image", "give the kernel that boots from it")
    } else {
        return None;
    };
    Some(ErrorKind::NotAKernel { seems: seems.into(), advice })
}

#[cfg(test)]
mod tests;
