//! What a probe does to the guest besides recording: set registers and memory, change where the guest goes, halt it.
//!
//! 1. A line's or a file's options give an `EffectSpec`: spelling is checked, nothing is resolved.
//! 2. `EffectSpec::compile` resolves it for one definition, and refuses what has no meaning there.
//! 3. At a hit that passed the filter, `FaultAttr::should_fail` decides; then each `Set` is applied, in the order of the
//!    definition, and the engine carries out `flow` and `halt`.

mod errno;
mod fault;
mod replacement;
mod set;
pub(crate) mod value;

pub use fault::{FaultAttr, FaultState};
pub use replacement::Replacement;
pub use set::{HitMachine, Set};

use std::fmt;

use crate::command::{Definition, Kind};
use crate::diag::Diagnostic;
use crate::target::Target;
use value::Sign;

/// On which side of the probed instruction a probe acts and fetches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum When {
    /// Before it.
    #[default]
    Pre,
    /// After it, when it is known where the guest goes next.
    Post,
}

/// Where the guest goes instead of through the probed instruction. Needs a QEMU that lets a plugin set the program
/// counter (11.0).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FlowChange {
    /// The instruction is not executed.
    Skip,
    /// Another one is executed in its place, out of line.
    Replace(Replacement),
    /// At a function's entry: it returns at once, with this value in all bits of the result's register.
    Override(u64),
}

/// As in an option: `skip`, `replace=0f1f00`, `override=-2`.
impl fmt::Display for FlowChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Skip => f.write_str("skip"),
            Self::Replace(replacement) => write!(f, "replace={replacement}"),
            // Small negative numbers are errors.
            Self::Override(value) if (-4095..0).contains(&value.cast_signed()) => {
                write!(f, "override={}", value.cast_signed())
            }
            Self::Override(value) => write!(f, "override={value:#x}"),
        }
    }
}

/// What a probe stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Halt {
    /// The vCPU, until the control client says go on.
    Stop,
    /// QEMU, with this exit status.
    Quit(u8),
}

/// The effects of a probe as the user wrote them. `Default` is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EffectSpec {
    /// Each `LVALUE=VALUE`, in the order in which they are applied.
    pub sets: Vec<String>,
    /// Where the guest goes.
    pub flow: Option<FlowChange>,
    /// What is stopped.
    pub halt: Option<Halt>,
    /// At which hits.
    pub fault: FaultAttr,
}

/// The effects of a probe, compiled for its definition.
#[derive(Clone, Debug)]
pub struct Effects {
    /// In the order in which they are applied.
    pub sets: Box<[Set]>,
    /// Where the guest goes.
    pub flow: Option<FlowChange>,
    /// What is stopped.
    pub halt: Option<Halt>,
    /// At which hits.
    pub fault: FaultAttr,
}

impl Effects {
    /// Whether a `Set` asks for `HitContext::next_pc`.
    #[must_use]
    pub fn needs_next_pc(&self) -> bool {
        self.sets.iter().any(Set::needs_next_pc)
    }
}

/// A definition with the one option that is looked at, for messages: `p:probes/a f do OPTION`.
pub(crate) struct Shown {
    line: String,
    /// Where OPTION starts.
    option_at: usize,
}

impl Shown {
    pub(crate) fn new(definition: &Definition, option: &str) -> Self {
        let head = format!("{definition} do ");
        Self { option_at: head.len(), line: head + option }
    }

    /// An error with its caret `offset` bytes into the option.
    pub(crate) fn error(&self, offset: usize, text: impl Into<String>) -> Diagnostic {
        Diagnostic::own(text.into(), &self.line, self.option_at + offset)
    }
}

impl EffectSpec {
    /// Whether the probe only records.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sets.is_empty() && self.flow.is_none() && self.halt.is_none()
    }

    /// Resolves the effects for `definition`, a probe of `target`; `None` if there are none.
    ///
    /// # Errors
    /// An effect that is misspelt, or has no meaning for this definition, with a caret under it.
    pub fn compile(&self, definition: &Definition, target: &dyn Target) -> Result<Option<Effects>, Diagnostic> {
        if self.is_empty() {
            return Ok(None);
        }
        let flow = self.flow.as_ref().map(|flow| compile_flow(flow, definition, target)).transpose()?;
        let sets: Result<_, _> = self.sets.iter().map(|text| Set::compile(text, definition, target)).collect();
        Ok(Some(Effects { sets: sets?, flow, halt: self.halt, fault: self.fault }))
    }
}

fn compile_flow(flow: &FlowChange, definition: &Definition, target: &dyn Target) -> Result<FlowChange, Diagnostic> {
    let shown = Shown::new(definition, &flow.to_string());
    if definition.kind != Kind::Kprobe {
        let help = "a result is changed with set:$retval=VALUE; a call is prevented by a probe at the entry, p:";
        return Err(shown.error(0, "A return probe has no instruction to go around").with_help(help));
    }
    match flow {
        FlowChange::Skip => {}
        FlowChange::Replace(replacement) => replacement.check(&shown, definition, target)?,
        FlowChange::Override(_) if !definition.place.at_entry => {
            let help = "elsewhere the return address is not where the convention puts it: \
                        probe the function's name without an offset, or use skip";
            return Err(shown.error(0, "Override needs a function's entry").with_help(help));
        }
        FlowChange::Override(value) => {
            let bytes = u8::try_from(target.arch().word_bytes()).unwrap_or(8);
            // A negative number was sign-extended to 64 bits when it was read.
            let number = if bytes < 8 && *value >> 63 == 1 { i128::from(value.cast_signed()) } else { (*value).into() };
            let value = value::fit(number, bytes, Sign::Any).map_err(|(least, greatest)| {
                let text = format!("The value does not fit the result's register: {least} to {greatest}");
                shown.error("override=".len(), text)
            })?;
            return Ok(FlowChange::Override(value));
        }
    }
    Ok(flow.clone())
}
