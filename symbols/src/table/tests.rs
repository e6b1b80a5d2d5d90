//! The table: names, addresses, sizes, text.

use super::*;

pub(super) fn table(rows: &[(u64, char, &'static str, Option<&'static str>)]) -> SymbolTable {
    SymbolTable::from_rows(rows.iter().map(|(addr, kind, name, module)| (GuestAddr(*addr), *kind, *name, *module)))
        .unwrap()
}

fn with_modules() -> SymbolTable {
    table(&[
        (0x1000, 'T', "_stext", None),
        (0x1100, 't', "init_once", None),
        (0x1200, 't', "init_once", None),
        (0x1200, 't', "init_once", None),
        (0x1300, 'T', "vfs_read", None),
        (0x2000, 'T', "_etext", None),
        (0x3000, 't', "jiffies_data", None),
        (0x4000, 'B', "_end", None),
        (0x9000_0000, 't', "ext4_read", Some("ext4")),
        (0x9000_0100, 't', "init_once", Some("ext4")),
        (0x9100_0000, 't', "xfs_read", Some("xfs")),
        (0x9100_0040, 't', "ext4_read", Some("xfs")),
    ])
}

pub(super) fn addrs(lookup: &Lookup<'_>) -> Vec<u64> {
    match lookup {
        Lookup::None => vec![],
        Lookup::One(symbol) => vec![symbol.addr.0],
        Lookup::Many(symbols) => symbols.iter().map(|symbol| symbol.addr.0).collect(),
    }
}

#[test]
fn a_name_of_a_function_descriptor_means_the_code() {
    let table = table(&[
        (0x1000, 'T', "_stext", None),
        (0x1100, 'T', ".vfs_read", None),
        (0x1200, 't', ".init_once", None),
        (0x1300, 't', ".init_once", None),
        (0x1400, 't', ".only_code", None),
        (0x1500, 'T', "_switch", None),
        (0x2000, 'T', "_etext", None),
        (0x2800, 't', ".cleanup", None),
        (0x3000, 'D', "vfs_read", None),
        (0x3018, 'd', "init_once", None),
        (0x3030, 'd', "init_once", None),
        (0x3048, 'd', "cleanup", None),
        (0x4000, 'D', "jiffies", None),
        (0x9000, 't', ".ext4_read", Some("ext4")),
        (0x9800, 'd', "ext4_read", Some("ext4")),
        (0xa000, 't', ".jiffies", Some("odd")),
    ]);
    for (name, expected) in [
        ("vfs_read", &[0x1100][..]),
        (".vfs_read", &[0x1100]),
        ("init_once", &[0x1200, 0x1300]),
        // Without CONFIG_KALLSYMS_ALL the descriptors, which are data, have no names.
        ("only_code", &[0x1400]),
        // Outside of what the marks say is text.
        ("cleanup", &[0x2800]),
        // Assembler code without a descriptor.
        ("_switch", &[0x1500]),
        ("ext4_read", &[0x9000]),
        // Another module's code is not this variable's.
        ("jiffies", &[0x4000]),
        ("..vfs_read", &[]),
        ("", &[]),
    ] {
        assert_eq!(addrs(&table.lookup(None, name)), expected, "{name}");
    }
    assert_eq!(addrs(&table.lookup(Some("ext4"), "ext4_read")), [0x9000]);
    assert_eq!(table.lookup(Some("ext4"), "vfs_read"), Lookup::None);
}

#[test]
fn names_resolve_in_the_kernel_first_then_in_modules() {
    let table = with_modules();
    assert_eq!(addrs(&table.lookup(None, "vfs_read")), [0x1300]);
    assert_eq!(addrs(&table.lookup(None, "init_once")), [0x1100, 0x1200]);
    assert_eq!(addrs(&table.lookup(Some("ext4"), "init_once")), [0x9000_0100]);
    assert_eq!(addrs(&table.lookup(None, "ext4_read")), [0x9000_0000, 0x9100_0040]);
    assert_eq!(addrs(&table.lookup(Some("xfs"), "ext4_read")), [0x9100_0040]);
    assert_eq!(table.lookup(None, "vfs_rea"), Lookup::None);
    assert_eq!(table.lookup(None, ""), Lookup::None);
    assert_eq!(table.lookup(Some("btrfs"), "vfs_read"), Lookup::None);
    assert!(table.has_module("xfs") && !table.has_module("btrfs"));
    assert_eq!(SymbolTable::default().lookup(None, "x"), Lookup::None);
}

#[test]
fn addresses_resolve_within_sizes() {
    let table = with_modules();
    let name = |addr: u64| {
        let (symbol, offset) = table.containing(GuestAddr(addr))?;
        Some((symbol.name, offset, symbol.size))
    };
    assert_eq!(name(0xfff), None);
    assert_eq!(name(0x1000), Some(("_stext", 0, 0x100)));
    assert_eq!(name(0x12ff), Some(("init_once", 0xff, 0x100)));
    // The kernel's end is none of its addresses, and does not reach up to the first module's.
    assert_eq!(name(0x3fff), Some(("jiffies_data", 0xfff, 0x1000)));
    assert_eq!(name(0x4000), None);
    assert_eq!(name(0x4001), None);
    // A module's last symbol ends somewhere; 64 KiB is the limit.
    assert_eq!(name(0x9000_ffff), Some(("init_once", 0xfeff, 0x1_0000)));
    assert_eq!(name(0x9002_0000), None);
    assert_eq!(name(u64::MAX), None);
    assert_eq!(SymbolTable::default().containing(GuestAddr(0)), None);
}

#[test]
fn marks_decide_what_is_text_and_letters_only_without_them() {
    let text = |table: &SymbolTable, name| match table.lookup(None, name) {
        Lookup::One(symbol) => symbol.text,
        other => panic!("{name}: {other:?}"),
    };
    let marked = with_modules();
    assert!(text(&marked, "vfs_read"));
    assert!(!text(&marked, "jiffies_data"), "`t`, but behind _etext");
    assert!(text(&marked, "xfs_read"), "modules have no marks");
    assert_eq!(marked.is_kernel_text(GuestAddr(0x1fff)), Some(true));
    assert_eq!(marked.is_kernel_text(GuestAddr(0x2000)), Some(false));
    let bare = table(&[(0x10, 'T', "f", None), (0x20, 'D', "d", None), (0x30, 'V', "v", None)]);
    assert_eq!((text(&bare, "f"), text(&bare, "d"), text(&bare, "v")), (true, false, false));
    assert_eq!(bare.is_kernel_text(GuestAddr(0x10)), None);
}

#[test]
fn many_aliases() {
    let names: Vec<String> = (0..40).map(|number| format!("alias_{number}")).collect();
    let rows = names.iter().map(|name| (GuestAddr(0x100), 't', name.as_str(), None));
    let table = SymbolTable::from_rows(rows.chain([(GuestAddr(0x180), 't', "next", None)])).unwrap();
    let (symbol, offset) = table.containing(GuestAddr(0x17f)).unwrap();
    assert_eq!((symbol.name, offset, symbol.size), ("alias_0", 0x7f, 0x80));
    assert!(table.iter().take(40).all(|symbol| symbol.size == 0x80));
}

#[test]
fn symbols_that_are_no_addresses_name_none() {
    let table = table(&[
        (0, 'A', "fixed_percpu_data", None),
        (0x1000, 'D', "cpu_debug_store", None),
        (0x2000, 'D', "irq_stack_backing_store", None),
        (0x100_0000, 'A', "phys_startup_64", None),
        (0xffff_ffff_8100_0000, 'T', "_text", None),
        (0xffff_ffff_8100_0100, 'T', "vfs_read", None),
        (0xffff_ffff_8200_0000, 'T', "_etext", None),
        (0xffff_ffff_8210_0000, 'A', "init_per_cpu__gdt_page", None),
        (0xffff_ffff_8300_0000, 'B', "_end", None),
        (0xffff_ffff_a000_0000, 't', "ext4_read", Some("ext4")),
        (0xffff_ffff_ff60_0000, 'A', "vsyscall_page", None),
    ]);
    for addr in [0, 0x1000, 0x1008, 0x3000, 0x100_0000, 0x100_0010, 0xffff_ffff_8300_0000, 0xffff_ffff_ff60_0000] {
        assert_eq!(table.containing(GuestAddr(addr)), None, "{addr:#x}");
        assert!(!table.is_kernel_memory(GuestAddr(addr)), "{addr:#x}");
    }
    for (addr, name) in [
        (0xffff_ffff_8100_0102, "vfs_read"),
        // Absolute, but where the kernel is: it names this address so.
        (0xffff_ffff_8210_0008, "init_per_cpu__gdt_page"),
        (0xffff_ffff_a000_0010, "ext4_read"),
    ] {
        assert_eq!(table.containing(GuestAddr(addr)).unwrap().0.name, name);
    }
    // Their values can still be asked for.
    assert_eq!(addrs(&table.lookup(None, "cpu_debug_store")), [0x1000]);
}
