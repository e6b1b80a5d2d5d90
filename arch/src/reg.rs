//! Registers: the names users write, the names QEMU lists, and what each is for.

/// An index into `Arch::registers`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RegisterId(pub u8);

/// What a register is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The program counter.
    ProgramCounter,
    /// The address of the instruction after this one, where it is a register (SPARC's nPC).
    NextProgramCounter,
    /// The stack pointer.
    StackPointer,
    /// The N-th integer argument of a function, 1-based.
    Argument(u8),
    /// A function's result, and no argument.
    ReturnValue,
    /// Flags or machine state.
    Flags,
    /// Nothing that the engine asks for.
    Other,
}

/// Where the value comes from at a hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegisterSource {
    /// QEMU's register of that name; of that feature (`org.qemu.power.spr`, ...) where a name occurs twice.
    Qemu {
        /// Name in QEMU's list.
        name: &'static str,
        /// Feature, when the name alone is ambiguous.
        feature: Option<&'static str>,
    },
    /// The address of the probed instruction: QEMU's own program counter is stale in a callback.
    ProbeAddress,
    /// A field of `pt_regs` that no register holds; always this value.
    Constant(u64),
}

/// One register.
#[derive(Clone, Copy, Debug)]
pub struct Register {
    /// The name after `%`: the kernel's, of `pt_regs`.
    pub name: &'static str,
    /// Bytes of its value.
    pub bytes: u8,
    /// Where a hit gets it.
    pub source: RegisterSource,
    /// What it is for.
    pub role: Role,
}

/// Where an argument lies at a function's entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArgumentPlace {
    /// In a register.
    Register(RegisterId),
    /// In the word at stack pointer + bias + `offset`.
    Stack {
        /// Bytes above the biased stack pointer.
        offset: u64,
    },
    /// The convention has none (powerpc beyond r10): reads as 0, as the kernel does.
    Zero,
}
