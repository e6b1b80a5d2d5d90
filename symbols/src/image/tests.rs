//! Images of every form, as files and in memory.

use super::*;
use crate::decompress::tests::{METHODS, pack};
use crate::testing::{GLOBAL_FUNC, Layout, PerCpu, Sym, elf, kernel, stripped_kernel, wrapper};

fn error(bytes: &[u8]) -> String {
    KernelImage::parse("given", bytes.to_vec()).unwrap_err().to_string()
}

#[test]
fn other_files_are_named() {
    let mut tar = vec![0; 600];
    tar[257..262].copy_from_slice(b"ustar");
    let mut arm64 = vec![0; 100];
    arm64[0x38..0x3c].copy_from_slice(b"ARM\x64");
    for (bytes, what) in [
        (b"".as_slice(), "is empty"),
        (b"070701000", "initramfs"),
        (b"!<arch>\ndebian-binary", "dpkg-deb -x"),
        (b"MZ\0\0zimg\0\0", "EFI zboot"),
        (b"MZ\x90\0\x03", "EFI program"),
        (b"PK\x03\x04", "zip"),
        (b"\xed\xab\xee\xdb", "rpm"),
        (b"\xd0\x0d\xfe\xed", "device tree"),
        (b"QFI\xfb", "qcow2"),
        (&tar, "tar"),
        (&arm64, "arm64 Image"),
        (b"\0\0\0\0\0\0\0\0\0", "begins with the bytes 00 00 00"),
        (b"root:x:0:0:root:/root:/bin/bash\n", "begins with \"root:x:0:0:root:\""),
        (b"\x04\x22\x4d\x18dp\xb9", "lz4 -d"),
        (b"\x01\xdf\0\x04", "zImage.coff"),
    ] {
        let text = error(bytes);
        assert!(text.starts_with("kernel image given: ") && text.contains(what), "{what}: {text}");
    }
    assert!(error(&pack(Method::Gzip, b"070701 an initrd")).contains("initramfs"));
    assert!(error(&pack(Method::Xz, &pack(Method::Gzip, &pack(Method::Xz, b"x")))).contains("more than 3 times"));
}

#[test]
fn directories_and_missing_files() {
    let text = KernelImage::load(Path::new("/")).unwrap_err().to_string();
    assert!(text.contains("is a directory"), "{text}");
    let text = KernelImage::load(Path::new("/nonexistent/vmlinux")).unwrap_err().to_string();
    assert!(text.starts_with("kernel image /nonexistent/vmlinux: cannot be read: "), "{text}");
}

#[test]
fn packed_in_every_way_and_as_text() {
    let kernel = stripped_kernel(Layout::Behind, PerCpu::Plain, 5);
    for method in METHODS {
        let image = KernelImage::parse("vmlinux.gz", pack(method, &kernel)).unwrap();
        assert_eq!(image.symbols.len(), 14, "{method:?}");
    }
    let text = KernelImage::parse("map", b"c0000000 T _stext\nc0000010 D x\n".to_vec()).unwrap();
    assert_eq!((text.symbols.len(), text.machine, text.byte_order), (2, Machine::Unknown, None));
    assert!(text.segments.is_empty() && text.banner.is_none());
    let text = KernelImage::parse("map.gz", pack(Method::Gzip, b"c0000000 T _stext\n")).unwrap();
    assert_eq!(text.symbols.len(), 1);
}

const START: u64 = 0xffff_ffff_8100_0000;

/// The kernel of `crate::testing` with these symbols in its ELF table, as `strip` may leave some.
fn named(symbols: &[Sym]) -> Vec<u8> {
    let load = kernel(ByteOrder::Little, 8, START, Layout::Behind, PerCpu::Plain, 5);
    elf(ByteOrder::Little, 8, 62, &[load], symbols)
}

#[test]
fn a_symbol_table_that_is_not_the_kernels_only_adds_to_kallsyms() {
    let rows = |bytes| {
        let image = KernelImage::parse("vmlinux", bytes).unwrap();
        image.symbols.iter().map(|it| (it.addr.0 - START, it.kind, it.name.to_owned())).collect::<Vec<_>>()
    };
    let own = rows(stripped_kernel(Layout::Behind, PerCpu::Plain, 5));
    assert_eq!(own.len(), 14);
    // `strip -K _start -K _end`, and one with a name of its own.
    assert_eq!(rows(named(&[Sym("_end", START + 0x2000, GLOBAL_FUNC, 1)])), own);
    let more = rows(named(&[Sym("start_kernel", START + 0x200, GLOBAL_FUNC, 1), Sym("mine", START + 0x204, 0, 1)]));
    assert_eq!(more.len(), 15);
    assert!(more.contains(&(0x204, 't', "mine".to_owned())), "{more:x?}");
    // A name at another address is one more.
    assert_eq!(rows(named(&[Sym("_end", START + 0x2004, GLOBAL_FUNC, 1)])).len(), 15);
}

#[test]
fn a_whole_symbol_table_is_taken_as_it_is() {
    let names = ["_text", "_stext", "first_alias", "second_alias", "start_kernel", "_etext", "linux_banner", "_end"];
    let at = [0, 0, 0x80, 0x80, 0x200, 0x1e00, 0x1f00, 0x2000];
    let mut symbols: Vec<Sym> = names.iter().zip(at).map(|(name, at)| Sym(name, START + at, GLOBAL_FUNC, 1)).collect();
    let many = ["many_0", "many_1", "many_2", "many_3", "many_4"];
    symbols.extend(many.iter().zip(0..).map(|(name, at)| Sym(name, START + 0x400 + 4 * at, 0x02, 1)));
    symbols.push(Sym(Box::leak("x".repeat(200).into_boxed_str()), START + 0x100, 0x02, 1));
    let image = KernelImage::parse("vmlinux", named(&symbols)).unwrap();
    assert_eq!(image.symbols.len(), 14);
    // The ELF table says that it is global; kallsyms says that it is not.
    let Lookup::One(alias) = image.symbols.lookup(None, "second_alias") else { panic!("one") };
    assert_eq!(alias.kind, 'T');
}

#[test]
fn a_part_of_a_symbol_table_without_kallsyms_is_refused_and_a_program_is_not() {
    let mut bytes = named(&[Sym("_start", START, GLOBAL_FUNC, 1), Sym("_end", START + 0x2000, GLOBAL_FUNC, 1)]);
    let tokens = memchr::memmem::find(&bytes, b"3\x004\x005\0").unwrap();
    bytes[tokens] = b'!';
    let text = error(&bytes);
    assert!(text.contains("names 2 symbols and no start_kernel") && text.contains("no table of name tokens"), "{text}");
    // Without a banner it is no kernel.
    let banner = memchr::memmem::find(&bytes, b"Linux version").unwrap();
    bytes[banner] = b'l';
    assert_eq!(KernelImage::parse("bare.elf", bytes).unwrap().symbols.len(), 2);
}

#[test]
fn boot_wrappers_are_opened_whatever_they_are_packed_with() {
    let kernel = stripped_kernel(Layout::Behind, PerCpu::Plain, 5);
    for (machine, section) in [(20, ".kernel:vmlinux.strip"), (62, ".rodata..compressed")] {
        for method in METHODS {
            let mut payload = pack(method, &kernel);
            payload.extend(u32::try_from(kernel.len()).unwrap().to_le_bytes());
            let image = KernelImage::parse("zImage", wrapper(machine, section, &payload)).unwrap();
            assert_eq!((image.symbols.len(), image.machine), (14, Machine::X86_64), "{section} {method:?}");
        }
        let image = KernelImage::parse("zImage", wrapper(machine, section, &kernel)).unwrap();
        assert_eq!(image.symbols.len(), 14);
    }
    let text = error(&wrapper(20, ".kernel:vmlinux.strip", b"\x1f\x9d\x90\0\0"));
    assert!(
        text.contains("a powerpc zImage whose packed kernel begins with the bytes 1f 9d 90 00 00, which is no ELF")
            && text.contains("none of gzip, bzip2, lzma, xz, lzo, lz4, zstd"),
        "{text}"
    );
    let text = error(&wrapper(62, ".rodata..compressed", &pack(Method::Gzip, &kernel)[..900]));
    assert!(text.contains("gzip data at byte 0x") && text.contains("cannot be unpacked"), "{text}");
    // It is no wrapper without that section.
    assert_eq!(KernelImage::parse("program", wrapper(62, ".rodata", &kernel)).unwrap().symbols.len(), 1);
}

/// What a kernel with debug information has: 700 MB of it, in a file of which the test writes only the rest.
#[test]
fn the_size_of_a_file_is_no_reason_against_it() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let bytes = named(&[Sym("_end", START + 0x2000, GLOBAL_FUNC, 1)]);
    fs::write(file.path(), &bytes).unwrap();
    file.as_file().set_len(700_000_000).unwrap();
    assert_eq!(KernelImage::load(file.path()).unwrap().symbols.len(), 14);
    // Its section of text, and all that is loaded, said to be as large.
    for at in [64 + 32, 64 + 40] {
        let mut bytes = bytes.clone();
        bytes[at..at + 8].copy_from_slice(&699_000_000u64.to_le_bytes());
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), &bytes).unwrap();
        file.as_file().set_len(700_000_000).unwrap();
        match KernelImage::load(file.path()) {
            Ok(image) => assert_eq!((at, image.symbols.len()), (64 + 40, 14), "only memory that no file fills"),
            Err(error) => {
                let text = error.to_string();
                assert!(at == 64 + 32 && text.contains("loads more than 512 MiB"), "{text}");
            }
        }
    }
    // No ELF file: all of it would be read.
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), b"QFI\xfb").unwrap();
    file.as_file().set_len(700_000_000).unwrap();
    let text = KernelImage::load(file.path()).unwrap_err().to_string();
    assert!(text.contains("qcow2"), "{text}");
}
