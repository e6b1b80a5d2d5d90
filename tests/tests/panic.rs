//! A panic inside the plugin: caught at the FFI, reported once, the plugin goes silent, the guest lives on.
//!
//! Built here with the feature `test-panic`, which panics at the 1,000th hit.

use std::path::PathBuf;
use std::process::Command;

use qkprobe_tests::{Boot, GuestKernel, Qemu};

/// Builds the plugin that panics. Its dependencies are those of the unit tests, so this takes seconds.
fn panicking_plugin() -> PathBuf {
    let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).parent().expect("the target folder").join("test-panic");
    let status = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--package", "qkprobe-plugin", "--features", "test-panic", "--target-dir"])
        .arg(&target)
        .status()
        .expect("cargo runs");
    assert!(status.success(), "the plugin builds with test-panic");
    target.join("debug/libqkprobe.so")
}

#[test]
fn a_panic_in_a_hit_silences_the_plugin_and_not_the_guest() {
    let plugin = panicking_plugin();
    for qemu in Qemu::selected() {
        let boot = Boot::new(qemu, GuestKernel::X86_64Cloud6_1)
            .smp(2)
            .append("nokaslr")
            .script(["threads 2 getppid 5000", "say alive"])
            .plugin_file(&plugin)
            .plugin_arg("probe=p:ppid __x64_sys_getppid")
            .run_ok();
        let reports = boot.stderr.matches("internal error: asked for by the feature test-panic").count();
        assert_eq!(reports, 1, "{}", boot.stderr);
        assert!(boot.stderr.contains("all probes are silent from here on; the guest goes on"), "{}", boot.stderr);
        assert!(boot.console.contains("alive"), "{}", boot.console);
        let written = boot.trace.lines().filter(|line| !line.starts_with('#')).count();
        // 999 hits went before. While the panic is reported, the other vCPU may have all of its own 5,000.
        assert!((999..=5999).contains(&written), "{written} records");
    }
}
