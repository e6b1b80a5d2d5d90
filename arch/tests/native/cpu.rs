//! One instruction on the host's CPU, between two halves of a stub that loads and stores all general registers and the
//! flags.
//!
//! One mapping below 4 GiB (so that 32-bit addresses reach it), three areas: code, data, buffer.
//!
//! ```text
//! CODE   push the callee-saved registers; keep the stack pointer; flags and registers from DATA.in; jmp INSN
//! INSN   the instruction
//!        landing 0, right behind it: DATA.landing = 0; jmp STORE
//!        landing 1, where it jumps to: DATA.landing = 1; jmp STORE
//! STORE  registers to DATA.out; back to the kept stack; flags to DATA.out; pop the callee-saved; ret
//! ```
//! For 32-bit code the stub goes over by a far return, and back by a far jump:
//!
//! ```text
//! CODE   push the callee-saved registers; keep the stack pointer; DS and ES, which 64-bit code has none in; to LOAD
//! LOAD   flags and registers from DATA.in; jmp INSN
//! INSN, STORE  as above; to BACK
//! BACK   back to the kept stack; pop the callee-saved; ret
//! ```
//! `mov` and `jmp` touch no flag, so the flags are loaded before the registers and stored after them. While the
//! instruction runs the stack pointer is what the test says: nothing of the process runs on this thread then, and its
//! signal handlers have a stack of their own.

use std::ptr::NonNull;

use iced_x86::{Instruction, OpKind};

pub(crate) const BUFFER_BYTES: usize = 8192;
/// CF, PF, AF, ZF, SF, OF.
pub(crate) const STATUS_FLAGS: u64 = 0x8d5;
/// The bit that is always 1, and the interrupt flag, which user code sees set and cannot clear.
pub(crate) const RESERVED_FLAGS: u64 = 0x202;

const CODE_BYTES: usize = 4096;
const DATA_BYTES: usize = 4096;
const TOTAL_BYTES: usize = CODE_BYTES + DATA_BYTES + BUFFER_BYTES;

const INSN: usize = 0x400;
/// Where indirect transfers go.
const LANDING: usize = INSN + 0x80;
const STORE: usize = 0x800;
/// Where 32-bit code begins, and where it goes back to 64-bit code.
const LOAD: usize = 0x200;
const BACK: usize = 0xc00;
/// Linux `arch/x86/include/asm/segment.h`: `__USER32_CS`, `__USER_DS`, `__USER_CS`.
const CODE_32: u8 = 0x23;
const DATA_SELECTOR: u8 = 0x2b;
const CODE_64: u8 = 0x33;

const IN_REGISTERS: usize = CODE_BYTES;
const IN_FLAGS: usize = IN_REGISTERS + 16 * 8;
const OUT_REGISTERS: usize = IN_FLAGS + 8;
const OUT_FLAGS: usize = OUT_REGISTERS + 16 * 8;
const OUT_LANDING: usize = OUT_FLAGS + 8;
const HOST_STACK: usize = OUT_LANDING + 8;
const BUFFER: usize = CODE_BYTES + DATA_BYTES;
/// The end of a stack for the flags of 32-bit code: the process's own may lie above 4 GiB.
const SMALL_STACK: usize = CODE_BYTES + DATA_BYTES;

/// In the order of their numbers in instructions: rax rcx dx bx sp bp si di r8..r15.
const SP: u8 = 4;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) registers: [u64; 16],
    pub(crate) flags: u64,
    /// The next PC; 0 before the run.
    pub(crate) next: u64,
    pub(crate) memory: Vec<u8>,
}

/// The mapping, and where the loaded instruction's landings are.
#[derive(Debug)]
pub(crate) struct Cpu {
    start: NonNull<u8>,
    /// 64 or 32.
    bits: u32,
    landings: [u64; 2],
}

/// Has the host's kernel a segment for 32-bit code?
pub(crate) fn has_code_of_32_bits() -> bool {
    /// Bits 15 (present), 12 and 11 (code), 22 (32 bits) of a descriptor's second half.
    const CODE: u32 = 1 << 15 | 1 << 12 | 1 << 11 | 1 << 22;
    let mut rights: u32 = 0;
    // SAFETY: `lar` only looks at a descriptor, and leaves its result as it is where there is none.
    unsafe { std::arch::asm!("lar {0:e}, {1:e}", inout(reg) rights, in(reg) u32::from(CODE_32)) };
    rights & CODE == CODE
}

/// Writes code that addresses the mapping by rip-relative displacements, or absolutely where it is 32-bit code.
struct Assembler<'a> {
    cpu: &'a Cpu,
    at: usize,
    bits: u32,
}

impl Assembler<'_> {
    fn bytes(&mut self, bytes: &[u8]) {
        self.cpu.write(self.at, bytes);
        self.at += bytes.len();
    }

    fn number(&mut self, value: u64) {
        self.bytes(&u32::try_from(value).expect("the mapping lies below 4 GiB").to_le_bytes());
    }

    /// An instruction that ends in a 32-bit displacement to `target`, and `immediate`.
    fn relative(&mut self, opcode: &[u8], target: usize, immediate: &[u8]) {
        self.bytes(opcode);
        let end = self.at + 4 + immediate.len();
        let displacement = i32::try_from(target as isize - end as isize).expect("a small mapping");
        self.bytes(&displacement.to_le_bytes());
        self.bytes(immediate);
    }

    /// An instruction whose memory operand is `TARGET(%rip)`, or `TARGET` in 32-bit code: both are encoded alike.
    fn memory(&mut self, opcode: &[u8], target: usize, immediate: &[u8]) {
        if self.bits == 64 {
            return self.relative(opcode, target, immediate);
        }
        self.bytes(opcode);
        self.number(self.cpu.addr(target));
        self.bytes(immediate);
    }

    /// `mov TARGET,%REG` (0x8b) or `mov %REG,TARGET` (0x89).
    fn mov(&mut self, opcode: u8, register: u8, target: usize) {
        let rex = [0x48 | register >> 3 << 2];
        let rest = [opcode, 0x05 | (register & 7) << 3];
        let prefix = if self.bits == 64 { &rex[..] } else { &[] };
        self.memory(&[prefix, &rest].concat(), target, &[]);
    }

    /// `mov $SMALL_STACK,%esp`
    fn small_stack(&mut self) {
        self.bytes(&[0xbc]);
        self.number(self.cpu.addr(SMALL_STACK));
    }

    fn landing(&mut self, number: u32) {
        // mov $NUMBER,OUT_LANDING; jmp STORE
        let opcode: &[u8] = if self.bits == 64 { &[0x48, 0xc7, 0x05] } else { &[0xc7, 0x05] };
        self.memory(opcode, OUT_LANDING, &number.to_le_bytes());
        self.relative(&[0xe9], STORE, &[]);
    }
}

impl Cpu {
    /// For code of 64 or 32 bits.
    pub(crate) fn new(bits: u32) -> Self {
        let protection = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_32BIT;
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory that is in use.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), TOTAL_BYTES, protection, flags, -1, 0) };
        assert_ne!(start, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
        let cpu = Self { start: NonNull::new(start.cast()).expect("mapped"), bits, landings: [0; 2] };
        /// Linux `arch/x86/include/uapi/asm/prctl.h`.
        const ARCH_SET_GS: libc::c_long = 0x1001;
        // SAFETY: nothing in a 64-bit Linux process uses GS; the thread's own data is behind FS.
        let result = unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_SET_GS, cpu.buffer_addr()) };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
        cpu.write_stub();
        cpu
    }

    fn assembler(&self, at: usize, bits: u32) -> Assembler<'_> {
        Assembler { cpu: self, at, bits }
    }

    fn write_stub(&self) {
        let registers = if self.bits == 64 { 0..16 } else { 0..8 };
        let mut load = self.assembler(0, 64);
        // push %rbx, %rbp, %r12, %r13, %r14, %r15
        load.bytes(&[0x53, 0x55, 0x41, 0x54, 0x41, 0x55, 0x41, 0x56, 0x41, 0x57]);
        load.mov(0x89, SP, HOST_STACK);
        if self.bits == 32 {
            // mov $DATA_SELECTOR,%eax; mov %eax,%ds; mov %eax,%es; push $CODE_32; push $LOAD; lretq
            load.bytes(&[0xb8, DATA_SELECTOR, 0, 0, 0, 0x8e, 0xd8, 0x8e, 0xc0, 0x6a, CODE_32, 0x68]);
            load.number(self.addr(LOAD));
            load.bytes(&[0x48, 0xcb]);
            load = self.assembler(LOAD, 32);
            load.small_stack();
        }
        // push IN_FLAGS; popf
        load.memory(&[0xff, 0x35], IN_FLAGS, &[]);
        load.bytes(&[0x9d]);
        for register in registers.clone() {
            load.mov(0x8b, register, IN_REGISTERS + 8 * usize::from(register));
        }
        load.relative(&[0xe9], INSN, &[]);
        assert!(load.at <= INSN - 0x80, "the stub reaches the landings");
        let mut store = self.assembler(STORE, self.bits);
        for register in registers {
            store.mov(0x89, register, OUT_REGISTERS + 8 * usize::from(register));
        }
        if self.bits == 64 {
            store.mov(0x8b, SP, HOST_STACK);
        } else {
            store.small_stack();
        }
        // pushf; cld, as functions expect it; pop OUT_FLAGS
        store.bytes(&[0x9c, 0xfc]);
        store.memory(&[0x8f, 0x05], OUT_FLAGS, &[]);
        if self.bits == 32 {
            // ljmp $CODE_64,$BACK
            store.bytes(&[0xea]);
            store.number(self.addr(BACK));
            store.bytes(&[CODE_64, 0]);
            assert!(store.at <= BACK, "the stub reaches its end");
            store = self.assembler(BACK, 64);
            store.mov(0x8b, SP, HOST_STACK);
        }
        // pop %r15, %r14, %r13, %r12, %rbp, %rbx; ret
        store.bytes(&[0x41, 0x5f, 0x41, 0x5e, 0x41, 0x5d, 0x41, 0x5c, 0x5d, 0x5b, 0xc3]);
        assert!(store.at <= CODE_BYTES, "the stub reaches the data");
    }

    /// Puts an instruction into the stub, and the landings to where it goes.
    pub(crate) fn load(&mut self, bytes: &[u8], instruction: &Instruction) {
        let start = self.addr(0);
        let target = match instruction.op0_kind() {
            OpKind::NearBranch64 | OpKind::NearBranch32 => {
                usize::try_from(instruction.near_branch_target() - start).expect("near")
            }
            _ => LANDING,
        };
        let behind = INSN + bytes.len();
        assert!((INSN - 0x60..INSN - 0x20).contains(&target) || (behind + 0x20..=LANDING).contains(&target));
        self.assembler(INSN, self.bits).bytes(bytes);
        self.assembler(behind, self.bits).landing(0);
        self.assembler(target, self.bits).landing(1);
        self.landings = [behind, target].map(|offset| start + offset as u64);
    }

    /// 64 or 32.
    pub(crate) fn bits(&self) -> u32 {
        self.bits
    }

    pub(crate) fn insn_addr(&self) -> u64 {
        self.addr(INSN)
    }

    /// Where an indirect transfer must go.
    pub(crate) fn landing_addr(&self) -> u64 {
        self.addr(LANDING)
    }

    pub(crate) fn buffer_addr(&self) -> u64 {
        self.addr(BUFFER)
    }

    /// Puts a 64-bit word into a state's copy of the buffer.
    pub(crate) fn put(&self, state: &mut State, addr: u64, word: u64) {
        let at = usize::try_from(addr - self.buffer_addr()).expect("in the buffer");
        state.memory[at..at + 8].copy_from_slice(&word.to_le_bytes());
    }

    /// Runs the loaded instruction.
    pub(crate) fn run(&self, before: &State) -> State {
        for (number, value) in before.registers.iter().enumerate() {
            self.write(IN_REGISTERS + 8 * number, &value.to_le_bytes());
        }
        self.write(IN_FLAGS, &before.flags.to_le_bytes());
        self.write(OUT_LANDING, &u64::from(u32::MAX).to_le_bytes());
        self.write(BUFFER, &before.memory);
        // SAFETY: the mapping starts with the stub, a function of the C calling convention without arguments.
        let stub = unsafe { std::mem::transmute::<*mut u8, unsafe extern "C" fn()>(self.start.as_ptr()) };
        // SAFETY: the stub keeps what its convention demands. Between its halves runs one instruction of the list, whose
        // memory lies in the buffer and whose target is a landing; both are the list's and `place`'s to see to.
        unsafe { stub() };
        let mut memory = vec![0; BUFFER_BYTES];
        self.read(BUFFER, &mut memory);
        let landing = usize::try_from(self.word(OUT_LANDING)).expect("a number");
        State {
            registers: std::array::from_fn(|number| self.word(OUT_REGISTERS + 8 * number)),
            flags: self.word(OUT_FLAGS),
            next: self.landings[landing],
            memory,
        }
    }

    fn addr(&self, offset: usize) -> u64 {
        self.start.as_ptr() as u64 + offset as u64
    }

    fn word(&self, offset: usize) -> u64 {
        let mut bytes = [0; 8];
        self.read(offset, &mut bytes);
        u64::from_le_bytes(bytes)
    }

    fn write(&self, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= TOTAL_BYTES, "beyond the mapping");
        // SAFETY: the range lies in the mapping, which is writable and to which no reference exists.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.start.as_ptr().add(offset), bytes.len()) };
    }

    fn read(&self, offset: usize, bytes: &mut [u8]) {
        assert!(offset + bytes.len() <= TOTAL_BYTES, "beyond the mapping");
        // SAFETY: the range lies in the mapping, which is readable and to which no reference exists.
        unsafe { std::ptr::copy_nonoverlapping(self.start.as_ptr().add(offset), bytes.as_mut_ptr(), bytes.len()) };
    }
}

impl Drop for Cpu {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and nothing points into it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), TOTAL_BYTES) };
    }
}
