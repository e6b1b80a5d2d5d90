//! Firmware that runs where a kernel is linked, because it has moved itself to the top of the RAM: that is no other kernel, and
//! the expected one is found after it.

mod common;

use qkprobe_symbols::Symbol;
use qkprobe_tests::{Boot, GuestKernel, Qemu};

const I386: GuestKernel = GuestKernel::I386Pae6_1;

/// The guest ends at its `start_kernel`, which was found, and nothing was said of another kernel.
#[track_caller]
fn assert_found(boot: Boot, what: &str) {
    let result = boot.append("quiet").plugin_arg("probe=p:st start_kernel do quit=3").run();
    assert_eq!(result.status.code(), Some(3), "{what}\n{}", result.stderr);
    common::assert_hits(&result, what, &[("st", 1)]);
    assert_eq!(common::json(&result)["problem"], serde_json::Value::Null, "{what}");
    assert!(!result.stderr.contains("another kernel") && !result.stderr.contains("do not fit"), "{}", result.stderr);
}

/// SeaBIOS lies at 0xce3..., among the addresses where a 32-bit kernel may be.
#[test]
fn seabios_among_the_addresses_of_a_32_bit_kernel() {
    for qemu in Qemu::selected() {
        assert_found(Boot::new(qemu, I386).memory(3300), &format!("{qemu}, pc, 3300 MB"));
    }
    let q35 = Boot::new(Qemu::V11_1, I386).memory(4096).extra_args(["-M", "q35,max-ram-below-4g=3300M"]);
    assert_found(q35, "q35, 3300 MB below 4 GB");
}

/// Its functions are no symbols of the kernel, and that says nothing.
#[test]
fn seabios_where_only_a_system_map_is_given() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("System.map");
    let line = |symbol: Symbol<'_>| format!("{:016x} {} {}\n", symbol.addr.0, symbol.kind, symbol.name);
    std::fs::write(&path, common::image(I386).symbols.iter().map(line).collect::<String>()).unwrap();
    let boot = Boot::new(Qemu::V11_1, I386).memory(3300).append("nokaslr");
    assert_found(boot.plugin_arg(format!("kernel={}", path.display())), "System.map, 3300 MB");
}
