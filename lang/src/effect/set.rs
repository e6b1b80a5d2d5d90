//! `LVALUE=VALUE`: a register or a place in memory that gets a value at a hit.
//!
//! The left side is a fetch expression, parsed and compiled as an argument is: what an argument would read last is what
//! is written here.

use qkprobe_arch::{Arch, ByteOrder, GuestAddr, Register, RegisterId, RegisterSource, Role};

use super::Shown;
use super::value::{self, Sign};
use crate::arg::{self, ArgType, Context, Parsed, Position, Source, TypeKind};
use crate::command::{self, Definition, Kind};
use crate::diag::{Diagnostic, Words};
use crate::program::{self, HitContext, PAGE_BYTES, Program, Space};
use crate::target::Target;

/// The guest at a hit that may change it.
pub trait HitMachine: HitContext {
    /// Sets a register, zero-extended to its width; false when that is impossible, and then it is as before.
    fn set_register(&mut self, id: RegisterId, value: u64) -> bool;

    /// Writes all of `bytes`, or says false and writes none. The access never crosses a page of `PAGE_BYTES`.
    fn write(&mut self, space: Space, addr: GuestAddr, bytes: &[u8]) -> bool;
}

/// One `LVALUE=VALUE`, compiled.
#[derive(Clone, Debug)]
pub struct Set {
    place: Place,
    /// As a register holds it.
    value: u64,
    /// The value in the guest's byte order; the first `len` count.
    bytes: [u8; 8],
    len: u8,
}

#[derive(Clone, Debug)]
enum Place {
    Register(RegisterId),
    /// Where the program's one argument lies.
    Memory(Box<Program>),
}

impl Set {
    /// Gives the place its value; false if that could not be done, and then nothing has changed. No allocation.
    pub fn apply(&self, machine: &mut dyn HitMachine) -> bool {
        let program = match &self.place {
            Place::Register(id) => return machine.set_register(*id, self.value),
            Place::Memory(program) => program,
        };
        let Some((space, addr)) = program.locate(machine) else { return false };
        let Some(bytes) = self.bytes.get(..usize::from(self.len)) else { return false };
        let page_left = usize::try_from(PAGE_BYTES - addr.0 % PAGE_BYTES).unwrap_or(bytes.len());
        let Some((first, second)) = bytes.split_at_checked(page_left).filter(|(_, second)| !second.is_empty()) else {
            return machine.write(space, addr, bytes);
        };
        // Over the end of a page: the second page is written first, and put back should the first one refuse.
        let next = GuestAddr(addr.0.wrapping_add(page_left as u64) & program.mask);
        let mut old = [0; 8];
        let Some(old) = old.get_mut(..second.len()) else { return false };
        if !machine.read(space, next, old) || !machine.write(space, next, second) {
            return false;
        }
        machine.write(space, addr, first) || {
            machine.write(space, next, old);
            false
        }
    }

    /// The register that is set.
    #[must_use]
    pub fn register(&self) -> Option<RegisterId> {
        match self.place {
            Place::Register(id) => Some(id),
            Place::Memory(_) => None,
        }
    }

    /// Whether memory is written.
    #[must_use]
    pub fn writes_memory(&self) -> bool {
        matches!(self.place, Place::Memory(_))
    }

    /// The registers that the place is computed from.
    pub fn registers_read(&self) -> impl Iterator<Item = RegisterId> {
        self.program().into_iter().flat_map(Program::registers).copied()
    }

    /// Whether the place is computed from `HitContext::next_pc`.
    #[must_use]
    pub fn needs_next_pc(&self) -> bool {
        self.program().is_some_and(Program::needs_next_pc)
    }

    fn program(&self) -> Option<&Program> {
        match &self.place {
            Place::Register(_) => None,
            Place::Memory(program) => Some(program),
        }
    }

    /// Parses and resolves `text`.
    pub(super) fn compile(text: &str, definition: &Definition, target: &dyn Target) -> Result<Self, Diagnostic> {
        let arch = target.arch();
        let text = text.trim();
        let Some((place_text, value_text)) = text.split_once('=') else {
            let help = "write LVALUE=VALUE: %ax=5, $retval=-ENOENT, +8(%di):u32=0";
            return Err(Shown::new(definition, &format!("set:{text}")).error(4, "No value to set").with_help(help));
        };
        let (place_text, value_text) = (place_text.trim(), value_text.trim());
        let shown = Shown::new(definition, &format!("set:{place_text}={value_text}"));
        let left = Left { shown: &shown, text: place_text, arch };
        let (ty, parsed) = left.parse(definition)?;
        let (place, bytes, sign) = if parsed.derefs.is_empty() {
            let (id, register) = left.register(&parsed.source)?;
            left.check_whole(ty, register.bytes)?;
            (Place::Register(id), register.bytes, sign(ty).unwrap_or(Sign::Any))
        } else {
            let sign = left.check_type(ty)?;
            (left.memory(ty, &parsed, definition, target)?, ty.bytes, sign)
        };
        let value_at = "set:".len() + place_text.len() + 1;
        let value = value::parse(value_text)
            .map_err(|(text, help)| shown.error(value_at, capital(&text)).with_help_if(help))?;
        let value = value::fit(value, bytes, sign).map_err(|(least, greatest)| {
            let help = format!("{bytes} bytes of this type hold {least} to {greatest}");
            shown.error(value_at, "The value does not fit").with_help(help)
        })?;
        Ok(Self { place, value, bytes: in_order(value, bytes, arch.byte_order()), len: bytes })
    }
}

/// An error's text begins with a capital letter.
fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

/// The value's bytes as the guest's memory has them, from the first on.
fn in_order(value: u64, len: u8, order: ByteOrder) -> [u8; 8] {
    match order {
        ByteOrder::Little => value.to_le_bytes(),
        ByteOrder::Big => (value << (64 - u32::from(len.clamp(1, 8)) * 8)).to_be_bytes(),
    }
}

/// How a type's values are meant; `None` for what is no plain number.
fn sign(ty: ArgType) -> Option<Sign> {
    match ty {
        ArgType { bits: Some(_), .. } | ArgType { count: Some(_), .. } => None,
        ArgType { kind: TypeKind::Unsigned, .. } => Some(Sign::Unsigned),
        ArgType { kind: TypeKind::Signed, .. } => Some(Sign::Signed),
        ArgType { kind: TypeKind::Hex, .. } => Some(Sign::Any),
        _ => None,
    }
}

/// The left side, and where errors in it are shown.
struct Left<'a> {
    shown: &'a Shown,
    text: &'a str,
    arch: &'a dyn Arch,
}

impl Left<'_> {
    fn error(&self, text: impl Into<String>) -> Diagnostic {
        self.shown.error("set:".len(), text)
    }

    /// An error in the type.
    fn type_error(&self, text: &str) -> Diagnostic {
        self.shown.error("set:".len() + self.text.find(':').map_or(0, |colon| colon + 1), text)
    }

    /// Reads the text as an argument of the definition would be read.
    fn parse(&self, definition: &Definition) -> Result<(ArgType, Parsed), Diagnostic> {
        let position = match (definition.kind, definition.place.at_entry) {
            (Kind::Kretprobe { .. }, _) => Position::Return,
            (Kind::Kprobe, true) => Position::Entry,
            (Kind::Kprobe, false) => Position::Inside,
        };
        let words = [self.text];
        let context = Context { arch: self.arch, position, words: Words(&words), index: 0 };
        let (arg, parsed) = arg::parse(&context, self.text, &[], &mut 0).map_err(|error| Diagnostic {
            command: self.error("").command,
            column: error.column.map(|column| self.shown.option_at + "set:".len() + column),
            ..error
        })?;
        Ok((arg.ty, parsed))
    }

    /// The register behind an expression without a pointer.
    fn register(&self, source: &Source) -> Result<(RegisterId, &'static Register), Diagnostic> {
        let memory = "write the memory behind it: +0(PLACE):TYPE=VALUE";
        let id = match source {
            Source::Register(id) => *id,
            Source::Stack(offset) => {
                let help = format!("it is a word of the stack: set:+{offset}($stack)=VALUE");
                return Err(self.error(format!("{} is no register", self.text)).with_help(help));
            }
            Source::Saved(_) => {
                let help = "at a return, $argN is a copy from the entry; set it at the entry, by a probe p:";
                return Err(self.error(format!("{} can not be set", self.text)).with_help(help));
            }
            _ => return Err(self.error(format!("{} is no place to set", self.text)).with_help(memory)),
        };
        let Some(register) = self.arch.registers().get(usize::from(id.0)) else {
            return Err(self.error("No such register"));
        };
        let name = register.name;
        let refused = |text: String, help: &str| Err(self.error(text).with_help(help));
        match register.source {
            _ if register.role == Role::ProgramCounter => refused(
                format!("%{name} can not be set"),
                "where the guest goes is changed with skip, replace= or override=",
            ),
            RegisterSource::Constant(_) | RegisterSource::ProbeAddress => {
                refused(format!("%{name} can not be set"), "no register holds it")
            }
            RegisterSource::Qemu { .. } if !self.arch.writable(id) => refused(
                format!("%{name} can not be set"),
                "a value alone does not change what this register stands for",
            ),
            RegisterSource::Qemu { .. } => Ok((id, register)),
        }
    }

    /// A register is set as a whole.
    fn check_whole(&self, ty: ArgType, bytes: u8) -> Result<(), Diagnostic> {
        let plain = ArgType::default_for(self.arch.word_bytes());
        if ty == plain || sign(ty).is_some() && ty.bytes == bytes {
            return Ok(());
        }
        Err(self.type_error("A register is set as a whole").with_help("leave the type out"))
    }

    fn check_type(&self, ty: ArgType) -> Result<Sign, Diagnostic> {
        sign(ty).ok_or_else(|| {
            let help = "u8 to u64, s8 to s64, x8 to x64; without a type, the guest's word";
            self.type_error("Only a number can be set").with_help(help)
        })
    }

    /// Compiles the expression as an argument.
    fn memory(
        &self,
        ty: ArgType,
        parsed: &Parsed,
        definition: &Definition,
        target: &dyn Target,
    ) -> Result<Place, Diagnostic> {
        let symbol = match &parsed.source {
            Source::Symbol(text) => {
                let addr = command::image_address(text, target);
                Some(addr.map_err(|(problem, help)| {
                    Diagnostic { errno: problem.errno, ..self.error(problem.text) }.with_help(help)
                })?)
            }
            Source::Saved(n) if !definition.saved.contains(n) => {
                let help = format!("fetch it as well, so that it is kept from the entry on: saved=$arg{n}");
                return Err(self.error(format!("$arg{n} is not saved")).with_help(help));
            }
            _ => None,
        };
        let input = program::Input { ty, parsed, symbol };
        Ok(Place::Memory(Box::new(program::compile(self.arch, &[input], &definition.saved))))
    }
}
