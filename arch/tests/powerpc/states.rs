//! Random states for one powerpc instruction, bent so that its memory and its target lie where the runner
//! (`runner.s`) has them; and the `Machine` for the executor.

use qkprobe_arch::{
    Arch, Execute, ExecuteError, Executed, GuestAddr, InsnSlot, Machine, NextPc, RegisterId, Successors, by_name,
};

pub(crate) const MEMORY_BYTES: usize = 256;
/// Where the instruction runs, and where it must go if it branches through a register.
pub(crate) const HERE: GuestAddr = GuestAddr(0x1_1100);
const TARGETS: [u64; 2] = [0x1_1140, 0x1_10c0];
/// After the general registers.
const NAMES: [&str; 5] = ["ctr", "link", "xer", "ccr", "tar"];
pub(crate) const CTR: usize = 32;
pub(crate) const LINK: usize = 33;
pub(crate) const XER: usize = 34;
pub(crate) const CCR: usize = 35;
pub(crate) const TAR: usize = 36;
pub(crate) const REGISTERS: usize = 37;

/// What runs the instruction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cpu {
    pub(crate) arch: &'static dyn Arch,
    /// 0 on 32 bits.
    pub(crate) version: u64,
}

impl Cpu {
    pub(crate) fn new(isa: &str, version: u64) -> Self {
        Self { arch: by_name(isa).unwrap_or_else(|| panic!("{isa}: no ISA")), version }
    }

    pub(crate) fn is_wide(self) -> bool {
        self.arch.word_bytes() == 8
    }

    /// Where the runner has the memory.
    pub(crate) fn memory(self) -> u64 {
        0x3000 + 37 * self.arch.word_bytes() as u64 + 8
    }

    fn has_isa_300(self) -> bool {
        self.version >> 16 >= 0x4e
    }
}

/// One instruction of the list.
#[derive(Clone, Debug)]
pub(crate) struct Listed {
    /// One, or a prefix and a suffix.
    pub(crate) words: Vec<u32>,
    pub(crate) text: String,
}

impl Listed {
    pub(crate) fn bytes(&self, cpu: Cpu) -> Vec<u8> {
        let bytes = |word: &u32| match cpu.arch.byte_order() {
            qkprobe_arch::ByteOrder::Big => word.to_be_bytes(),
            qkprobe_arch::ByteOrder::Little => word.to_le_bytes(),
        };
        self.words.iter().flat_map(bytes).collect()
    }

    fn word(&self) -> u32 {
        self.words.last().copied().expect("a word")
    }

    fn mnemonic(&self) -> &str {
        self.text.split(' ').next().unwrap_or_default()
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) registers: [u64; REGISTERS],
    pub(crate) memory: [u8; MEMORY_BYTES],
    /// Afterwards: did it go to its target?
    pub(crate) is_taken: bool,
}

/// Vigna's splitmix64.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// Anything, and often what lies at an edge of some width.
    fn value(&mut self) -> u64 {
        let (kind, random) = (self.next() % 8, self.next());
        match kind {
            0 | 1 => (1_u64 << (random & 63)).wrapping_add_signed((random >> 8 & 3).cast_signed() - 2),
            2 => random % 80,
            3 => !(random % 80),
            4 => random as u32 as i32 as i64 as u64,
            _ => random,
        }
    }
}

/// The state to start with.
pub(crate) fn place(listed: &Listed, seed: u64, cpu: Cpu) -> State {
    let mut random = Random(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ u64::from(listed.word()));
    let mut state = State { registers: [0; REGISTERS], memory: [0; MEMORY_BYTES], is_taken: false };
    for register in &mut state.registers {
        *register = random.value();
    }
    // Often equal, for compares.
    if random.next().is_multiple_of(4) {
        let (a, b) = (listed.word() >> 16 & 31, listed.word() >> 11 & 31);
        state.registers[b as usize] = state.registers[a as usize];
    }
    for bytes in state.memory.chunks_exact_mut(8) {
        bytes.copy_from_slice(&random.next().to_le_bytes());
    }
    aim(listed, &mut random, &mut state);
    point(listed, &mut random, cpu, &mut state);
    let flags = if cpu.has_isa_300() { 0xe00c_007f } else { 0xe000_007f };
    state.registers[XER] &= flags;
    if listed.mnemonic() == "mtxer" {
        state.registers[(listed.word() >> 21 & 31) as usize] &= flags;
    }
    state.registers[CCR] &= 0xffff_ffff;
    if !cpu.is_wide() {
        state.registers.iter_mut().for_each(|register| *register &= 0xffff_ffff);
        state.registers[TAR] = 0;
    }
    state
}

/// Lets a branch through a register go to the target, and counts come near to 0.
fn aim(listed: &Listed, random: &mut Random, state: &mut State) {
    let target = TARGETS[0] | random.next() & 3;
    if listed.words.len() == 1 && matches!(listed.word() >> 26, 16 | 19) {
        state.registers[CTR] = [0, 1, 2, 1 << 32, 1 << 32 | 1, random.next()][(random.next() % 6) as usize];
    }
    match (listed.words.len(), listed.word() >> 26, listed.word() >> 1 & 0x3ff) {
        (1, 19, 16) => state.registers[LINK] = target,
        (1, 19, 528) => state.registers[CTR] = target,
        (1, 19, 560) => state.registers[TAR] = target,
        _ => {}
    }
}

/// Lets the memory operand lie in the memory.
fn point(listed: &Listed, random: &mut Random, cpu: Cpu, state: &mut State) {
    const LOADS_AND_STORES: [&str; 11] = ["lb", "lh", "lw", "ld", "lm", "st", "pl", "ps", "dcb", "icb", "ld"];
    let mnemonic = listed.mnemonic();
    if !LOADS_AND_STORES.iter().any(|start| mnemonic.starts_with(start)) {
        return;
    }
    let room = if mnemonic.contains("mw") { 128 } else { 8 };
    let align = if room == 8 { 1 } else { 4 };
    let addr = (cpu.memory() + random.next() % (MEMORY_BYTES as u64 - room)) & !(align - 1);
    let operands = listed.text.split_once(' ').map_or("", |(_, operands)| operands);
    if let Some((before, base)) = operands.split_once('(') {
        let displacement: i64 = before.rsplit(',').next().and_then(|number| number.parse().ok()).expect("a number");
        let base = base.split(')').next().and_then(|base| base.strip_prefix('r')).map(|base| base.parse::<usize>());
        if let Some(Ok(base)) = base {
            state.registers[base] = addr.wrapping_add_signed(-displacement);
        }
        return;
    }
    let (a, b) = ((listed.word() >> 16 & 31) as usize, (listed.word() >> 11 & 31) as usize);
    if a == b {
        state.registers[a] = addr / 2;
    } else if a == 0 {
        state.registers[b] = addr;
    } else {
        state.registers[a] = addr.wrapping_sub(state.registers[b]);
    }
}

/// The state, as the executor sees it.
#[derive(Debug)]
pub(crate) struct Model {
    cpu: Cpu,
    pub(crate) state: State,
}

impl Model {
    /// `None` for a register that the runner does not have.
    fn index(&self, id: RegisterId) -> Option<usize> {
        let name = self.cpu.arch.registers()[usize::from(id.0)].name;
        match NAMES.iter().position(|other| *other == name) {
            Some(index) => Some(32 + index),
            None => (id.0 < 32).then_some(usize::from(id.0)),
        }
    }

    fn range(&self, GuestAddr(addr): GuestAddr, len: usize) -> Option<std::ops::Range<usize>> {
        let start = usize::try_from(addr.checked_sub(self.cpu.memory())?).ok()?;
        (start + len <= MEMORY_BYTES).then_some(start..start + len)
    }
}

impl Machine for Model {
    fn register(&mut self, id: RegisterId) -> Option<u64> {
        match self.cpu.arch.registers()[usize::from(id.0)].name {
            // 64-bit mode, as the user has it.
            "msr" => Some(1 << 63),
            "pvr" => Some(self.cpu.version),
            _ => self.index(id).map(|index| self.state.registers[index]),
        }
    }

    fn set_register(&mut self, id: RegisterId, value: u64) -> bool {
        let Some(index) = self.index(id) else { return false };
        self.state.registers[index] = value;
        true
    }

    fn read(&mut self, addr: GuestAddr, bytes: &mut [u8]) -> bool {
        let Some(range) = self.range(addr, bytes.len()) else { return false };
        bytes.copy_from_slice(&self.state.memory[range]);
        true
    }

    fn write(&mut self, addr: GuestAddr, bytes: &[u8]) -> bool {
        let Some(range) = self.range(addr, bytes.len()) else { return false };
        self.state.memory[range].copy_from_slice(bytes);
        true
    }
}

/// What the executor makes of a state. What it predicts beforehand must be the same.
pub(crate) fn execute(listed: &Listed, before: &State, cpu: Cpu) -> Result<State, ExecuteError> {
    let slot = InsnSlot::prepare(cpu.arch, HERE, &listed.bytes(cpu))?;
    let execute: &dyn Execute = cpu.arch.as_execute().expect("the ability");
    let mut model = Model { cpu, state: before.clone() };
    let predicted = execute.next_pc(&slot, HERE, &mut model);
    let successors = execute.successors(&slot, HERE, &mut model);
    assert!(model.state == *before, "{}: an evaluation changed the machine", listed.text);
    let Executed { next, .. } = execute.execute(&slot, HERE, &mut model)?;
    assert_eq!(predicted, Ok(NextPc::At(next)), "{}", listed.text);
    let Successors { first, second, sp } = successors.unwrap_or_else(|error| panic!("{}: {error}", listed.text));
    assert!(next == first || Some(next) == second, "{}: to {next}, not {first} or {second:?}", listed.text);
    assert_eq!(sp, model.state.registers[1], "{}: the stack pointer of successors", listed.text);
    let behind = HERE.wrapping_add(u64::from(slot.insn.len));
    assert!(next == behind || TARGETS.contains(&next.0), "{}: to {next}", listed.text);
    model.state.is_taken = next != behind;
    Ok(model.state)
}

/// What differs between two states, in the form of the golden files.
pub(crate) fn changes(before: &State, after: &State) -> String {
    let mut text = String::from(if after.is_taken { "taken" } else { "behind" });
    for index in 0..REGISTERS {
        if before.registers[index] != after.registers[index] {
            let name = index.checked_sub(32).map_or_else(|| format!("r{index}"), |index| NAMES[index].to_owned());
            text += &format!(" {name}={:x}", after.registers[index]);
        }
    }
    let differs = |index: &usize| before.memory[*index] != after.memory[*index];
    if let (Some(first), Some(last)) = ((0..MEMORY_BYTES).find(differs), (0..MEMORY_BYTES).rev().find(differs)) {
        let bytes: String = after.memory[first..=last].iter().map(|byte| format!("{byte:02x}")).collect();
        text += &format!(" +{first}={bytes}");
    }
    text
}
