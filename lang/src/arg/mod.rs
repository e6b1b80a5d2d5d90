//! One argument: `[NAME=]FETCH[:TYPE]`. Name, then type, then fetch expression, then whether the two go together:
//! the kernel's order, which decides the error that a line with two mistakes gets.

mod fetch;
mod types;

pub(crate) use fetch::{Deref, Last, Parsed, Source, argument};
pub use types::{ArgType, Bits, TypeKind};

use qkprobe_arch::Arch;

use crate::diag::{self, Diagnostic, Problem, Words};
use crate::number::{self, Radix};
use crate::suggest;

/// Longest argument name.
const MAX_NAME: usize = 32;
/// Longest `FETCH:TYPE`.
const MAX_BODY: usize = 63;
/// Most elements of an array.
const MAX_ARRAY: u64 = 64;
/// Slots of the kernel's fetch program; the last one is its end mark.
const MAX_OPS: usize = 16;
/// Most bytes of a record's fixed part.
const MAX_EVENT_BYTES: usize = 3072;

const RESERVED: [&str; 8] = [
    "common_type",
    "common_flags",
    "common_preempt_count",
    "common_pid",
    "common_tgid",
    "__probe_ip",
    "__probe_ret_ip",
    "__probe_func",
];

/// One argument of a definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arg {
    /// Its name, given or automatic (`arg1`).
    pub name: String,
    /// `FETCH[:TYPE]` as the user wrote it.
    pub text: String,
    /// How it is stored and printed.
    pub ty: ArgType,
    /// The text of a constant string (`\"text"`), which no record stores.
    pub literal: Option<String>,
}

/// What stands at the probed place, as far as arguments depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Position {
    /// A function's entry: `$argN`.
    Entry,
    /// A function's return: `$retval`, and `$argN` as saved at entry.
    Return,
    /// Any other instruction.
    Inside,
}

/// What parsing one argument needs to know.
pub(crate) struct Context<'a> {
    pub(crate) arch: &'a dyn Arch,
    pub(crate) position: Position,
    pub(crate) words: Words<'a>,
    /// Index of the argument's word.
    pub(crate) index: usize,
}

impl Context<'_> {
    fn error(&self, offset: usize, problem: Problem) -> Diagnostic {
        self.words.error(self.index, offset, problem)
    }

    fn word_bytes(&self) -> usize {
        self.arch.word_bytes()
    }
}

/// Whether `name` is a C identifier.
pub(crate) fn is_identifier(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Parses `word`, the next argument after `before`. `size` is the record's fixed part so far, as the kernel counts it.
pub(crate) fn parse(
    context: &Context<'_>,
    word: &str,
    before: &[Arg],
    size: &mut usize,
) -> Result<(Arg, Parsed), Diagnostic> {
    let (name, body) = match word.split_once('=') {
        Some((name, _)) if name.len() > MAX_NAME => return Err(context.error(0, diag::ARG_NAME_TOO_LONG)),
        Some(("", _)) => return Err(context.error(0, diag::NO_ARG_NAME)),
        Some((name, body)) => (name.to_owned(), body),
        None => (automatic_name(before.len() + 1), word),
    };
    if !is_identifier(&name) {
        return Err(context.error(0, diag::BAD_ARG_NAME));
    }
    if RESERVED.contains(&name.as_str()) || before.iter().any(|arg| arg.name == name) {
        return Err(context.error(0, diag::USED_ARG_NAME));
    }
    let mut offset = word.len() - body.len();
    if body.len() > MAX_BODY {
        return Err(context.error(offset, diag::ARG_TOO_LONG));
    }
    if body.is_empty() {
        return Err(context.error(offset, diag::NO_ARG_BODY).with_help(fetch::TAKEN_BY_SHELL));
    }
    let (fetch, type_name) = match body.split_once(':') {
        Some((fetch, rest)) => (fetch, Some(rest)),
        None => (body, None),
    };
    let body_start = offset;
    let mut ty = parse_type(context, fetch, type_name, offset)?;
    let parsed = fetch::parse(context, fetch, &mut offset, 0)?;
    *size += usize::from(ty.bytes) * usize::from(ty.elements());
    if *size > MAX_EVENT_BYTES {
        return Err(context.error(body_start, diag::EVENT_TOO_BIG));
    }
    // From here on the kernel counts columns from where the last brace was opened.
    combine(context, &parsed, &mut ty, type_name, offset, type_name.map_or(0, |_| fetch.len() + 1))?;
    if let Source::Comm = parsed.source {
        let help = "$comm is not available yet: it needs the guest's current task";
        return Err(context.error(body_start, diag::NOSUP_BTFARG).with_help(help));
    }
    let literal = match &parsed.source {
        Source::Text(text) => Some(text.clone()),
        _ => None,
    };
    Ok((Arg { name, text: body.to_owned(), ty, literal }, parsed))
}

fn automatic_name(n: usize) -> String {
    format!("arg{n}")
}

fn parse_type(
    context: &Context<'_>,
    fetch: &str,
    type_name: Option<&str>,
    offset: usize,
) -> Result<ArgType, Diagnostic> {
    let type_start = offset + fetch.len() + 1;
    let mut count = None;
    let name = match type_name.map(|text| (text, text.split_once('['))) {
        Some((_, Some((name, array)))) => {
            count = Some(parse_count(context, array, type_start + name.len() + 1)?);
            Some(name)
        }
        Some((text, None)) => Some(text),
        None => None,
    };
    let at = if name.is_some() { type_start } else { offset };
    if matches!(fetch, "$comm" | "$COMM") || fetch.starts_with("\\\"") {
        if count.is_some() || name.is_some_and(|name| name != "string") {
            return Err(context.error(at, diag::NEED_STRING_TYPE));
        }
        return Ok(ArgType::STRING);
    }
    let word_bytes = context.word_bytes();
    let found = match name {
        Some(name) => types::find(name, word_bytes),
        None => Some(match fetch {
            "$nextpc" => ArgType::symbol(word_bytes),
            "$latency" | "$entrytime" => ArgType::NANOSECONDS,
            _ => ArgType::default_for(word_bytes),
        }),
    };
    match (found, name) {
        (Some(ty), _) => Ok(ArgType { count, ..ty }),
        (None, Some("%pd" | "%pD")) => {
            let help = "names of dentries and files are not available yet: they need the kernel's struct layouts";
            Err(context.error(offset, diag::NOSUP_BTFARG).with_help(help))
        }
        (None, name) => {
            let near = name.and_then(|name| suggest::nearest(name, types::names()));
            let help = near.map(|near| format!("did you mean {near}?"));
            Err(context.error(at, diag::BAD_TYPE).with_help_if(help))
        }
    }
}

/// `N]` behind a type; `at` is the column of N.
fn parse_count(context: &Context<'_>, text: &str, at: usize) -> Result<u8, Diagnostic> {
    let Some((number, suffix)) = text.split_once(']') else {
        return Err(context.error(at + text.len(), diag::ARRAY_NO_CLOSE));
    };
    if !suffix.is_empty() {
        return Err(context.error(at + number.len() + 1, diag::BAD_ARRAY_SUFFIX));
    }
    let count = number::unsigned(number, Radix::ByPrefix, 4).filter(|count| *count > 0);
    let count = count.ok_or_else(|| context.error(at, diag::BAD_ARRAY_NUM))?;
    let fits = u8::try_from(count).ok().filter(|_| count <= MAX_ARRAY);
    fits.ok_or_else(|| context.error(at, diag::ARRAY_TOO_BIG).with_help(format!("at most {MAX_ARRAY} elements")))
}

/// Whether type and fetch expression go together. Counts the kernel's program slots, so that nesting ends where it
/// ends there.
fn combine(
    context: &Context<'_>,
    parsed: &Parsed,
    ty: &mut ArgType,
    type_name: Option<&str>,
    offset: usize,
    type_offset: usize,
) -> Result<(), Diagnostic> {
    let last = parsed.last();
    let is_memory = matches!(last, Last::Memory | Last::UserMemory);
    let at_type = |problem| Err(context.error(offset + type_offset, problem));
    let mut slot = parsed.slot;
    let extra_slot = if ty.kind.is_string() {
        let symstr = ty.kind == TypeKind::SymbolString;
        if symstr && !matches!(last, Last::Value | Last::Memory) {
            return at_type(diag::BAD_SYMSTRING);
        }
        if !symstr && !is_memory && last != Last::Constant {
            let help = "a string is in memory: +0(FETCH):string, or :ustring for user memory";
            return Err(context.error(offset + type_offset, diag::BAD_STRING).with_help(help));
        }
        symstr || last == Last::Constant || ty.count.is_some()
    } else {
        !is_memory
    };
    if extra_slot {
        slot += 1;
        if slot >= MAX_OPS - 1 {
            let problem =
                Problem { errno: if ty.kind.is_string() { diag::EINVAL } else { diag::E2BIG }, ..diag::TOO_MANY_OPS };
            return Err(context.error(offset, problem));
        }
    }
    if let Some(name) = type_name.filter(|name| name.starts_with('b')) {
        slot += 1;
        match types::bits(name, ty.bytes).filter(|_| slot < MAX_OPS - 1) {
            Some(bits) => ty.bits = Some(bits),
            None => return at_type(diag::BAD_BITFIELD),
        }
    }
    if ty.count.is_some() {
        // The kernel also refuses numbers in user memory; nothing stands in the way here.
        let stored_from_memory = if ty.kind.is_string() { ty.kind != TypeKind::SymbolString } else { is_memory };
        if !stored_from_memory {
            let help = "an array is in memory: +0(FETCH):TYPE[N]";
            return Err(context.error(offset + type_offset, diag::BAD_STRING).with_help(help));
        }
        if slot + 1 >= MAX_OPS - 1 {
            let problem = Problem { errno: diag::E2BIG, ..diag::TOO_MANY_OPS };
            return Err(context.error(offset, problem));
        }
    }
    Ok(())
}
