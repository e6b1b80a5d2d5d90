//! What a kernel's exception handler leaves below the stack pointer: `struct pt_regs`.
//!
//! The CPU stores nothing in memory. The kernel's handler makes a frame below the stack (and, on 64 bits, below a red zone)
//! of the code that it interrupted: `r1` minus the red zone minus the size of `pt_regs` is where `pt_regs` begins (Linux
//! `arch/powerpc/include/asm/ptrace.h`, STACK_INT_FRAME_SIZE). Its first 44 words are the same in all versions; how much
//! follows hangs on the version and the configuration, so the frame is searched for: its `gpr[1]` is the interrupted stack
//! pointer. No back chain of a call can be taken for it: those lie on multiples of 16, and `gpr[1]` never does.

use crate::GuestAddr;

/// What the kernel leaves untouched below the stack pointer on 64 bits (KERNEL_REDZONE_SIZE).
const RED_ZONE: u64 = 288;
/// Words of `struct user_pt_regs`, with which `pt_regs` begins.
const COMMON_WORDS: u64 = 44;
/// `pt_regs` is a multiple of this.
const STEP: u64 = 16;
/// The most that followed the common part so far is 64 bytes (KUAP's 16 and Book E's 48, on 32 bits).
const MOST_STEPS: u64 = 8;
/// Indices of words: the PT_* of `arch/powerpc/include/uapi/asm/ptrace.h`.
const GPR1: u64 = 1;
const NIP: u64 = 32;
const TRAP: u64 = 40;

/// Of a `pt_regs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Frame {
    nip: u64,
    /// The exception's vector; the lowest four bits are the kernel's own.
    trap: u64,
}

impl Frame {
    /// Did an access raise it? Not what comes from outside, nor a system call, nor a trap.
    const fn is_fault(&self) -> bool {
        // Machine check, data storage, data segment, alignment; the hypervisor's two storage interrupts. Book E's
        // handlers say the same numbers.
        matches!(self.trap, 0x200 | 0x300 | 0x380 | 0x600 | 0xe00 | 0xe40)
    }
}

/// Of the last exception that interrupted code with this stack pointer, if it is still there; `Err` when the memory below
/// the stack cannot be read.
fn find(sp: u64, word_bytes: u64, word: &mut dyn FnMut(GuestAddr) -> Option<u64>) -> Result<Option<Frame>, ()> {
    let red_zone = if word_bytes == 8 { RED_ZONE } else { 0 };
    let nearest = sp.wrapping_sub(red_zone + COMMON_WORDS * word_bytes);
    for step in 0..=MOST_STEPS {
        let regs = nearest.wrapping_sub(step * STEP);
        let mut at = |index: u64| word(GuestAddr(regs.wrapping_add(index * word_bytes))).ok_or(());
        if at(GPR1)? == sp {
            return Ok(Some(Frame { nip: at(NIP)?, trap: at(TRAP)? & !15 }));
        }
    }
    Ok(None)
}

/// `Arch::is_restart` of 64-bit kernels: all their handlers of faults make a frame (Book 3S since Linux v4.20; the TLB
/// misses of a 64-bit Book E are not told apart from new executions). What came while a handler kept interrupts out comes
/// when it returns, and its frame, with the same address, takes the place of the fault's.
pub(super) fn is_restart_64(sp: u64, addr: GuestAddr, word: &mut dyn FnMut(GuestAddr) -> Option<u64>) -> bool {
    matches!(find(sp, 8, word), Ok(Some(frame)) if frame.nip == addr.0)
}

/// `Arch::is_restart` of 32-bit kernels. What misses in the TLB or in the hash table is mended by handlers that make no
/// frame: an exception without one was of that kind. Not told apart then: a fix-up whose frame was overwritten before the
/// instruction ran again.
pub(super) fn is_restart_32(sp: u64, addr: GuestAddr, word: &mut dyn FnMut(GuestAddr) -> Option<u64>) -> bool {
    match find(sp, 4, word) {
        Err(()) => false,
        Ok(None) => true,
        Ok(Some(frame)) if frame.is_fault() => frame.nip == addr.0,
        // An interrupt: here, when the handler of the fault returned; or at the start of the block, which lies on the same
        // page; else it was earlier, and elsewhere.
        Ok(Some(frame)) => frame.nip & !0xfff != addr.0 & !0xfff || frame.nip >= addr.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SP: u64 = 0xc000_0000_0123_4560;
    const ADDR: GuestAddr = GuestAddr(0xc000_0000_0010_0010);

    /// Memory that holds a `pt_regs` at `regs`, and zeroes.
    fn frame(word_bytes: u64, regs: u64, sp: u64, nip: u64, trap: u64) -> impl FnMut(GuestAddr) -> Option<u64> {
        move |addr| {
            Some(match addr.0.wrapping_sub(regs) / word_bytes {
                _ if addr.0 < regs => 0,
                1 => sp,
                32 => nip,
                40 => trap,
                _ => 0,
            })
        }
    }

    #[test]
    fn a_64_bit_frame_tells() {
        // Linux 6.1, measured on radix and hash: 384 bytes of pt_regs. Less before more was added.
        for size in [384, 368, 352] {
            let regs = SP - 288 - size;
            let restarted = |nip, trap| is_restart_64(SP, ADDR, &mut frame(8, regs, SP, nip, trap));
            assert!(restarted(ADDR.0, 0x300), "{size}");
            assert!(restarted(ADDR.0, 0x301), "{size}: a bit of the kernel's own");
            assert!(restarted(ADDR.0, 0x380), "{size}");
            assert!(!restarted(ADDR.0 + 0x40, 0x300), "{size}: a fix-up");
            assert!(restarted(ADDR.0, 0x900), "{size}: the decrementer, before it ran again");
            assert!(!restarted(ADDR.0 - 0x10, 0x900), "{size}: the decrementer");
            assert!(!is_restart_64(SP, ADDR, &mut frame(8, regs, SP + 32, ADDR.0, 0x300)), "{size}: another frame");
        }
        assert!(!is_restart_64(SP, ADDR, &mut |_| None));
        assert!(!is_restart_64(SP, ADDR, &mut |_| Some(0)));
    }

    #[test]
    fn a_32_bit_handler_may_leave_no_frame() {
        const SP: u64 = 0xc123_4560;
        const ADDR: GuestAddr = GuestAddr(0xc010_0010);
        // Linux 6.1 on the 7400, measured: 176 bytes; 192 with KUAP; 224 with Book E's.
        for size in [176, 192, 224] {
            let restarted = |nip, trap| is_restart_32(SP, ADDR, &mut frame(4, SP - size, SP, nip, trap));
            assert!(restarted(0xc010_0010, 0x300), "{size}");
            assert!(!restarted(0xc010_0050, 0x300), "{size}: a fix-up");
            assert!(!restarted(0xc010_0000, 0x500), "{size}: an interrupt of the block");
            assert!(restarted(0xc010_0010, 0x900), "{size}: an interrupt before it ran again");
            assert!(restarted(0xc020_0000, 0x500), "{size}: an interrupt of long ago");
        }
        assert!(is_restart_32(SP, ADDR, &mut |_| Some(0)));
        assert!(!is_restart_32(SP, ADDR, &mut |_| None));
    }
}
