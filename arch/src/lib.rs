//! What a guest ISA is: decode, probe legality, the instruction slot, registers and their roles, the calling
//! convention. Pure and safe: no QEMU, no I/O, no allocation in what a hit asks.
//!
//! Guest knowledge is run-time data: every ISA always compiles, on every host. `for_kernel` picks the one table
//! that answers for a QEMU target and a kernel; generic code never names an ISA.
//!
//! Porting: one folder an ISA family, the same file names in each (`mod decode regs abi`), one `Arch` at the end.
//! Optional abilities are traits of their own (`Execute`, `Translate`) that a port may leave out.
#![forbid(unsafe_code)]

mod addr;
mod execute;
mod insn;
pub mod powerpc;
mod reg;
pub mod sparc64;
mod translate;
pub mod x86;

pub use addr::{ByteOrder, GuestAddr};
pub use execute::{BlockPlace, Execute, ExecuteError, Executed, Machine, NextPc, Successors};
pub use insn::{BoundaryError, DecodeError, Flow, Insn, InsnSlot, MAX_INSN_BYTES};
pub use reg::{ArgumentPlace, Register, RegisterId, RegisterSource, Role};
pub use translate::{AddressSpace, NoSuchSymbol, Paging, PhysicalMemory, Translate};

/// Which privilege a piece of code at an address runs with, as far as the address alone tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Privilege {
    /// Only the kernel executes there.
    Kernel,
    /// User code may execute there as well (user half, vsyscall page, overlapping address spaces):
    /// `Arch::is_privileged` on the registers decides at the hit.
    AskRegisters,
}

/// Where a function finds the address that it returns to, before its first instruction runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReturnPlace {
    /// In the word at the stack pointer (without bias); the return pops it.
    Stack,
    /// In a register.
    Register(RegisterId),
    /// So many bytes behind the address in a register, which is the call's own (SPARC's `%o7` + 8).
    RegisterPlus(RegisterId, u64),
}

/// The questions that the engine asks of a guest ISA. One value per ISA, chosen once at install.
pub trait Arch: Sync + Send + std::fmt::Debug {
    /// The name in messages and summaries, as `uname -m` spells it: `x86_64`, `ppc64le`.
    fn name(&self) -> &'static str;

    /// The QEMU target that runs it: `x86_64`, and `ppc64` for both byte orders.
    fn target(&self) -> &'static str;

    /// Bytes of a `long`, a pointer and a register: 8 or 4.
    fn word_bytes(&self) -> usize;

    /// Byte order of memory and of register values.
    fn byte_order(&self) -> ByteOrder;

    /// All registers that a definition may name, and those the engine itself reads. `RegisterId` indexes it.
    fn registers(&self) -> &'static [Register];

    /// The register behind `%NAME`. The kernel's `pt_regs` names, then the extensions of this project.
    fn register(&self, name: &str) -> Option<RegisterId>;

    /// Where `$argN` (1-based) lies at a function's entry; `None` where the ISA gives no access.
    fn argument(&self, n: u32) -> Option<ArgumentPlace>;

    /// `$retval`.
    fn return_value(&self) -> RegisterId;

    /// `$stack`.
    fn stack_pointer(&self) -> RegisterId;

    /// Added to the stack pointer to get the address of `$stack0` (sparc64: the bias of 2047).
    fn stack_bias(&self) -> u64;

    /// Size and alignment of a kernel stack: the limit of `$stackN`.
    fn thread_size(&self) -> u64;

    /// Where the return address is at a function's entry.
    fn return_place(&self) -> ReturnPlace;

    /// The stack pointer that a caller finds when a function has returned to it, given the stack pointer at the
    /// function's entry. Functions that drop their arguments too (`ret $16`) are not meant: kernels have none.
    fn sp_after_return(&self, sp_at_entry: u64) -> u64;

    /// Whether the instruction at `addr`, which ran in kernel mode with this stack pointer and raised an exception whose
    /// handler ran on the same stack, was restarted: does the word where the CPU stored the interrupted program counter
    /// still say `addr`? A handler that went elsewhere (a fix-up) has changed it. `word` reads memory. Where the CPU stores
    /// nothing in memory, the frame that the kernel's handler made is looked for (powerpc), or the answer is the likelier
    /// one, and the ISA says what is not told apart (sparc64). When memory cannot be read:
    /// false, but true where it could only tell against a restart (sparc64). `sp` is that of the hit.
    fn is_restart(&self, sp: u64, addr: GuestAddr, word: &mut dyn FnMut(GuestAddr) -> Option<u64>) -> bool;

    /// Whether the stack pointer that a callback for an exception reads is still that of the instruction which raised it:
    /// does the CPU leave it to the handler to switch stacks or windows, or does QEMU call before the switch?
    fn exception_keeps_sp(&self) -> bool;

    /// Does the handler at this address never lead to a restart? It serves what is raised before an instruction begins (an
    /// interrupt, a fetch that failed), which QEMU reports as exceptions of the instruction on some targets; or a fault after
    /// which nobody runs the instruction again. False where QEMU tells interrupts apart.
    fn makes_no_restart(&self, _handler: GuestAddr) -> bool {
        false
    }

    /// A register that bars the kernel from user memory unless it is 0 (powerpc `AMR`), and whose value QEMU's reads of memory
    /// respect too.
    fn user_memory_lock(&self) -> Option<RegisterId> {
        None
    }

    /// QEMU's own program counter, where it tells at least the page on which the running block lies. A block that was
    /// translated at one virtual address may run at another (x86 translates position-independently), and then this alone
    /// says which.
    fn block_pc(&self) -> Option<RegisterId>;

    /// Kernel functions from which a task does not come back: when one is entered, everything that is pending on its
    /// stack is over. Those that a kernel lacks are to be passed over.
    fn task_end_symbols(&self) -> &'static [&'static str];

    /// Where a new task first runs, on a stack that nothing is pending on. In order of preference: only the first that
    /// a kernel has is meant.
    fn task_start_symbols(&self) -> &'static [&'static str];

    /// May a handler that runs before an instruction set this register through QEMU? The general registers; and the
    /// flags, with the caveat that QEMU may still hold the arithmetic ones elsewhere (it computes them lazily) and then
    /// overwrites what was set. Never the program counter, what selects a segment, and what is no register at all.
    fn writable(&self, id: RegisterId) -> bool;

    /// The register of which this one is another name, and that the engine and `Execute` use: two names may stand for
    /// one register of QEMU's.
    fn alias_of(&self, _id: RegisterId) -> Option<RegisterId> {
        None
    }

    /// The register that holds the next program counter, on an ISA with delay slots.
    fn npc_register(&self) -> Option<RegisterId> {
        None
    }

    /// Does the instruction behind this one execute before the transfer takes effect (a SPARC delay slot)? `Flow` then
    /// says where execution goes after both. Where the block goes on, the instruction behind runs if and only if this one
    /// has completed, as with `Flow::Next`. False as well for what skips its delay slot whenever it transfers.
    fn has_delay_slot(&self, _slot: &InsnSlot, _addr: GuestAddr) -> bool {
        false
    }

    /// May the instruction raise an exception whose handler mends the cause and runs it again: does it access memory? The nop
    /// that most functions of a kernel begin with does not.
    fn may_restart(&self, slot: &InsnSlot, addr: GuestAddr) -> bool;

    /// Does the instruction run again after every exception that it raises? Then it has executed once when it has completed,
    /// and who only counts may do so behind it: a SPARC's register windows are spilled and filled so. Not for what
    /// accesses memory, where a handler may go to a fix-up instead.
    fn restarts_until_done(&self, _slot: &InsnSlot, _addr: GuestAddr) -> bool {
        false
    }

    /// How many bytes of a function's start belong to its entry, where a probe on `SYM` really goes:
    /// x86 steps over ENDBR, so that `SYM` and `SYM+4` are one place (kernel: `arch_adjust_kprobe_addr`); powerpc over the two
    /// instructions that set up the TOC pointer, which direct calls pass by (kernel: `kprobe_lookup_name`).
    /// `text` is the function's first bytes.
    fn entry_skip(&self, text: &[u8]) -> u64;

    /// Decodes the instruction at `addr`; `bytes` may hold more than it.
    ///
    /// # Errors
    /// Undecodable, or cut short.
    fn decode(&self, addr: GuestAddr, bytes: &[u8]) -> Result<Insn, DecodeError>;

    /// Is `start + offset` an instruction boundary? `text` begins at `start`, which is one, and reaches over the
    /// instruction asked for. Fixed-width ISAs ask alignment; x86 decodes from the start. A breakpoint that something
    /// else wrote over an instruction (the guest's own kprobes) is taken for what it is: the walk cannot know what it
    /// replaced.
    ///
    /// # Errors
    /// Says which instruction covers the address, or where decoding stopped.
    fn check_boundary(&self, start: GuestAddr, text: &[u8], offset: u64) -> Result<(), BoundaryError>;

    /// Does code at this address run with kernel privilege, as far as the address tells?
    fn privilege(&self, addr: GuestAddr) -> Privilege;

    /// Whether an access for the user may reach this address. False for the kernel's half where the halves do not overlap.
    fn is_user_address(&self, addr: GuestAddr) -> bool;

    /// Where the kernel image may lie after its own relocation. Code in there that is not of the expected image may be another
    /// kernel's, but firmware, boot loaders and modules run there too. x86_64: the 1 GiB in which the base is randomised; modules lie above it.
    fn image_region(&self) -> std::ops::RangeInclusive<u64>;

    /// The register whose value `is_privileged` judges.
    fn privilege_register(&self) -> RegisterId;

    /// Whether a value of `privilege_register` means kernel privilege.
    fn is_privileged(&self, value: u64) -> bool;

    /// Does this text look like the entry of a kernel function (ENDBR, the nop that `__fentry__` became)? Used to tell
    /// that a symbol file without text is of another kernel. A heuristic: it may miss, and a call of `__fentry__` is
    /// no sign (any block may start with a call).
    fn looks_like_entry(&self, text: &[u8]) -> bool;

    /// The physical address behind one of the kernel's linear map, where the ISA fixes that: for moments in which the CPU does
    /// not translate (powerpc enters interrupts so), and a virtual access would go elsewhere.
    fn linear_map(&self, _addr: GuestAddr) -> Option<u64> {
        None
    }

    /// Whether a physical address is a device's rather than memory, on the machines that QEMU has for the ISA: to read it
    /// would change it.
    fn is_device(&self, physical: u64) -> bool;

    /// What this ISA's kernels put before the name of a system call, for its function: `__x64_sys_` for `__x64_sys_openat`.
    fn syscall_prefix(&self) -> &'static str {
        "sys_"
    }

    /// The ability to evaluate an instruction out of line, where the ISA has it.
    fn as_execute(&self) -> Option<&dyn Execute> {
        None
    }

    /// The ability to walk the guest's page tables, where QEMU's own translation must not be used.
    fn as_translate(&self) -> Option<&dyn Translate> {
        None
    }
}

static ALL: [&dyn Arch; 6] =
    [&x86::X86_64, &x86::X86_32, &powerpc::PPC64LE, &powerpc::PPC64, &powerpc::PPC, &sparc64::Sparc64];

/// Every ISA of this build, each once.
#[must_use]
pub fn all() -> &'static [&'static dyn Arch] {
    &ALL
}

/// The ISA of that name (`x86_64`, ...), or `None` when this project does not have it (yet).
#[must_use]
pub fn by_name(name: &str) -> Option<&'static dyn Arch> {
    all().iter().copied().find(|arch| arch.name() == name)
}

/// The ISA of a kernel that QEMU's target `target` runs. Where a target runs kernels of both byte orders, an unknown order is
/// that of the first in `all`.
#[must_use]
pub fn for_kernel(target: &str, order: Option<ByteOrder>) -> Option<&'static dyn Arch> {
    let fits = |arch: &&dyn Arch| arch.target() == target && order.is_none_or(|order| arch.byte_order() == order);
    all().iter().copied().find(fits)
}
