//! PowerPC, all three kinds of kernels (little-endian and big-endian with 64 bits, big-endian with 32): what the other
//! tests of this folder ask of x86_64 guests, asked there; and what is special: reservations, the soft mask, vectors.
//!
//! What the kernel's own kprobes get wrong on powerpc, and the test of each:
//!
//! | | with a kprobe | test |
//! | --- | --- | --- |
//! | P1 | a load of the soft mask reads the handler's: warnings | [`atomics::p1_the_soft_mask_is_the_interrupted_codes`] |
//! | P2 | between `lwarx` and `stwcx.` the reservation is lost: the guest hangs | [`atomics::p2_reservations_hold`] |
//! | P3 | `%xer` is the trap's; `%softe` 0, `%trap` 0x700 | [`bare::p3_xer_is_that_of_the_instruction`] |
//! | P4 | a return probe behind `mflr r0` never fires | [`returns::p4_only_entries_have_return_probes`] |
//!
//! What it refuses (`rfid`, `sc`, `mtmsrd`, traps, the suffix of a prefixed instruction) is among the instructions of
//! [`bare`]'s first test.

mod common;

#[path = "powerpc/atomics.rs"]
mod atomics;
#[path = "powerpc/bare.rs"]
mod bare;
#[path = "powerpc/counts.rs"]
mod counts;
#[path = "powerpc/early.rs"]
mod early;
#[path = "powerpc/flow.rs"]
mod flow;
#[path = "powerpc/restarts.rs"]
mod restarts;
#[path = "powerpc/returns.rs"]
mod returns;
#[path = "powerpc/table.rs"]
mod table;
#[path = "powerpc/verify.rs"]
mod verify;

use qkprobe_symbols::{ByteOrder, GuestAddr, KernelImage};
use qkprobe_tests::{Boot, GuestKernel, Qemu, Threads};

/// The three kernels, and how many vCPUs they get.
const KERNELS: [(GuestKernel, u32); 3] =
    [(GuestKernel::Ppc64le6_1, 2), (GuestKernel::Ppc64Pseries6_1, 2), (GuestKernel::Ppc32Pmac6_1, 1)];

/// The return.
const BLR: u32 = 0x4e80_0020;

/// A quiet boot; with a thread for each vCPU if there are two.
fn boot(qemu: Qemu, kernel: GuestKernel, smp: u32) -> Boot {
    let threads = if smp > 1 { Threads::Multi } else { Threads::Single };
    Boot::new(qemu, kernel).smp(smp).threads(threads).append("quiet")
}

fn is_64(kernel: GuestKernel) -> bool {
    kernel != GuestKernel::Ppc32Pmac6_1
}

/// The instruction word at an address.
#[track_caller]
fn word(image: &KernelImage, addr: u64) -> u32 {
    let bytes = image.bytes(GuestAddr(addr), 4).unwrap_or_else(|| panic!("no code at {addr:#x}")).try_into().unwrap();
    if image.byte_order == Some(ByteOrder::Little) { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) }
}

/// The words of a function with their offsets.
#[track_caller]
fn words(image: &KernelImage, function: &str) -> Vec<(u64, u32)> {
    let (start, size) = common::symbol(image, function);
    assert!(size.is_multiple_of(4) && size > 0, "{function}: {size} bytes");
    (0..size).step_by(4).map(|offset| (offset, word(image, start + offset))).collect()
}

/// Where a function is entered by direct calls: behind `addis r2,r12,...; addi r2,r2,...` (ELFv2 ABI, 2.3.2.1).
#[track_caller]
fn entry(image: &KernelImage, function: &str) -> u64 {
    let (start, _) = common::symbol(image, function);
    let toc = word(image, start) >> 16 == 0x3c4c && word(image, start + 4) >> 16 == 0x3842;
    start + if toc { 8 } else { 0 }
}

/// The target of a branch of the I-form (Power ISA 3.1, 2.4), and whether it sets the link register.
fn branch(addr: u64, word: u32) -> Option<(u64, bool)> {
    let offset = i64::from(((word & 0x03ff_fffc) << 6).cast_signed() >> 6);
    (word >> 26 == 18 && word & 2 == 0).then(|| (addr.wrapping_add_signed(offset), word & 1 != 0))
}

/// The offsets behind the calls from one function to another.
#[track_caller]
fn behind_calls(image: &KernelImage, caller: &str, callee: &str) -> Vec<u64> {
    let ((start, _), target) = (common::symbol(image, caller), entry(image, callee));
    let calls = |(offset, word): &(u64, u32)| branch(start + offset, *word) == Some((target, true));
    words(image, caller).iter().filter(|line| calls(line)).map(|(offset, _)| offset + 4).collect()
}

/// The offset of the one word of a function that is this under the mask.
#[track_caller]
fn offset_of(image: &KernelImage, function: &str, mask: u32, value: u32) -> u64 {
    let found: Vec<u64> =
        words(image, function).iter().filter(|(_, word)| word & mask == value).map(|(offset, _)| *offset).collect();
    match found[..] {
        [one] => one,
        _ => panic!("{value:08x} in {function}: {found:?}"),
    }
}
