//! The guest cannot see the probes: its text, read by itself, is the same byte for byte.

mod common;

use std::collections::BTreeSet;

use common::{assert_hits, image};
use qkprobe_tests::{Boot, GuestKernel, Qemu};

/// What the guest reads: system calls, the file layer, the scheduler all lie in it.
const WHOLE_TEXT: &str = "readtext _stext _etext";
/// The first bytes of one probed function, of which each instruction is probed.
const ONE_FUNCTION: &str = "readtext do_sys_openat2 64";

/// Places for probes: each function's entry in a stretch of the system calls, and each instruction of one function.
fn places() -> BTreeSet<String> {
    let image = image(GuestKernel::X86_64Cloud6_1);
    let calls = image.symbols.iter().filter(|symbol| symbol.text && symbol.name.starts_with("__x64_sys_"));
    let mut places: BTreeSet<String> = calls.map(|symbol| symbol.name.to_owned()).collect();
    let inside = common::instructions(&image, "do_sys_openat2");
    places.extend(inside.iter().map(|(offset, _)| format!("do_sys_openat2+{offset}")));
    places
}

#[test]
fn guest_reads_its_own_text_unchanged() {
    let places = places();
    assert!(places.len() >= 400, "{}", places.len());
    // Twice: armed from the start, and after all of them were run.
    let script = [WHOLE_TEXT, ONE_FUNCTION, "openclose 100 /etc/none", "getppid 100", WHOLE_TEXT, ONE_FUNCTION];
    let texts = |boot: &qkprobe_tests::BootResult| -> Vec<(String, String)> {
        let values =
            |key: &str| boot.qk_all("readtext").map(|line| line.get(key).unwrap().to_owned()).collect::<Vec<_>>();
        values("length").into_iter().zip(values("fnv1a")).collect()
    };
    let plain =
        |qemu: Qemu| Boot::new(qemu, GuestKernel::X86_64Cloud6_1).append("quiet nokaslr pti=off").script(script);
    for qemu in Qemu::selected() {
        let without = plain(qemu).run_ok();
        let mut probed = plain(qemu);
        for (index, place) in places.iter().enumerate() {
            // Callbacks and inline counters by turns.
            let kind = if index % 2 == 0 { "probe" } else { "count" };
            probed = probed.plugin_arg(format!("{kind}=p:p{index} {place}"));
        }
        let probed = probed
            .plugin_arg("count=p:opens do_sys_openat2 file=+0($arg2):ustring")
            .plugin_arg("filter=file==\"/etc/none\"")
            .plugin_arg("count=p:getppids __x64_sys_getppid")
            .run_ok();
        assert_hits(&probed, qemu.version(), &[("opens", 100), ("getppids", 100)]);
        let (without, with) = (texts(&without), texts(&probed));
        assert!(without[0].0.parse::<u64>().unwrap() > 10 << 20, "{without:?}");
        assert_eq!(without[0], without[2], "the text does not change by itself");
        assert_ne!(without[0].1, without[1].1);
        assert_eq!(with, without, "{qemu}: the guest read other text with {} probes", places.len());
    }
}
