//! One line of `kprobe_events`: a definition, a deletion, or nothing.
//!
//! The order is the kernel's, because it decides which of several mistakes is reported: the first letter, maxactive,
//! the place, the names, the arguments, the rules for a further probe of an event, and last the place's instruction.

mod events;
mod names;
mod place;

pub use events::{Delete, Events};
pub use place::{Place, PlaceBy};

use std::fmt;

use qkprobe_arch::GuestAddr;

use crate::arg::{self, Arg, Context, Deref, Parsed, Position, Source};
use crate::diag::{self, Diagnostic, Problem, Words};
use crate::number::{self, Radix};
use crate::program::{self, Program};
use crate::target::Target;

/// Longest line, without its end.
const MAX_LINE: usize = 4094;
/// Most arguments.
const MAX_ARGS: usize = 128;
/// Most calls that a return probe may track at a time.
const MAX_MAXACTIVE: u64 = 4096;

/// What a line asks for.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "one lives at a time, and it is taken apart at once")]
pub enum Command {
    /// An empty line or a comment.
    Nothing,
    /// A new probe.
    Add(Definition),
    /// The end of some probes; at least one exists.
    Delete(Delete),
}

/// Entry or return.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Hits when the instruction is about to run.
    Kprobe,
    /// Hits when the function returns.
    Kretprobe {
        /// Most pending calls to track, if the user gave a limit.
        maxactive: Option<u32>,
    },
}

/// One probe of an event. `Display` gives the line that `kprobe_events` lists.
#[derive(Clone, Debug)]
pub struct Definition {
    /// Entry or return.
    pub kind: Kind,
    /// The event's group.
    pub group: String,
    /// The event's name.
    pub event: String,
    /// Where.
    pub place: Place,
    /// What to fetch.
    pub args: Vec<Arg>,
    /// How to fetch it.
    pub program: Program,
    /// For return probes that use `$argN`: what to run at the function's entry. Its record must be kept until the
    /// return, where `HitContext::saved(i)` answers with `entry.number(record, i)`.
    pub entry: Option<Program>,
    /// The argument numbers that `entry` saves, in its order.
    pub(crate) saved: Box<[u32]>,
}

impl fmt::Display for Definition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Kprobe => f.write_str("p")?,
            Kind::Kretprobe { maxactive: None } => f.write_str("r")?,
            Kind::Kretprobe { maxactive: Some(n) } => write!(f, "r{n}")?,
        }
        write!(f, ":{}/{} {}", self.group, self.event, self.place.text)?;
        self.args.iter().try_for_each(|arg| write!(f, " {}={}", arg.name, arg.text))
    }
}

/// Blank as the kernel's `isspace` sees ASCII.
fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t'..='\r')
}

/// Parses one line, resolves it against `target` and checks it against the probes that exist.
///
/// # Errors
/// The kernel's error, with its caret.
pub fn parse(line: &str, target: &dyn Target, existing: &Events) -> Result<Command, Diagnostic> {
    let line = line.trim_end_matches(['\n', '\r']);
    if line.len() > MAX_LINE {
        let text = "The line is too long";
        return Err(Diagnostic::unlogged(text, diag::EINVAL, &[]).with_help(format!("at most {MAX_LINE} bytes")));
    }
    let code = line.split('#').next().unwrap_or_default();
    let words: Vec<&str> = code.split(is_blank).filter(|word| !word.is_empty()).collect();
    let Some(first) = words.first() else { return Ok(Command::Nothing) };
    match first.bytes().next() {
        Some(b'-') => events::parse_delete(&words, existing).map(Command::Delete),
        Some(letter @ (b'p' | b'r')) => definition(&words, letter == b'r', target, existing).map(Command::Add),
        _ => Err(Diagnostic::unlogged("Unknown kind of probe", diag::EINVAL, &words).with_help(
            foreign(first, words.get(1))
                .unwrap_or_else(|| "a line begins with p (probe), r (return probe), -: (delete) or #".to_owned()),
        )),
    }
}

/// How a definition of another tool, or of another of the kernel's, is written here.
fn foreign(head: &str, place: Option<&&str>) -> Option<String> {
    let (kind, rest) = head.split_once(':').unwrap_or((head, ""));
    // `KIND:FUNCTION` of bpftrace.
    let own = |letter: &str, tool: &str| {
        let function = if rest.is_empty() { "FUNCTION" } else { rest };
        Some(format!("{tool}'s {kind}:{function} is written {letter} {function}"))
    };
    match kind {
        "kprobe" | "fentry" | "kfunc" => own("p", "bpftrace"),
        "kretprobe" | "fexit" | "kretfunc" => own("r", "bpftrace"),
        // `f[:EVENT] SYM[%return]`, a function probe of the kernel's `dynamic_events`.
        kind if kind.strip_prefix('f').is_some_and(|max| max.bytes().all(|byte| byte.is_ascii_digit())) => {
            let place = place?;
            let function = place.strip_suffix("%return").unwrap_or(place);
            let letter = if function == *place { "p" } else { "r" };
            let event = if rest.is_empty() { String::new() } else { format!(":{rest}") };
            Some(format!("a function probe (f) is written {letter}{event} {function}"))
        }
        _ => None,
    }
}

/// The refusal of a definition whose place turns out to be inside an instruction when the running text is looked at.
#[must_use]
pub fn not_a_boundary(line: &str, help: String) -> Diagnostic {
    let words: Vec<&str> = line.split(is_blank).filter(|word| !word.is_empty()).collect();
    Words(&words).error(1, 0, diag::BAD_INSN_BNDRY).with_help(help)
}

fn definition(
    list: &[&str],
    is_return: bool,
    target: &dyn Target,
    existing: &Events,
) -> Result<Definition, Diagnostic> {
    let words = Words(list);
    let [head, place_text, arg_words @ ..] = list else {
        return Err(Diagnostic::unlogged("No place to probe", diag::EINVAL, list)
            .with_help("write p[:[GROUP/]EVENT] [MOD:]SYM[+OFF]|ADDR [NAME=]FETCH[:TYPE] ..."));
    };
    let colon = head.find(':');
    let maxactive = maxactive(words, head, colon, is_return)?;
    let resolved = place::resolve(words, place_text, is_return, target)?;
    let is_return = resolved.is_return;
    let names = match colon {
        Some(colon) => names::parse(words, head.get(colon + 1..).unwrap_or_default(), colon + 1)?,
        None => names::Names { group: None, event: None },
    };
    let group = names.group.unwrap_or(names::DEFAULT_GROUP).to_owned();
    let event = match names.event {
        Some(event) => event.to_owned(),
        None => names::automatic(is_return, &resolved.name_part()),
    };
    let (args, parsed) = arguments(words, arg_words, resolved.position(), target)?;
    let kind = if is_return { Kind::Kretprobe { maxactive } } else { Kind::Kprobe };
    let Compiled { program, entry, saved } = compile_none(target);
    let mut new = Definition { kind, group, event, place: resolved.place, args, program, entry, saved };
    events::check_further(words, &new, existing.get(&new.group, &new.event))?;
    Compiled { program: new.program, entry: new.entry, saved: new.saved } = compile(words, &new.args, &parsed, target)?;
    place::check(words, &mut new.place, is_return, target)?;
    Ok(new)
}

/// The number between `r` and the colon.
fn maxactive(words: Words<'_>, head: &str, colon: Option<usize>, is_return: bool) -> Result<Option<u32>, Diagnostic> {
    let text = head.get(1..colon.unwrap_or(head.len())).unwrap_or_default();
    if !text.starts_with(|first: char| first.is_ascii_digit()) {
        return Ok(None);
    }
    if !is_return {
        return Err(words.error(0, 1, diag::BAD_MAXACT_TYPE));
    }
    let n = number::unsigned(text, Radix::ByPrefix, 4).filter(|n| *n > 0);
    let n = n.ok_or_else(|| words.error(0, 1, diag::BAD_MAXACT))?;
    let fits = u32::try_from(n).ok().filter(|_| n <= MAX_MAXACTIVE);
    fits.map(Some).ok_or_else(|| {
        words.error(0, 1, diag::MAXACT_TOO_BIG).with_help(format!("at most {MAX_MAXACTIVE} pending calls"))
    })
}

/// All arguments. The `$arg` words are looked at before anything else, as the kernel expands them.
fn arguments(
    words: Words<'_>,
    arg_words: &[&str],
    position: Position,
    target: &dyn Target,
) -> Result<(Vec<Arg>, Vec<Parsed>), Diagnostic> {
    let mut all_args = None;
    for (index, word) in arg_words.iter().enumerate() {
        let Some(rest) = word.strip_prefix("$arg") else { continue };
        if target.arch().argument(1).is_none() {
            continue;
        }
        let problem = match rest.bytes().next() {
            _ if position == Position::Inside => diag::NOFENTRY_ARGS,
            Some(b'0'..=b'9') => continue,
            Some(b'*') if all_args.is_none() => {
                all_args = Some(index);
                continue;
            }
            Some(b'*') => diag::DOUBLE_ARGS,
            _ => diag::BAD_VAR,
        };
        return Err(words.error(index + 2, 0, problem));
    }
    if let Some(index) = all_args {
        let help = "$arg* needs the kernel's types (BTF), which are not available yet: use $arg1 $arg2 ...";
        return Err(words.error(index + 2, 0, diag::NOSUP_BTFARG).with_help(help));
    }
    if arg_words.len() > MAX_ARGS {
        return Err(words.error(2, 0, diag::TOO_MANY_ARGS).with_help(format!("at most {MAX_ARGS}")));
    }
    let mut args = Vec::with_capacity(arg_words.len());
    let mut parsed = Vec::with_capacity(arg_words.len());
    let mut size = 0;
    for (index, word) in arg_words.iter().enumerate() {
        let context = Context { arch: target.arch(), position, words, index: index + 2 };
        let (arg, fetch) = arg::parse(&context, word, &args, &mut size)?;
        args.push(arg);
        parsed.push(fetch);
    }
    Ok((args, parsed))
}

/// The programs of a definition.
struct Compiled {
    program: Program,
    entry: Option<Program>,
    saved: Box<[u32]>,
}

fn compile_none(target: &dyn Target) -> Compiled {
    Compiled { program: program::compile(target.arch(), &[], &[]), entry: None, saved: Box::new([]) }
}

/// The linked address behind the text of `Source::Symbol`, or the kernel's error and what is wrong.
pub(crate) fn image_address(text: &str, target: &dyn Target) -> Result<GuestAddr, (Problem, String)> {
    let (name, offset) = place::split_offset(text, target.arch().word_bytes())
        .ok_or_else(|| (diag::FAIL_REG_PROBE, format!("see @{text}")))?;
    let addr = target.data_symbol(name).ok_or_else(|| {
        let problem = Problem { errno: diag::ENOENT, ..diag::BAD_PROBE_ADDR };
        let hint = target.hint(name).map_or_else(String::new, |hint| format!(": {hint}"));
        (problem, format!("no symbol '{name}'{hint}"))
    })?;
    Ok(addr.wrapping_add(offset.cast_unsigned()))
}

/// Resolves `@SYM` and compiles the programs of the hit and, where needed, of the entry.
fn compile(words: Words<'_>, args: &[Arg], parsed: &[Parsed], target: &dyn Target) -> Result<Compiled, Diagnostic> {
    let arch = target.arch();
    let mut saved = Vec::new();
    let mut inputs = Vec::with_capacity(parsed.len());
    for (arg, parsed) in args.iter().zip(parsed) {
        let mut symbol = None;
        match &parsed.source {
            Source::Saved(n) if !saved.contains(n) => saved.push(*n),
            Source::Symbol(text) => {
                // The kernel's caret stands under the place: the symbol is looked up when the probe is registered.
                let addr = image_address(text, target).map_err(|(problem, help)| {
                    words.error(1, 0, problem).with_help(format!("argument {}: {help}", arg.name))
                })?;
                symbol = Some(addr);
            }
            _ => {}
        }
        inputs.push(program::Input { ty: arg.ty, parsed, symbol });
    }
    let entry = (!saved.is_empty()).then(|| entry_program(target, &saved));
    Ok(Compiled { program: program::compile(arch, &inputs, &saved), entry, saved: saved.into() })
}

/// A program of one word per saved argument.
fn entry_program(target: &dyn Target, saved: &[u32]) -> Program {
    let arch = target.arch();
    let ty = arg::ArgType::default_for(arch.word_bytes());
    let parsed: Vec<Parsed> = saved
        .iter()
        .map(|n| Parsed {
            source: arg::argument(arch, *n).unwrap_or(Source::Constant(0)),
            derefs: Vec::<Deref>::new(),
            slot: 0,
        })
        .collect();
    let inputs: Vec<_> = parsed.iter().map(|parsed| program::Input { ty, parsed, symbol: None }).collect();
    program::compile(arch, &inputs, &[])
}
