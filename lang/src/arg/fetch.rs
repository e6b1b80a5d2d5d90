//! The fetch expression: where a value comes from, and which pointers are followed.

use qkprobe_arch::{ArgumentPlace, RegisterId};

use super::{Context, MAX_OPS, Position};
use crate::diag::{self, Diagnostic};
use crate::number::{self, Radix};
use crate::program::Space;
use crate::suggest;

/// Where the innermost value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Register(RegisterId),
    /// The word `offset` bytes above the (biased) stack pointer.
    Stack(u64),
    Constant(u64),
    /// A constant string.
    Text(String),
    /// The current task's name.
    Comm,
    /// The address of a symbol of the image, with an offset: `SYM+8`. Resolved when the definition is registered.
    Symbol(String),
    /// Argument `n` (1-based), as it was at the function's entry.
    Saved(u32),
    /// Where the guest goes next. An addition, as the next two.
    NextPc,
    /// Nanoseconds between a function's entry and its return.
    Latency,
    /// When the function was entered.
    EntryTime,
}

/// One pointer followed: the memory at the value plus `offset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Deref {
    pub(crate) offset: i64,
    pub(crate) space: Space,
}

/// A parsed fetch expression.
#[derive(Clone, Debug)]
pub(crate) struct Parsed {
    pub(crate) source: Source,
    /// Innermost first.
    pub(crate) derefs: Vec<Deref>,
    /// Index of the last slot that the kernel's program would use for this.
    pub(crate) slot: usize,
}

/// What the last step of an expression yields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Last {
    /// A register or a word that needs no type from memory.
    Value,
    /// A number, a constant string or the task's name.
    Constant,
    Memory,
    UserMemory,
}

impl Parsed {
    fn at(source: Source, slot: usize) -> Self {
        Self { source, derefs: Vec::new(), slot }
    }

    pub(crate) fn last(&self) -> Last {
        match (self.derefs.last(), &self.source) {
            (Some(Deref { space: Space::Kernel, .. }), _) => Last::Memory,
            (Some(Deref { space: Space::User, .. }), _) => Last::UserMemory,
            (None, Source::Constant(_) | Source::Text(_) | Source::Comm) => Last::Constant,
            (None, _) => Last::Value,
        }
    }
}

/// Where a value should stand there is nothing: `+0():ustring`, `a=`.
pub(super) const TAKEN_BY_SHELL: &str = "nothing is here: in double quotes the shell takes $arg1 for a variable of its own, so put the definition in single quotes";

const MEMORY: Deref = Deref { offset: 0, space: Space::Kernel };

/// Parses `text`. `offset` is its column within the argument's word and moves as the kernel's does: after a
/// dereference it stays at the text inside the outermost brace. `slot` is the first free slot.
/// Recursion is bounded by the length of an argument.
pub(super) fn parse(context: &Context<'_>, text: &str, offset: &mut usize, slot: usize) -> Result<Parsed, Diagnostic> {
    let at = *offset;
    let mut chars = text.chars();
    match chars.next() {
        Some('$') => variable(context, chars.as_str(), at, slot),
        Some('%') => match context.arch.register(chars.as_str()) {
            Some(id) => Ok(Parsed::at(Source::Register(id), slot)),
            None => {
                let help = register_help(context, chars.as_str());
                Err(context.error(at, diag::BAD_REG_NAME).with_help_if(help))
            }
        },
        Some('@') => memory(context, chars.as_str(), at, slot),
        Some(sign @ ('+' | '-')) => dereference(context, sign, chars.as_str(), offset, slot),
        Some('\\') => constant(context, chars.as_str(), at, slot),
        Some(first) if first.is_ascii_alphabetic() || first == '_' => {
            let help =
                format!("'{text}' needs the kernel's types (BTF), which are not available yet: use $argN or %REG");
            Err(context.error(at, diag::NOSUP_BTFARG).with_help(help))
        }
        None => Err(context.error(at, diag::BAD_FETCH_ARG).with_help(TAKEN_BY_SHELL)),
        _ => Err(context.error(at, diag::BAD_FETCH_ARG)),
    }
}

fn register_help(context: &Context<'_>, name: &str) -> Option<String> {
    let shorter = name.strip_prefix(['r', 'e']).filter(|short| context.arch.register(short).is_some());
    if let Some(short) = shorter {
        return Some(format!("kprobe events call it %{short}"));
    }
    let names = context.arch.registers().iter().map(|register| register.name);
    suggest::nearest(name, names).map(|near| format!("did you mean %{near}?"))
}

/// The names behind a `$`, for suggestions.
const VARIABLES: [&str; 7] = ["arg1", "retval", "stack", "comm", "nextpc", "latency", "entrytime"];

/// The variables that the kernel does not have.
fn addition(name: &str) -> Option<Source> {
    match name {
        "nextpc" => Some(Source::NextPc),
        "latency" => Some(Source::Latency),
        "entrytime" => Some(Source::EntryTime),
        _ => None,
    }
}

/// What follows a `$`.
fn variable(context: &Context<'_>, name: &str, at: usize, slot: usize) -> Result<Parsed, Diagnostic> {
    let starts_with_digit = |text: &str| text.starts_with(|first: char| first.is_ascii_digit());
    let word_bytes = context.word_bytes();
    let most_words = context.arch.thread_size() / word_bytes as u64;
    if let Some(rest) = name.strip_prefix("retval") {
        if context.position != Position::Return {
            let help = "only a return probe has a result: r PLACE, or p PLACE%return";
            return Err(context.error(at, diag::RETVAL_ON_PROBE).with_help(help));
        }
        return match rest.bytes().next() {
            None => Ok(Parsed::at(Source::Register(context.arch.return_value()), slot)),
            Some(b'-' | b'.') => Err(context.error(at, diag::NOSUP_BTFARG)),
            Some(_) => Err(context.error(at, diag::NO_BTFARG)),
        };
    }
    if let Some(rest) = name.strip_prefix("stack") {
        if rest.is_empty() {
            return Ok(Parsed::at(Source::Register(context.arch.stack_pointer()), slot));
        }
        let n = number::unsigned(rest, Radix::Decimal, word_bytes).filter(|_| starts_with_digit(rest));
        let n = n.ok_or_else(|| context.error(at, diag::BAD_VAR))?;
        if n > most_words {
            let help = format!("the stack of this guest has words 0 to {most_words}");
            return Err(context.error(at, diag::BAD_STACK_NUM).with_help(help));
        }
        return Ok(Parsed::at(Source::Stack(n * word_bytes as u64), slot));
    }
    if matches!(name, "comm" | "COMM") {
        return Ok(Parsed::at(Source::Comm, slot));
    }
    if let Some(source) = addition(name) {
        let refused = match source {
            _ if context.position == Position::Return => None,
            Source::Latency => Some(diag::LATENCY_ON_PROBE),
            Source::EntryTime => Some(diag::ENTRYTIME_ON_PROBE),
            _ => None,
        };
        return refused.map_or(Ok(Parsed::at(source, slot)), |problem| Err(context.error(at, problem)));
    }
    let Some(rest) = name.strip_prefix("arg").filter(|_| context.arch.argument(1).is_some()) else {
        let near = suggest::nearest(name, VARIABLES).map(|near| format!("did you mean ${near}?"));
        return Err(context.error(at, diag::BAD_VAR).with_help_if(near));
    };
    let n = number::unsigned(rest, Radix::Decimal, word_bytes);
    let n = n.ok_or_else(|| context.error(at, diag::BAD_VAR))?;
    let n = u32::try_from(n).ok().filter(|n| (1..=most_words).contains(&u64::from(*n)));
    let n = n.ok_or_else(|| context.error(at, diag::BAD_ARG_NUM).with_help("arguments count from $arg1"))?;
    let source = match context.position {
        Position::Inside => return Err(context.error(at, diag::NOFENTRY_ARGS)),
        Position::Return => Source::Saved(n),
        Position::Entry => at_entry(context, n).ok_or_else(|| context.error(at, diag::BAD_ARG_NUM))?,
    };
    Ok(Parsed::at(source, slot))
}

/// Where argument `n` lies at the entry.
pub(crate) fn argument(arch: &dyn qkprobe_arch::Arch, n: u32) -> Option<Source> {
    Some(match arch.argument(n)? {
        ArgumentPlace::Register(id) => Source::Register(id),
        ArgumentPlace::Stack { offset } => Source::Stack(offset),
        ArgumentPlace::Zero => Source::Constant(0),
    })
}

fn at_entry(context: &Context<'_>, n: u32) -> Option<Source> {
    argument(context.arch, n)
}

/// What follows an `@`: an address or a symbol, whose memory is meant.
fn memory(context: &Context<'_>, text: &str, at: usize, slot: usize) -> Result<Parsed, Diagnostic> {
    let (source, slots) = match text.bytes().next() {
        Some(b'0'..=b'9') => {
            let addr = number::unsigned(text, Radix::ByPrefix, context.word_bytes());
            (Source::Constant(addr.ok_or_else(|| context.error(at, diag::BAD_MEM_ADDR))?), 1)
        }
        Some(b'+') => return Err(context.error(at, diag::FILE_ON_KPROBE)),
        // The kernel keeps the symbol in a slot of its own.
        _ => (Source::Symbol(text.to_owned()), 2),
    };
    if slot + slots >= MAX_OPS - 1 {
        return Err(context.error(at, diag::TOO_MANY_OPS));
    }
    Ok(Parsed { source, derefs: vec![MEMORY], slot: slot + slots })
}

/// `[u]OFF(FETCH)` behind its sign.
fn dereference(
    context: &Context<'_>,
    sign: char,
    text: &str,
    offset: &mut usize,
    slot: usize,
) -> Result<Parsed, Diagnostic> {
    let at = *offset;
    let (space, text) = match text.strip_prefix('u') {
        Some(rest) => (Space::User, rest),
        None => (Space::Kernel, text),
    };
    let Some((number, inner)) = text.split_once('(') else {
        return Err(context.error(at, diag::DEREF_NEED_BRACE));
    };
    // The kernel drops a plus and keeps a minus; its columns do not count the `u`.
    let signed_text;
    let (number_text, counted) = if sign == '-' {
        signed_text = format!("-{number}");
        (signed_text.as_str(), number.len() + 2)
    } else {
        (number, number.len() + 1 + usize::from(!number.starts_with('-')))
    };
    let Some(distance) = number::signed(number_text, context.word_bytes()) else {
        return Err(context.error(at, diag::BAD_DEREF_OFFS));
    };
    let inside = at + counted;
    let Some(end) = inner.rfind(')') else {
        return Err(context.error(inside + inner.len(), diag::DEREF_OPEN_BRACE));
    };
    *offset = inside;
    let mut parsed = parse(context, inner.get(..end).unwrap_or_default(), offset, slot)?;
    *offset = inside;
    if parsed.derefs.is_empty() && matches!(parsed.source, Source::Comm | Source::Text(_)) {
        return Err(context.error(inside, diag::COMM_CANT_DEREF));
    }
    if parsed.derefs.is_empty() && matches!(parsed.source, Source::Latency | Source::EntryTime) {
        return Err(context.error(inside, diag::TIME_CANT_DEREF));
    }
    parsed.slot += 1;
    if parsed.slot >= MAX_OPS - 1 {
        return Err(context.error(inside, diag::TOO_MANY_OPS));
    }
    parsed.derefs.push(Deref { offset: distance, space });
    Ok(parsed)
}

/// What follows a backslash.
fn constant(context: &Context<'_>, text: &str, at: usize, slot: usize) -> Result<Parsed, Diagnostic> {
    if let Some(rest) = text.strip_prefix('"') {
        let Some(content) = rest.strip_suffix('"') else {
            return Err(context.error(at + 2 + rest.len(), diag::IMMSTR_NO_CLOSE));
        };
        return Ok(Parsed::at(Source::Text(content.to_owned()), slot));
    }
    let word_bytes = context.word_bytes();
    let value = match text.bytes().next() {
        Some(b'0'..=b'9') => number::unsigned(text, Radix::ByPrefix, word_bytes),
        Some(b'-') => number::signed(text, word_bytes).map(i64::cast_unsigned),
        Some(b'+') => number::signed(text.get(1..).unwrap_or_default(), word_bytes).map(i64::cast_unsigned),
        _ => None,
    };
    match value {
        Some(value) => Ok(Parsed::at(Source::Constant(value), slot)),
        None => Err(context.error(at + 1, diag::BAD_IMM)),
    }
}
