//! The oracle for symbols: what the image says, read on the host, is what the running kernel says of itself.

mod common;

use std::collections::BTreeSet;

use qkprobe_tests::{Boot, GuestKernel, Qemu};

/// Address, letter and name.
type Row = (u64, char, String);

/// A kernel a test: writing megabytes to a serial port takes long.
#[track_caller]
fn check(kernel: GuestKernel) {
    let boot = Boot::new(Qemu::V11_1, kernel)
        .append("quiet nokaslr")
        .second_serial()
        .script(["write /proc/sys/kernel/kptr_restrict 0", "kallsyms /dev/ttyS1"])
        .run_ok();
    let running: Vec<Row> = boot.second_serial.lines().filter_map(row).collect();
    let image = common::image(kernel);
    let found: Vec<Row> =
        image.symbols.iter().map(|symbol| (symbol.addr.0, symbol.kind, symbol.name.to_owned())).collect();
    assert!(found.len() > 80_000, "{}: {}", kernel.name(), found.len());
    let (running_set, found_set): (BTreeSet<&Row>, BTreeSet<&Row>) = (running.iter().collect(), found.iter().collect());
    let missing: Vec<_> = running_set.difference(&found_set).take(10).collect();
    let surplus: Vec<_> = found_set.difference(&running_set).take(10).collect();
    assert!(missing.is_empty() && surplus.is_empty(), "{}: missing {missing:x?}, surplus {surplus:x?}", kernel.name());
    assert_eq!(found.len(), running.len(), "{}: rows that are there twice", kernel.name());
    // And something that does not depend on reading /proc/kallsyms the same way.
    assert!(running_set.contains(&(common::symbol(&image, "__x64_sys_getppid").0, 'T', "__x64_sys_getppid".into())));
}

#[test]
fn cloud_6_1_says_what_its_image_says() {
    check(GuestKernel::X86_64Cloud6_1);
}

#[test]
fn generic_6_1_says_what_its_image_says() {
    check(GuestKernel::X86_64Generic6_1);
}

#[test]
fn cloud_6_12_says_what_its_image_says() {
    check(GuestKernel::X86_64Cloud6_12);
}

#[test]
fn cloud_7_says_what_its_image_says() {
    check(GuestKernel::X86_64Cloud7);
}

/// A line of the kernel itself: modules and programs that it compiled at run time have a name in brackets behind.
fn row(line: &str) -> Option<Row> {
    let mut words = line.split_ascii_whitespace();
    let (addr, kind, name) = (words.next()?, words.next()?, words.next()?);
    if words.next().is_some() {
        return None;
    }
    let addr = u64::from_str_radix(addr, 16).unwrap_or_else(|_| panic!("no address in {line:?}"));
    Some((addr, kind.chars().next()?, name.to_owned()))
}
