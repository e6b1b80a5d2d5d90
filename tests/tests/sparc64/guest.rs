//! Linux on sun4u, for the test programs of sparc64.
#![allow(dead_code, reason = "each test program uses its part")]

use qkprobe_arch::{Arch, GuestAddr, Insn};
use qkprobe_symbols::KernelImage;
use qkprobe_tests::{Boot, BootResult, GuestKernel, Qemu};

pub(crate) const KERNEL: GuestKernel = GuestKernel::Sparc64Sun4u6_1;
pub(crate) const QEMU: Qemu = Qemu::V11_1;

pub(crate) fn arch() -> &'static dyn Arch {
    qkprobe_arch::by_name("sparc64").unwrap()
}

pub(crate) fn boot(qemu: Qemu) -> Boot {
    Boot::new(qemu, KERNEL).append("quiet")
}

/// The word at a place of the image.
#[track_caller]
pub(crate) fn word(image: &KernelImage, addr: u64) -> u32 {
    u32::from_be_bytes(image.bytes(GuestAddr(addr), 4).unwrap().try_into().unwrap())
}

/// The instructions of a piece of text, by address.
pub(crate) fn instructions(image: &KernelImage, start: u64, len: u64) -> Vec<(u64, Insn)> {
    let insn = |addr: u64| arch().decode(GuestAddr(addr), &word(image, addr).to_be_bytes());
    (start..start + len).step_by(4).map_while(|addr| Some((addr, insn(addr).ok()?))).collect()
}

#[track_caller]
pub(crate) fn assert_none_lost(boot: &BootResult) {
    for probe in &boot.summary().probes {
        assert_eq!((probe.missed, probe.dropped), (0, 0), "{probe:?}\n{}", boot.stderr);
    }
}
