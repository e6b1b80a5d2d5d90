//! Writers of small images, for tests: ELF of either class and byte order, bzImage, kallsyms of every layout. They
//! share nothing with the readers.

use qkprobe_arch::ByteOrder;

/// Writes numbers in one byte order.
pub(crate) struct Writer {
    pub(crate) bytes: Vec<u8>,
    pub(crate) order: ByteOrder,
    pub(crate) word_bytes: usize,
}

impl Writer {
    pub(crate) fn new(order: ByteOrder, word_bytes: usize) -> Self {
        Self { bytes: Vec::new(), order, word_bytes }
    }

    pub(crate) fn number(&mut self, value: u64, bytes: usize) {
        let little = value.to_le_bytes();
        match self.order {
            ByteOrder::Little => self.bytes.extend_from_slice(&little[..bytes]),
            ByteOrder::Big => self.bytes.extend(little[..bytes].iter().rev()),
        }
    }

    pub(crate) fn word(&mut self, value: u64) {
        self.number(value, self.word_bytes);
    }

    pub(crate) fn align(&mut self, to: usize) {
        while !self.bytes.len().is_multiple_of(to) {
            self.bytes.push(0);
        }
    }
}

/// One loadable segment.
pub(crate) struct Load {
    pub(crate) addr: u64,
    pub(crate) flags: u32,
    pub(crate) bytes: Vec<u8>,
    pub(crate) memory_bytes: u64,
}

/// One symbol of `.symtab`: section 1 is text, 2 is data, `0xfff1` is absolute.
pub(crate) struct Sym(pub(crate) &'static str, pub(crate) u64, pub(crate) u8, pub(crate) u16);

pub(crate) const GLOBAL_FUNC: u8 = 0x12;
pub(crate) const LOCAL_FUNC: u8 = 0x02;
pub(crate) const WEAK_FUNC: u8 = 0x22;
pub(crate) const GLOBAL_OBJECT: u8 = 0x11;
pub(crate) const LOCAL_NOTYPE: u8 = 0x00;
pub(crate) const LOCAL_SECTION: u8 = 0x03;
pub(crate) const LOCAL_FILE: u8 = 0x04;

/// An ELF executable. Sections are only written for a symbol table.
pub(crate) fn elf(order: ByteOrder, word_bytes: usize, machine: u16, loads: &[Load], symbols: &[Sym]) -> Vec<u8> {
    let wide = word_bytes == 8;
    let (header_bytes, program_bytes, section_bytes) = if wide { (64, 56, 64) } else { (52, 32, 40) };
    let mut body = Writer::new(order, word_bytes);
    let body_at = header_bytes + program_bytes * loads.len();
    let mut programs = Writer::new(order, word_bytes);
    for load in loads {
        let offset = (body_at + body.bytes.len()) as u64;
        let size = load.bytes.len() as u64;
        programs.number(1, 4);
        if wide {
            programs.number(u64::from(load.flags), 4);
        }
        for value in [offset, load.addr, load.addr & 0x0fff_ffff, size, load.memory_bytes] {
            programs.word(value);
        }
        if !wide {
            programs.number(u64::from(load.flags), 4);
        }
        programs.word(0x1000);
        body.bytes.extend_from_slice(&load.bytes);
    }
    let mut sections = Writer::new(order, word_bytes);
    let mut section_count = 0usize;
    if !symbols.is_empty() {
        let names = b"\0.text\0.data\0.symtab\0.strtab\0";
        let mut strings = vec![0];
        let mut table = Writer::new(order, word_bytes);
        table.bytes.resize(if wide { 24 } else { 16 }, 0);
        for Sym(name, value, info, section) in symbols {
            table.number(strings.len() as u64, 4);
            if wide {
                table.bytes.extend([*info, 0]);
                table.number(u64::from(*section), 2);
                table.word(*value);
                table.word(0);
            } else {
                table.word(*value);
                table.word(0);
                table.bytes.extend([*info, 0]);
                table.number(u64::from(*section), 2);
            }
            strings.extend_from_slice(name.as_bytes());
            strings.push(0);
        }
        let at = |body: &Writer| (body_at + body.bytes.len()) as u64;
        let table_at = at(&body);
        body.bytes.extend_from_slice(&table.bytes);
        let strings_at = at(&body);
        body.bytes.extend_from_slice(&strings);
        let names_at = at(&body);
        body.bytes.extend_from_slice(names);
        let load = |index: usize| loads.get(index).map_or((0, 0), |load| (load.addr, load.bytes.len() as u64));
        let entry = if wide { 24 } else { 16 };
        // Name, type, flags, address, offset, size, link, entry size.
        let rows: [[u64; 8]; 6] = [
            [0; 8],
            [1, 1, 6, load(0).0, body_at as u64, load(0).1, 0, 0],
            [7, 1, 3, load(1).0, body_at as u64, load(1).1, 0, 0],
            [13, 2, 0, 0, table_at, table.bytes.len() as u64, 4, entry],
            [21, 3, 0, 0, strings_at, strings.len() as u64, 0, 0],
            [21, 3, 0, 0, names_at, names.len() as u64, 0, 0],
        ];
        section_count = rows.len();
        for [name, kind, flags, addr, offset, size, link, entry] in rows {
            sections.number(name, 4);
            sections.number(kind, 4);
            for value in [flags, addr, offset, size] {
                sections.word(value);
            }
            sections.number(link, 4);
            sections.number(0, 4);
            sections.word(1);
            sections.word(entry);
        }
    }
    let sections_at = if section_count == 0 { 0 } else { (body_at + body.bytes.len()) as u64 };
    let mut file = Writer::new(order, word_bytes);
    file.bytes.extend_from_slice(b"\x7fELF");
    file.bytes.extend([if wide { 2 } else { 1 }, if order == ByteOrder::Little { 1 } else { 2 }, 1]);
    file.bytes.resize(16, 0);
    file.number(2, 2);
    file.number(u64::from(machine), 2);
    file.number(1, 4);
    for value in [loads.first().map_or(0, |load| load.addr), header_bytes as u64, sections_at] {
        file.word(value);
    }
    file.number(0, 4);
    let last = section_count.saturating_sub(1);
    for value in [header_bytes, program_bytes, loads.len(), section_bytes, section_count, last] {
        file.number(value as u64, 2);
    }
    file.bytes.extend(programs.bytes);
    file.bytes.extend(body.bytes);
    file.bytes.extend(sections.bytes);
    file.bytes
}

/// A bzImage around a packed vmlinux: a boot sector, one setup sector, then 16 bytes of unpacker and the payload.
pub(crate) fn bzimage(payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 1024 + 16];
    bytes[0x1f1] = 1;
    bytes[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
    bytes[0x202..0x206].copy_from_slice(b"HdrS");
    bytes[0x206..0x208].copy_from_slice(&[0x0f, 0x02]);
    bytes[0x248..0x24c].copy_from_slice(&16u32.to_le_bytes());
    bytes[0x24c..0x250].copy_from_slice(&u32::try_from(payload.len()).unwrap().to_le_bytes());
    bytes.extend_from_slice(payload);
    bytes.extend_from_slice(b"and what follows");
    bytes
}

/// Where the tables of kallsyms stand, and how addresses are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// Linux 5.10 to 6.1, addresses relative.
    Before,
    /// The same in 6.2 and 6.3, with the order of names.
    BeforeWithOrder,
    /// The same as `Before`, whole addresses.
    BeforeAbsolute,
    /// Linux 6.4 on.
    Behind,
    /// The same, whole addresses.
    BehindAbsolute,
    /// Linux 7.
    OwnPlace,
}

/// How the relative layouts treat per-CPU symbols.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PerCpu {
    Plain,
    AbsolutePerCpu,
}

/// Appends kallsyms to a segment that begins at `segment`. `symbols` ascend; names of `xs` are packed in pairs.
pub(crate) fn append_kallsyms(
    out: &mut Writer,
    segment: u64,
    symbols: &[(u64, char, String)],
    layout: Layout,
    per_cpu: PerCpu,
) {
    let label = if layout == Layout::OwnPlace { 4 } else { out.word_bytes };
    let base = 0xffff_ffff_8100_0000 & if out.word_bytes == 4 { 0xffff_ffff } else { u64::MAX };
    let used = |byte: u8| byte.is_ascii_graphic();
    // Free token numbers stand for pairs.
    let pairs: Vec<(u8, [u8; 2])> = (0..=255).filter(|byte| !used(*byte)).zip([*b"__", *b"xx", *b"sy"]).collect();
    let pack = |text: &str| {
        let mut packed = Vec::new();
        let mut rest = text.as_bytes();
        while let Some((first, after)) = rest.split_first() {
            match pairs.iter().find(|(_, pair)| rest.starts_with(pair)) {
                Some((token, pair)) => {
                    packed.push(*token);
                    rest = &rest[pair.len()..];
                }
                None => {
                    packed.push(*first);
                    rest = after;
                }
            }
        }
        packed
    };
    let relative = |out: &mut Writer| {
        out.align(label);
        for (addr, _, _) in symbols {
            let offset = match per_cpu {
                PerCpu::Plain => addr.wrapping_sub(base),
                PerCpu::AbsolutePerCpu if *addr < 0x10_0000 => *addr,
                PerCpu::AbsolutePerCpu => base.wrapping_sub(*addr).wrapping_sub(1),
            };
            out.number(offset & 0xffff_ffff, 4);
        }
        out.align(label);
        out.word(base);
    };
    let absolute = |out: &mut Writer| {
        out.align(label);
        for (addr, _, _) in symbols {
            out.word(*addr);
        }
    };
    let order_of_names = |out: &mut Writer| {
        for number in 0..symbols.len() {
            out.bytes.extend_from_slice(&u32::try_from(number).unwrap().to_be_bytes()[1..]);
        }
    };
    match layout {
        Layout::Before | Layout::BeforeWithOrder => relative(out),
        Layout::BeforeAbsolute => absolute(out),
        _ => {}
    }
    out.align(label);
    out.number(symbols.len() as u64, 4);
    out.align(label);
    let names_at = out.bytes.len();
    let mut markers = Vec::new();
    for (number, (_, kind, name)) in symbols.iter().enumerate() {
        if number % 256 == 0 {
            markers.push((out.bytes.len() - names_at) as u64);
        }
        let packed = pack(&format!("{kind}{name}"));
        match packed.len() {
            short @ ..128 => out.bytes.push(u8::try_from(short).unwrap()),
            long => out.bytes.extend([u8::try_from(long & 0x7f).unwrap() | 0x80, u8::try_from(long >> 7).unwrap()]),
        }
        out.bytes.extend(packed);
    }
    out.align(label);
    for marker in markers {
        out.number(marker, 4);
    }
    if layout == Layout::BeforeWithOrder {
        out.align(label);
        order_of_names(out);
    }
    out.align(label);
    let table_at = out.bytes.len();
    let mut index = Vec::new();
    for byte in 0..=255u8 {
        index.push((out.bytes.len() - table_at) as u64);
        match pairs.iter().find(|(token, _)| *token == byte) {
            Some((_, pair)) => out.bytes.extend_from_slice(pair),
            None if used(byte) => out.bytes.push(byte),
            None => {}
        }
        out.bytes.push(0);
    }
    out.align(label);
    for offset in index {
        out.number(offset, 2);
    }
    match layout {
        Layout::Behind => relative(out),
        Layout::BehindAbsolute => absolute(out),
        Layout::OwnPlace => {
            out.align(4);
            for (addr, _, _) in symbols {
                let here = segment + out.bytes.len() as u64;
                out.number(addr.wrapping_sub(here) & 0xffff_ffff, 4);
            }
        }
        _ => {}
    }
    if matches!(layout, Layout::Behind | Layout::BehindAbsolute | Layout::OwnPlace) {
        order_of_names(out);
    }
    out.bytes.extend([0xcc; 64]);
}

/// A stripped x86_64 kernel of three pages: code, the banner, kallsyms with `many` further names.
pub(crate) fn stripped_kernel(layout: Layout, per_cpu: PerCpu, many: usize) -> Vec<u8> {
    stripped(ByteOrder::Little, 8, 62, 0xffff_ffff_8100_0000, layout, per_cpu, many)
}

/// The same for any machine. Beside the anchors there are `t many_N` every 4 bytes from 0x400 on, a name of 200
/// letters at 0x100, and two names of one address at 0x80.
pub(crate) fn stripped(
    order: ByteOrder,
    word_bytes: usize,
    machine: u16,
    start: u64,
    layout: Layout,
    per_cpu: PerCpu,
    many: usize,
) -> Vec<u8> {
    elf(order, word_bytes, machine, &[kernel(order, word_bytes, start, layout, per_cpu, many)], &[])
}

/// What such a kernel loads.
pub(crate) fn kernel(
    order: ByteOrder,
    word_bytes: usize,
    start: u64,
    layout: Layout,
    per_cpu: PerCpu,
    many: usize,
) -> Load {
    let mut text = Writer::new(order, word_bytes);
    for number in 0..0x800u64 {
        text.number(number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32, 4);
    }
    text.bytes[0x1f00..0x1f1e].copy_from_slice(b"Linux version 6.1.0-test (x)\n\0");
    let mut symbols = Vec::new();
    if per_cpu == PerCpu::AbsolutePerCpu {
        symbols.push((0, 'A', "__per_cpu_start".to_owned()));
        symbols.push((0x1000, 'D', "cpu_number".to_owned()));
    }
    let mut at = |offset: u64, kind: char, name: &str| symbols.push((start + offset, kind, name.to_owned()));
    at(0, 'T', "_text");
    at(0, 'T', "_stext");
    at(0x80, 'T', "first_alias");
    at(0x80, 't', "second_alias");
    at(0x100, 't', &"x".repeat(200));
    at(0x200, 'T', "start_kernel");
    for number in 0..many {
        at(0x400 + 4 * number as u64, 't', &format!("many_{number}"));
    }
    at(0x1e00, 'T', "_etext");
    at(0x1f00, 'D', "linux_banner");
    at(0x2000, 'B', "_end");
    append_kallsyms(&mut text, start, &symbols, layout, per_cpu);
    let memory_bytes = text.bytes.len() as u64;
    Load { addr: start, flags: 5, bytes: text.bytes, memory_bytes }
}

/// A boot wrapper of 64 bits: an ELF file that loads 4 KiB of code, with a packed kernel in the section `name`.
pub(crate) fn wrapper(machine: u16, name: &str, payload: &[u8]) -> Vec<u8> {
    let code = Load { addr: 0x10_0000, flags: 5, bytes: vec![0x90; 0x1000], memory_bytes: 0x1000 };
    let mut file = elf(ByteOrder::Little, 8, machine, &[code], &[Sym("_start", 0x10_0000, GLOBAL_FUNC, 1)]);
    let payload_at = file.len() as u64;
    file.extend_from_slice(payload);
    // The section headers once more, with one more of them, and the names of all in a table of their own.
    let names_at = file.len() as u64;
    let names = [b"\0.text\0.data\0.symtab\0.strtab\0", name.as_bytes(), b"\0"].concat();
    file.extend_from_slice(&names);
    file.resize(file.len().next_multiple_of(8), 0);
    let old = usize::try_from(u64::from_le_bytes(file[0x28..0x30].try_into().unwrap())).unwrap();
    let sections = file.len() as u64;
    let mut rows = file[old..old + 6 * 64].to_vec();
    rows[5 * 64 + 24..][..8].copy_from_slice(&names_at.to_le_bytes());
    rows[5 * 64 + 32..][..8].copy_from_slice(&(names.len() as u64).to_le_bytes());
    let mut row = Writer::new(ByteOrder::Little, 8);
    row.number(29, 4);
    row.number(1, 4);
    for value in [0, 0, payload_at, payload.len() as u64, 0, 1, 0] {
        row.word(value);
    }
    file.extend([rows, row.bytes].concat());
    file[0x28..0x30].copy_from_slice(&sections.to_le_bytes());
    file[0x3c..0x3e].copy_from_slice(&7u16.to_le_bytes());
    file
}
