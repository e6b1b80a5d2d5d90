//! ELF vmlinux: loadable segments, and the symbol table when there is one. Of a boot wrapper, the packed kernel in it.
//!
//! Only what is wanted is read: most of a file of 600 MB is debug information.

use std::sync::Arc;

use object::elf;
use object::read::elf::{FileHeader, ProgramHeader, SectionHeader, SectionTable, Sym};
use object::{Endianness, ReadRef};
use qkprobe_arch::{ByteOrder, GuestAddr};

use crate::MAX_IMAGE_BYTES;
use crate::bytes::beginning;
use crate::decompress::Method;
use crate::error::ErrorKind;
use crate::image::{Machine, Segment};
use crate::table::{Builder, MAX_SYMBOLS};

/// Kernels have 3 to 6.
const MAX_SEGMENTS: usize = 64;
/// Kernels have some 10 sections of code.
const MAX_TEXT_SECTIONS: usize = 1024;

/// Boot wrappers that are ELF files themselves: the section with the packed kernel, and what the file is called.
const WRAPPERS: [(&[u8], &str); 2] =
    [(b".kernel:vmlinux.strip", "a powerpc zImage"), (b".rodata..compressed", "an arch/x86/boot/compressed/vmlinux")];

/// What an ELF file is.
pub(crate) enum File {
    /// An executable.
    Plain(Elf),
    /// A boot wrapper: the kernel in it, unpacked.
    Wrapped(Vec<u8>),
}

/// What an ELF file says.
pub(crate) struct Elf {
    pub(crate) machine: Machine,
    pub(crate) order: ByteOrder,
    pub(crate) word_bytes: usize,
    pub(crate) segments: Vec<Segment>,
    /// Sections of code, when the file has section headers: `(first address, address after the last)`.
    pub(crate) text: Vec<(u64, u64)>,
    /// With the extents set; without symbols when the file is stripped.
    pub(crate) symbols: Builder,
}

/// Reads an ELF file of any class and byte order.
pub(crate) fn parse<'a, R: ReadRef<'a>>(file: R) -> Result<File, ErrorKind> {
    match file.read_bytes_at(4, 1) {
        Ok([1]) => read::<elf::FileHeader32<Endianness>, R>(file, 4),
        Ok([2]) => read::<elf::FileHeader64<Endianness>, R>(file, 8),
        Ok(class) => Err(ErrorKind::Elf(format!(
            "its class byte is {}, not 1 (32-bit) or 2 (64-bit)",
            class.first().unwrap_or(&0)
        ))),
        Err(()) => Err(ErrorKind::CutShort { what: "the ELF header", offset: 0, have: length(file) }),
    }
}

fn length<'a, R: ReadRef<'a>>(file: R) -> u64 {
    file.len().unwrap_or_default()
}

fn corrupt(error: object::read::Error) -> ErrorKind {
    ErrorKind::Elf(error.to_string())
}

fn read<'a, E: FileHeader<Endian = Endianness>, R: ReadRef<'a>>(file: R, word_bytes: usize) -> Result<File, ErrorKind> {
    let header = E::parse(file).map_err(corrupt)?;
    let endian = header.endian().map_err(corrupt)?;
    match header.e_type(endian) {
        elf::ET_EXEC | elf::ET_DYN => {}
        elf::ET_REL => {
            return Err(ErrorKind::NotAKernel {
                seems: "a kernel module or object file (relocatable ELF)".into(),
                advice: "give the vmlinux; symbols of modules come from a copy of /proc/kallsyms",
            });
        }
        elf::ET_CORE => {
            return Err(ErrorKind::NotAKernel {
                seems: "a core dump".into(),
                advice: "give the vmlinux of the kernel that it is of",
            });
        }
        other => return Err(ErrorKind::Elf(format!("its type is {}, not an executable", other.0))),
    }
    let sections = header.sections(endian, file).map_err(corrupt)?;
    if let Some(kernel) = wrapped_kernel(&sections, endian, file)? {
        return Ok(File::Wrapped(kernel));
    }
    let machine = Machine::from_elf(header.e_machine(endian).0);
    let mut segments = Vec::new();
    let mut symbols = Builder::default();
    let mut total = 0u64;
    for program_header in header.program_headers(endian, file).map_err(corrupt)? {
        if program_header.p_type(endian) != elf::PT_LOAD {
            continue;
        }
        let addr: u64 = program_header.p_vaddr(endian).into();
        let offset: u64 = program_header.p_offset(endian).into();
        let file_bytes: u64 = program_header.p_filesz(endian).into();
        let memory_bytes: u64 = program_header.p_memsz(endian).into();
        let cut = || ErrorKind::CutShort { what: "a segment", offset, have: length(file) };
        if offset.checked_add(file_bytes).is_none_or(|end| end > length(file)) {
            return Err(cut());
        }
        // Overlapping segments could otherwise multiply a file into any amount of memory.
        total = total.saturating_add(file_bytes);
        if total > length(file) {
            return Err(ErrorKind::Elf("its segments hold more bytes than the file".into()));
        }
        if total > MAX_IMAGE_BYTES as u64 {
            return Err(ErrorKind::TooBig {
                what: "loads",
                limit: MAX_IMAGE_BYTES,
                advice: "give the guest's vmlinux",
            });
        }
        let data = file.read_bytes_at(offset, file_bytes).map_err(|()| cut())?;
        let end = addr
            .checked_add(memory_bytes.max(file_bytes))
            .ok_or_else(|| ErrorKind::Elf(format!("the segment at {addr:#x} wraps around the address space")))?;
        if segments.len() == MAX_SEGMENTS {
            return Err(ErrorKind::Elf(format!("it has more than {MAX_SEGMENTS} segments")));
        }
        symbols.extents([(addr, end)]);
        if !data.is_empty() {
            segments.push(Segment {
                addr: GuestAddr(addr),
                phys: program_header.p_paddr(endian).into(),
                bytes: Arc::from(data),
                executable: program_header.p_flags(endian).0 & elf::PF_X.0 != 0,
            });
        }
    }
    read_symbols(&sections, endian, file, &mut symbols)?;
    let text = sections.iter().filter_map(|section| {
        let flags = section.sh_flags(endian).0;
        // Linux 6.16 and later have an executable .data on x86.
        let code =
            flags & elf::SHF_EXECINSTR.0 != 0 && flags & (elf::SHF_WRITE.0 | elf::SHF_ALLOC.0) == elf::SHF_ALLOC.0;
        let addr: u64 = section.sh_addr(endian).into();
        code.then_some((addr, addr.checked_add(section.sh_size(endian).into())?))
    });
    let text = text.take(MAX_TEXT_SECTIONS).collect();
    let order = match endian {
        Endianness::Little => ByteOrder::Little,
        Endianness::Big => ByteOrder::Big,
    };
    Ok(File::Plain(Elf { machine, order, word_bytes, segments, text, symbols }))
}

/// The kernel in a boot wrapper, unpacked; `None` when the file is no wrapper.
fn wrapped_kernel<'a, E: FileHeader<Endian = Endianness>, R: ReadRef<'a>>(
    sections: &SectionTable<'a, E, R>,
    endian: Endianness,
    file: R,
) -> Result<Option<Vec<u8>>, ErrorKind> {
    let found = WRAPPERS.iter().find_map(|(section, wrapper)| {
        sections.section_by_name(endian, section).map(|(_, section)| (section, *wrapper))
    });
    let Some((section, wrapper)) = found else { return Ok(None) };
    let offset = section.sh_offset(endian).into();
    let packed = section.data(endian, file).map_err(|_| ErrorKind::CutShort {
        what: "the packed kernel",
        offset,
        have: length(file),
    })?;
    match Method::of(packed) {
        Some(method) => method.unpack(packed, usize::try_from(offset).unwrap_or_default()).map(Some),
        None if packed.starts_with(b"\x7fELF") => Ok(Some(packed.to_vec())),
        None => Err(ErrorKind::Wrapped { wrapper, beginning: beginning(packed) }),
    }
}

fn read_symbols<'a, E: FileHeader<Endian = Endianness>, R: ReadRef<'a>>(
    sections: &SectionTable<'a, E, R>,
    endian: Endianness,
    file: R,
    builder: &mut Builder,
) -> Result<(), ErrorKind> {
    let table = sections.symbols(endian, file, elf::SHT_SYMTAB).map_err(corrupt)?;
    if table.is_empty() {
        return Ok(());
    }
    // All names at once: each would be a read of its own.
    let strings = sections.section(table.string_section()).and_then(|section| section.data(endian, file));
    let strings = strings.map_err(corrupt)?;
    let letters = SectionLetters::of(sections, endian);
    let mut rows: Vec<(SortKey, char, &str)> = Vec::new();
    for (index, symbol) in table.enumerate() {
        if rows.len() > MAX_SYMBOLS {
            return Err(ErrorKind::TooManyNames);
        }
        let Some(kind) = letter(symbol, endian, &letters, table.shndx(endian, index)) else { continue };
        let name = strings.get(symbol.st_name(endian) as usize..).unwrap_or_default();
        let name = memchr::memchr(0, name).and_then(|end| std::str::from_utf8(name.get(..end)?).ok());
        let Some(name) = name else { continue };
        if is_noise(name) {
            continue;
        }
        rows.push((SortKey::of(symbol.st_value(endian).into(), kind, name), kind, name));
    }
    rows.sort_by_key(|(key, _, name)| (*key, *name));
    for (key, kind, name) in rows {
        builder.push(key.addr, kind, name, None)?;
    }
    Ok(())
}

/// Which of several names of one address comes first: the order in which the kernel's build sorts kallsyms, so that
/// an address gets the name that the guest itself would print. Strong before weak, marks of the linker script last,
/// fewer leading underscores first, then by name, which is the order of the `nm -n` that the build reads.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct SortKey {
    addr: u64,
    weak: bool,
    linker_mark: bool,
    underscores: usize,
}

impl SortKey {
    fn of(addr: u64, kind: char, name: &str) -> Self {
        let underscores = name.len() - name.trim_start_matches('_').len();
        let stem = name.trim_start_matches('_');
        let linker_mark = underscores >= 2
            && (["start_", "stop_", "end_"].iter().any(|prefix| stem.starts_with(prefix))
                || name.ends_with("_start")
                || name.ends_with("_end"));
        Self { addr, weak: matches!(kind, 'w' | 'W'), linker_mark, underscores }
    }
}

/// Names that the kernel's own table leaves out too (`scripts/kallsyms.c`): mapping symbols, local labels, CFI type ids,
/// checksums, and on powerpc the linker's stubs for branches that reach too far.
fn is_noise(name: &str) -> bool {
    name.is_empty()
        || name.len() > 4096
        || name.starts_with('$')
        || name.starts_with(".L")
        || name.starts_with("__kcfi_typeid_")
        || name.starts_with("__crc_")
        || name.contains(".plt_branch.")
        || name.contains(".long_branch.")
}

/// nm's letter per section, lower case. Its letters for small data (`g`, `s`) are for machines that no kernel here runs on:
/// on powerpc `.sdata` and `.sbss` are data and bss.
struct SectionLetters(Vec<char>);

impl SectionLetters {
    fn of<'a, E: FileHeader<Endian = Endianness>, R: ReadRef<'a>>(
        sections: &SectionTable<'a, E, R>,
        endian: Endianness,
    ) -> Self {
        let letter = |section: &E::SectionHeader| {
            let flags = section.sh_flags(endian).0;
            let has = |flag: u64| flags & flag != 0;
            if !has(elf::SHF_ALLOC.0) {
                return 'n';
            }
            if has(elf::SHF_EXECINSTR.0) {
                return 't';
            }
            if section.sh_type(endian) == elf::SHT_NOBITS {
                return 'b';
            }
            if has(elf::SHF_WRITE.0) { 'd' } else { 'r' }
        };
        Self(sections.iter().map(letter).collect())
    }
}

/// The letter that nm prints for a symbol; `None` for what is no place in memory.
fn letter<S: Sym<Endian = Endianness>>(
    symbol: &S,
    endian: Endianness,
    sections: &SectionLetters,
    extended_index: Option<u32>,
) -> Option<char> {
    let kind = symbol.st_type();
    if !matches!(kind, elf::STT_NOTYPE | elf::STT_OBJECT | elf::STT_FUNC | elf::STT_GNU_IFUNC) {
        return None;
    }
    let section = symbol.st_shndx(endian);
    if section == elf::SHN_UNDEF || section == elf::SHN_COMMON {
        return None;
    }
    let local = symbol.st_bind() == elf::STB_LOCAL;
    if symbol.st_bind() == elf::STB_WEAK {
        return Some(if kind == elf::STT_OBJECT { 'V' } else { 'W' });
    }
    if kind == elf::STT_GNU_IFUNC {
        return Some('i');
    }
    if section == elf::SHN_ABS {
        // Local constants of assembler files; the kernel's table leaves them out.
        return (!local).then_some('A');
    }
    let index = if section == elf::SHN_XINDEX { extended_index? } else { u32::from(section.0) };
    let letter = *sections.0.get(index as usize)?;
    match letter {
        'n' => None,
        letter if local => Some(letter),
        letter => Some(letter.to_ascii_uppercase()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{
        GLOBAL_FUNC, GLOBAL_OBJECT, LOCAL_FILE, LOCAL_FUNC, LOCAL_NOTYPE, LOCAL_SECTION, Load, Sym, WEAK_FUNC, elf,
    };
    use crate::{KernelImage, Lookup};

    fn kernel(order: ByteOrder, word_bytes: usize, machine: u16) -> Vec<u8> {
        let text = Load { addr: 0xc000_0000, flags: 5, bytes: vec![0x90; 0x2000], memory_bytes: 0x2000 };
        let data = Load { addr: 0xc010_0000, flags: 6, bytes: b"Linux version 9.9 x\n".to_vec(), memory_bytes: 0x1000 };
        let symbols = [
            Sym("file.c", 0, LOCAL_FILE, 0xfff1),
            Sym("", 0xc000_0000, LOCAL_SECTION, 1),
            Sym("__weak_alias", 0xc000_0100, WEAK_FUNC, 1),
            Sym("__underscored", 0xc000_0100, GLOBAL_FUNC, 1),
            Sym("plain", 0xc000_0100, GLOBAL_FUNC, 1),
            Sym("__start_mark", 0xc000_0100, GLOBAL_FUNC, 1),
            Sym("helper", 0xc000_0200, LOCAL_FUNC, 1),
            Sym("$x", 0xc000_0204, LOCAL_NOTYPE, 1),
            Sym(".L12", 0xc000_0208, LOCAL_NOTYPE, 1),
            Sym("label", 0xc000_0300, LOCAL_NOTYPE, 1),
            Sym("linux_banner", 0xc010_0000, GLOBAL_OBJECT, 2),
            Sym("undefined", 0, GLOBAL_FUNC, 0),
            Sym("constant", 0x20, LOCAL_NOTYPE, 0xfff1),
            Sym("_stext", 0xc000_0000, GLOBAL_FUNC, 1),
            Sym("start_kernel", 0xc000_0400, GLOBAL_FUNC, 1),
        ];
        elf(order, word_bytes, machine, &[text, data], &symbols)
    }

    #[test]
    fn every_class_and_byte_order() {
        for (order, word_bytes, number, machine) in [
            (ByteOrder::Little, 8, 62, Machine::X86_64),
            (ByteOrder::Little, 4, 3, Machine::I386),
            (ByteOrder::Big, 4, 20, Machine::Ppc),
            (ByteOrder::Big, 8, 21, Machine::Ppc64),
            (ByteOrder::Little, 8, 21, Machine::Ppc64),
            (ByteOrder::Big, 8, 43, Machine::Sparc64),
            (ByteOrder::Little, 8, 183, Machine::Other(183)),
        ] {
            let image = KernelImage::parse("vmlinux", kernel(order, word_bytes, number)).unwrap();
            assert_eq!((image.machine, image.byte_order), (machine, Some(order)));
            let rows: Vec<_> = image.symbols.iter().map(|s| (s.addr.0, s.kind, s.name)).collect();
            assert_eq!(
                rows,
                [
                    (0xc000_0000, 'T', "_stext"),
                    (0xc000_0100, 'T', "plain"),
                    (0xc000_0100, 'T', "__underscored"),
                    (0xc000_0100, 'T', "__start_mark"),
                    (0xc000_0100, 'W', "__weak_alias"),
                    (0xc000_0200, 't', "helper"),
                    (0xc000_0300, 't', "label"),
                    (0xc000_0400, 'T', "start_kernel"),
                    (0xc010_0000, 'D', "linux_banner"),
                ]
            );
            assert_eq!(image.banner.as_deref(), Some("Linux version 9.9 x"));
            assert_eq!(image.segments.len(), 2);
            assert_eq!((image.segments[0].phys, image.segments[0].executable), (0, true));
            assert_eq!((image.segments[1].phys, image.segments[1].executable), (0x10_0000, false));
            assert_eq!(image.bytes(GuestAddr(0xc010_0000), 5), Some(b"Linux".as_slice()));
            assert_eq!(image.bytes(GuestAddr(0xc010_0000), 21), None);
            let Lookup::One(banner) = image.symbols.lookup(None, "linux_banner") else { panic!("one") };
            assert_eq!(banner.size, 0x1000, "up to the end of the segment's memory");
        }
    }

    fn error(bytes: Vec<u8>) -> String {
        KernelImage::parse("vmlinux", bytes).unwrap_err().to_string()
    }

    #[test]
    fn headers_that_lie() {
        let good = kernel(ByteOrder::Little, 8, 62);
        let with = |offset: usize, bytes: &[u8]| {
            let mut bad = good.clone();
            bad[offset..offset + bytes.len()].copy_from_slice(bytes);
            error(bad)
        };
        assert!(with(4, &[7]).contains("class byte is 7"));
        assert!(with(16, &[1, 0]).contains("kernel module"));
        assert!(with(16, &[4, 0]).contains("core dump"));
        assert!(with(16, &[9, 9]).contains("its type is 2313"));
        // The first segment's file offset, file size, address.
        assert!(with(64 + 8, &[0xff; 8]).contains("cut short"));
        assert!(with(64 + 32, &[0xff; 8]).contains("cut short"));
        assert!(with(64 + 16, &[0xff; 8]).contains("wraps around"));
        // Program headers beyond the file; a section table beyond the file.
        assert!(with(32, &[0xff; 8]).contains("not a readable ELF"));
        assert!(with(40, &[0xff; 8]).contains("not a readable ELF"));
        assert!(error(b"\x7fELF".to_vec()).contains("cut short"));
        assert!(error(b"\x7fELF\x02\x01\x01".to_vec()).contains("not a readable ELF"));
    }

    #[test]
    fn a_stripped_elf_without_kallsyms_says_what_to_give() {
        let text = Load { addr: 0x1000, flags: 5, bytes: vec![0; 64], memory_bytes: 64 };
        let text = error(elf(ByteOrder::Little, 8, 62, &[text], &[]));
        assert!(
            text.contains("no symbol table") && text.contains("System.map") && text.contains("/proc/kallsyms"),
            "{text}"
        );
    }

    #[test]
    fn segments_cannot_multiply_the_file() {
        let load = || Load { addr: 0x1000, flags: 5, bytes: vec![0; 0x1000], memory_bytes: 0x1000 };
        let mut bytes = elf(ByteOrder::Little, 8, 62, &[load(), load(), load()], &[]);
        for segment in 0..3 {
            // All of them now are the whole file.
            let at = 64 + 56 * segment;
            let size = bytes.len() as u64;
            bytes[at + 8..at + 16].copy_from_slice(&0u64.to_le_bytes());
            bytes[at + 32..at + 40].copy_from_slice(&size.to_le_bytes());
        }
        assert!(error(bytes).contains("hold more bytes than the file"));
    }
}
