//! Random states, bent so that an instruction's memory lies in the test's buffer; and the `Machine` for the executor.

use iced_x86::{Instruction, Mnemonic, OpKind, Register};
use proptest::prelude::*;
use qkprobe_arch::{Execute, GuestAddr, Machine, RegisterId};

use super::cpu::{BUFFER_BYTES, Cpu, RESERVED_FLAGS, STATUS_FLAGS, State};

/// What the general registers are called here, in the order of their numbers in instructions.
const NAMES: [&str; 16] =
    ["ax", "cx", "dx", "bx", "sp", "bp", "si", "di", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"];
const SP: usize = 4;
const BP: usize = 5;
/// No access comes nearer to the buffer's ends.
const MARGIN: u64 = 1024;
/// The most that an index register counts, scaled by up to 8.
const MOST_INDEX: u64 = 32;

/// What proptest chooses.
#[derive(Clone, Debug)]
pub(crate) struct Random {
    registers: [u64; 16],
    flags: u64,
    memory: u64,
    places: [u64; 4],
}

/// Anything, and often what lies at an edge of some width.
fn value() -> impl Strategy<Value = u64> {
    let edge = (0_u32..64, -2_i64..=2).prop_map(|(bit, by)| (1_u64 << bit).wrapping_add_signed(by));
    prop_oneof![3 => any::<u64>(), 2 => edge, 1 => 0_u64..80, 1 => (0_u64..80).prop_map(|value| !value)]
}

impl Random {
    pub(crate) fn strategy() -> impl Strategy<Value = Self> {
        (proptest::array::uniform16(value()), any::<u64>(), any::<u64>(), any::<[u64; 4]>())
            .prop_map(|(registers, flags, memory, places)| Self { registers, flags, memory, places })
    }
}

fn number(register: Register) -> usize {
    register.full_register() as usize - Register::RAX as usize
}

/// A place for memory: anywhere in the buffer but near its ends.
fn somewhere(cpu: &Cpu, random: u64) -> u64 {
    cpu.buffer_addr() + MARGIN + random % (BUFFER_BYTES as u64 - 2 * MARGIN)
}

/// The state to start with.
pub(crate) fn place(instruction: &Instruction, random: &Random, cpu: &Cpu) -> State {
    let mut state = State {
        registers: random.registers,
        flags: random.flags & STATUS_FLAGS | RESERVED_FLAGS,
        next: 0,
        memory: vec![0; BUFFER_BYTES],
    };
    let mut seed = random.memory;
    for word in state.memory.chunks_exact_mut(8) {
        // Vigna's splitmix64.
        seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (seed ^ seed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        word.copy_from_slice(&(mixed ^ mixed >> 31).to_le_bytes());
    }
    let mnemonic = instruction.mnemonic();
    match mnemonic {
        Mnemonic::Push | Mnemonic::Pop | Mnemonic::Call | Mnemonic::Ret => {
            state.registers[SP] = somewhere(cpu, random.places[0]);
        }
        Mnemonic::Leave => state.registers[BP] = somewhere(cpu, random.places[0]),
        _ => {}
    }
    let has_memory = instruction.op_kinds().any(|kind| kind == OpKind::Memory);
    if has_memory && !matches!(mnemonic, Mnemonic::Lea | Mnemonic::Nop) {
        point(instruction, random, cpu, &mut state);
    }
    aim(instruction, random, cpu, &mut state);
    bend(instruction, random, cpu, &mut state);
    if cpu.bits() == 32 {
        let (low, high) = state.registers.split_at_mut(8);
        low.iter_mut().for_each(|register| *register &= 0xffff_ffff);
        high.fill(0);
    }
    state
}

/// Lets the memory operand lie in the buffer.
fn point(instruction: &Instruction, random: &Random, cpu: &Cpu, state: &mut State) {
    let [_, target, count, high] = random.places;
    let (base, index) = (instruction.memory_base(), instruction.memory_index());
    let mut offset = instruction.memory_displacement64();
    // With 32-bit addresses the upper halves do not count.
    let widen = |register: Register, value: u64| {
        if register.size() == 4 { value & 0xffff_ffff | high << 32 } else { value }
    };
    if index != Register::None {
        let count = count % MOST_INDEX;
        state.registers[number(index)] = widen(index, count);
        offset = offset.wrapping_add(count * u64::from(instruction.memory_index_scale()));
    }
    let is_gs = instruction.memory_segment() == Register::GS;
    match base {
        // %gs points to the buffer.
        Register::None => assert!(is_gs, "no base"),
        Register::RIP | Register::EIP => {}
        base => {
            let segment = if is_gs { cpu.buffer_addr() } else { 0 };
            let value = somewhere(cpu, target).wrapping_sub(segment).wrapping_sub(offset);
            state.registers[number(base)] = widen(base, value);
        }
    }
    let is_bit = matches!(instruction.mnemonic(), Mnemonic::Bt | Mnemonic::Bts | Mnemonic::Btr | Mnemonic::Btc);
    if is_bit && instruction.op1_kind() == OpKind::Register {
        // The bit string reaches 128 bytes in both directions.
        let register = instruction.op1_register();
        let bit = (random.places[0] % 2048).wrapping_sub(1024);
        let mask = u64::MAX >> (64 - 8 * register.size());
        let whole = &mut state.registers[number(register)];
        *whole = *whole & !mask | bit & mask;
    }
}

/// Lets an indirect transfer go to the landing that waits for it.
fn aim(instruction: &Instruction, random: &Random, cpu: &Cpu, state: &mut State) {
    let landing = cpu.landing_addr();
    match instruction.mnemonic() {
        Mnemonic::Ret => cpu.put(state, state.registers[SP], landing),
        Mnemonic::Jmp | Mnemonic::Call if instruction.op0_kind() == OpKind::Register => {
            state.registers[number(instruction.op0_register())] = landing;
        }
        Mnemonic::Jmp | Mnemonic::Call if instruction.op0_kind() == OpKind::Memory => {
            let addr = memory_addr(instruction, cpu, state);
            cpu.put(state, addr, landing);
        }
        // Half of the counts decide.
        Mnemonic::Loop | Mnemonic::Loope | Mnemonic::Loopne | Mnemonic::Jrcxz | Mnemonic::Jecxz | Mnemonic::Jcxz => {
            let high = if random.places[1] & 1 == 0 { 0 } else { random.places[2] << 32 };
            if random.places[0] & 1 == 0 {
                state.registers[number(Register::RCX)] = random.places[0] >> 62 | high;
            }
        }
        _ => {}
    }
}

/// The address of the memory operand. The decoder library's, so that this test does not share its own with the executor.
fn memory_addr(instruction: &Instruction, cpu: &Cpu, state: &State) -> u64 {
    let register = |register: Register, _, _| match register {
        Register::GS => Some(cpu.buffer_addr()),
        Register::DS | Register::SS | Register::ES | Register::CS => Some(0),
        register => {
            let value = state.registers[number(register)];
            Some(if register.size() == 4 { value & 0xffff_ffff } else { value })
        }
    };
    instruction.virtual_address(0, 0, register).expect("an address")
}

/// Bends operands so that the instruction completes, and that both of its outcomes occur. The divisor and `cmpxchg`'s
/// destination are no part of rAX or rDX.
fn bend(instruction: &Instruction, random: &Random, cpu: &Cpu, state: &mut State) {
    const ACCUMULATOR: usize = 0;
    const DATA: usize = 2;
    let [_, _, choice, further] = random.places;
    match instruction.mnemonic() {
        Mnemonic::Bsf | Mnemonic::Bsr | Mnemonic::Tzcnt if instruction.op1_kind() == OpKind::Register => {
            // 0 is refused, but for `bsf` and `bsr` of whole registers.
            let register = instruction.op1_register();
            if instruction.mnemonic() == Mnemonic::Tzcnt || 8 * register.size() < cpu.bits() as usize {
                state.registers[number(register)] |= 1 << (choice % (8 * register.size() as u64));
            }
        }
        Mnemonic::Cmpxchg if choice & 1 == 0 => {
            let expected = state.registers[ACCUMULATOR];
            match instruction.op0_kind() {
                OpKind::Register => state.registers[number(instruction.op0_register())] = expected,
                _ => cpu.put(state, memory_addr(instruction, cpu, state), expected),
            }
        }
        Mnemonic::Div | Mnemonic::Idiv => {
            let is_memory = instruction.op0_kind() == OpKind::Memory;
            let bytes = if is_memory { instruction.memory_size().size() } else { instruction.op0_register().size() };
            let unused = 64 - 8 * bytes as u32;
            let is_signed = instruction.mnemonic() == Mnemonic::Idiv;
            let divisor = match state.registers[1] & u64::MAX >> unused {
                0 => 3,
                divisor if is_signed && divisor == u64::MAX >> unused => 5,
                divisor => divisor,
            };
            // The high half: below the divisor; signed, at most a quarter of it, or the low half's sign.
            let high = if is_signed {
                let magnitude = ((divisor << unused).cast_signed() >> unused).unsigned_abs();
                let low = state.registers[ACCUMULATOR] << unused;
                match magnitude {
                    8.. if further & 1 == 0 => choice % (magnitude / 4),
                    8.. => (choice % (magnitude / 4)).wrapping_neg(),
                    _ => (low.cast_signed() >> 63).cast_unsigned(),
                }
            } else {
                choice % divisor
            };
            if bytes == 1 {
                let low = state.registers[ACCUMULATOR] & !0xff00;
                state.registers[ACCUMULATOR] = low | (high & 0xff) << 8;
            } else {
                state.registers[DATA] = high;
            }
            if is_memory {
                cpu.put(state, memory_addr(instruction, cpu, state), divisor);
            } else {
                state.registers[number(instruction.op0_register())] = divisor;
            }
        }
        _ => {}
    }
}

/// The executor's machine: a copy of the state, whose buffer lies where the CPU's does.
#[derive(Debug)]
pub(crate) struct Model {
    state: State,
    buffer: u64,
    /// By `RegisterId`.
    kinds: Vec<Kind>,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    General(usize),
    Flags,
    GsBase,
    None,
}

impl Model {
    pub(crate) fn new(execute: &dyn Execute, cpu: &Cpu, state: &State) -> Self {
        let kind = |name: &str| match name {
            "flags" => Kind::Flags,
            "gs_base" => Kind::GsBase,
            name => NAMES.iter().position(|general| *general == name).map_or(Kind::None, Kind::General),
        };
        let kinds = execute.registers().iter().map(|register| kind(register.name)).collect();
        Self { state: state.clone(), buffer: cpu.buffer_addr(), kinds }
    }

    pub(crate) fn state(&self) -> State {
        self.state.clone()
    }

    fn range(&self, GuestAddr(addr): GuestAddr, len: usize) -> Option<std::ops::Range<usize>> {
        let start = usize::try_from(addr.checked_sub(self.buffer)?).ok()?;
        let end = start.checked_add(len)?;
        (end <= BUFFER_BYTES).then_some(start..end)
    }
}

impl Machine for Model {
    fn register(&mut self, RegisterId(id): RegisterId) -> Option<u64> {
        match self.kinds[usize::from(id)] {
            Kind::General(number) => Some(self.state.registers[number]),
            Kind::Flags => Some(self.state.flags),
            Kind::GsBase => Some(self.buffer),
            Kind::None => None,
        }
    }

    fn set_register(&mut self, RegisterId(id): RegisterId, value: u64) -> bool {
        match self.kinds[usize::from(id)] {
            Kind::General(number) => self.state.registers[number] = value,
            Kind::Flags => self.state.flags = value,
            Kind::GsBase | Kind::None => return false,
        }
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

    fn is_alone(&self) -> bool {
        true
    }
}
