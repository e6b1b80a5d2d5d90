//! Which kernel runs, and where, on every guest but x86_64 (`refusals.rs`, `early.rs`). Another one than `kernel=` names: nothing
//! arms, the guest lives on, and both are named. The same one, but a relocatable powerpc kernel elsewhere than it was linked,
//! as kdump starts it: it is found.

mod common;

use std::path::Path;
use std::process::{Command, Stdio};

use qkprobe_tests::{Boot, BootResult, Cache, GuestArch, GuestKernel, Qemu};

const NOTHING_ARMS: &str = "the guest runs another kernel than kernel= names, so no probe can arm";

/// The uncompressed image of a kernel.
fn uncompressed(kernel: GuestKernel, folder: &Path) -> Vec<u8> {
    const XZ: &[u8] = b"\xfd7zXZ\0";
    let cache = Cache::open().unwrap();
    let image = std::fs::read(cache.kernel(kernel).unwrap()).unwrap();
    if kernel.arch() != GuestArch::I386 {
        return image;
    }
    let start = image.windows(XZ.len()).position(|window| window == XZ).expect("an XZ archive");
    let archive = folder.join("archive");
    std::fs::write(&archive, &image[start..]).unwrap();
    // What follows the archive is no part of it, which makes `xz` fail in the end.
    let xz = Command::new(cache.root().join("cross/tools/bin/xz"))
        .args(["--decompress", "--stdout"])
        .arg(archive)
        .stderr(Stdio::null())
        .output()
        .unwrap();
    xz.stdout
}

/// Another build of the same kernel: all that differs is how it names itself.
fn other_build(kernel: GuestKernel, folder: &Path) -> String {
    const OURS: &[u8] = b"Linux version 6.1.";
    let mut image = uncompressed(kernel, folder);
    let places: Vec<usize> = image.windows(OURS.len()).enumerate().filter(|it| it.1 == OURS).map(|it| it.0).collect();
    assert!(!places.is_empty(), "{}: no banner", kernel.name());
    for place in places {
        image[place + OURS.len() - 2] = b'9';
    }
    let path = folder.join("other");
    std::fs::write(&path, image).unwrap();
    path.display().to_string()
}

/// A boot with this image as `kernel=`.
#[track_caller]
fn boot(qemu: Qemu, kernel: GuestKernel, image: &str, more: impl FnOnce(Boot) -> Boot) -> BootResult {
    more(Boot::new(qemu, kernel))
        .append("quiet")
        .script(["getppid 100"])
        .plugin_arg(format!("kernel={image}"))
        .plugin_arg("probe=p:x do_sys_openat2")
        .plugin_arg("count=p:counts do_sys_openat2")
        .run_ok()
}

/// Nothing was armed, and that was told when it was found and at the end.
#[track_caller]
fn assert_noticed(result: &BootResult, what: &str, given: &str) {
    common::assert_hits(result, what, &[("x", 0), ("counts", 0)]);
    let problem = common::json(result)["problem"].as_str().unwrap_or_default().to_owned();
    let lines = [NOTHING_ARMS, &format!("\n  running: {}", banner(result)), &format!("\n  kernel=: {given}")];
    for line in lines {
        assert!(problem.contains(line), "{what}: {problem}");
        assert_eq!(result.stderr.matches(line).count(), 2, "{what}: {}", result.stderr);
    }
    assert!(!result.stderr.contains("panicked"), "{what}: {}", result.stderr);
}

/// How each running kernel names itself.
fn banner(result: &BootResult) -> &'static str {
    if result.console.contains("Linux ppc64le") { "Linux version 6.1.0-" } else { "Linux version 6.1." }
}

#[track_caller]
fn notices_another_build(kernel: GuestKernel) {
    let folder = tempfile::tempdir().unwrap();
    let image = other_build(kernel, folder.path());
    for qemu in Qemu::selected() {
        let result = boot(qemu, kernel, &image, |boot| boot);
        assert_noticed(&result, &format!("{qemu}, {}", kernel.name()), "Linux version 6.9.");
    }
}

#[test]
fn i386_notices_another_build() {
    notices_another_build(GuestKernel::I386Pae6_1);
}

/// Firmware that runs among a kernel's addresses before it (`firmware.rs`) does not hide it.
#[test]
fn i386_notices_another_build_after_firmware() {
    let folder = tempfile::tempdir().unwrap();
    let image = other_build(GuestKernel::I386Pae6_1, folder.path());
    let result = boot(Qemu::V11_1, GuestKernel::I386Pae6_1, &image, |boot| boot.memory(3300));
    assert_noticed(&result, "3300 MB", "Linux version 6.9.");
}

#[test]
fn powerpc_notices_another_build() {
    notices_another_build(GuestKernel::Ppc64le6_1);
    notices_another_build(GuestKernel::Ppc64Pseries6_1);
    notices_another_build(GuestKernel::Ppc32Pmac6_1);
}

#[test]
fn sparc64_notices_another_build() {
    notices_another_build(GuestKernel::Sparc64Sun4u6_1);
}

/// `__run_at_load` (Linux `arch/powerpc/kernel/head_64.S`) says that the kernel stays where it was loaded: QEMU's firmware does
/// that at 4 MB.
#[test]
fn a_relocatable_kernel_elsewhere_is_found() {
    const RUN_AT_LOAD: u64 = 0x5c;
    let folder = tempfile::tempdir().unwrap();
    for kernel in [GuestKernel::Ppc64le6_1, GuestKernel::Ppc64Pseries6_1] {
        let mut image = uncompressed(kernel, folder.path());
        let is_little = kernel == GuestKernel::Ppc64le6_1;
        // The ELF header's e_phoff, and p_offset of the one segment that is loaded: it begins with the kernel.
        let number = |at: usize| {
            let bytes = image[at..at + 8].try_into().unwrap();
            usize::try_from(if is_little { u64::from_le_bytes(bytes) } else { u64::from_be_bytes(bytes) }).unwrap()
        };
        let flag = number(number(32) + 8) + RUN_AT_LOAD as usize;
        let start = common::symbol(&common::image(kernel), "_stext").0;
        assert_eq!(common::symbol(&common::image(kernel), "__run_at_load").0, start + RUN_AT_LOAD);
        image[flag..flag + 4].copy_from_slice(&if is_little { 1u32.to_le_bytes() } else { 1u32.to_be_bytes() });
        let path = folder.path().join("elsewhere");
        std::fs::write(&path, image).unwrap();
        for qemu in Qemu::selected() {
            let result = Boot::new(qemu, kernel)
                .smp(2)
                .append("quiet")
                .script(["threads 2 getppid 1000"])
                .extra_args(["-kernel".to_owned(), path.display().to_string()])
                .plugin_arg("count=p:counts sys_getppid")
                .plugin_arg("probe=p:x sys_getppid nip=%nip")
                .plugin_arg("count=r:returns sys_getppid ret=$retval:s32 if ret == 0 || ret == 1")
                .plugin_arg("count=p:early early_setup")
                .run_ok();
            let what = format!("{qemu}, {}", kernel.name());
            common::assert_hits(&result, &what, &[("counts", 2000), ("x", 2000), ("returns", 2000), ("early", 1)]);
            assert!(result.stderr.contains("kernel slide 0x400000"), "{what}: {}", result.stderr);
            let skip = if is_little { 8 } else { 0 };
            let nip = common::symbol(&common::image(kernel), "sys_getppid").0 + skip + 0x40_0000;
            let expected = format!(" nip={nip:#x}");
            assert!(common::trace_lines(&result.trace).iter().all(|line| line.args == expected), "{what}: {expected}");
        }
    }
}
