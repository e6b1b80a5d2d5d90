//! ftrace filters: `cnt > 100 && name ~ "*.conf"`, compiled for one definition and asked at the hit.

mod cpus;
mod eval;
mod glob;
mod parse;

use std::borrow::Cow;
use std::fmt;

use crate::command::Definition;
use crate::diag::write_error;
use crate::target::{SymbolNames, Target};
use eval::Node;

/// What every record has besides its arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Common {
    /// The probed address; for return probes the address returned to.
    pub ip: u64,
    /// The vCPU's number.
    pub cpu: u32,
}

/// A compiled filter.
///
/// A comparison with an element that could not be read is false, whatever the operator.
#[derive(Clone, Debug)]
pub struct Filter {
    text: String,
    /// `None` lets everything through.
    root: Option<Node>,
}

impl Filter {
    /// Compiles `text` for the fields of `definition`, with functions of `target`. `0` and `none` are no filter.
    ///
    /// # Errors
    /// The kernel's error, with its caret.
    pub fn compile(text: &str, definition: &Definition, target: &dyn Target) -> Result<Self, FilterError> {
        let trimmed = text.trim();
        let no_filter = trimmed == "0" || trimmed == "none" && definition.args.iter().all(|arg| arg.name != "none");
        let root = if no_filter { None } else { Some(parse::parse(trimmed, definition, target)?) };
        Ok(Self { text: trimmed.to_owned(), root })
    }

    /// Whether everything passes.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.root.is_none()
    }

    /// Whether a record passes. No allocation.
    #[inline]
    #[must_use]
    pub fn matches(&self, record: &[u8], common: &Common, names: &dyn SymbolNames) -> bool {
        self.root.as_ref().is_none_or(|root| root.matches(&eval::Hit { record, common, names }))
    }
}

/// What reading an event's `filter` file shows.
impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.root.is_some() { &self.text } else { "none" })
    }
}

/// A refused filter. `Display` has the shape of an entry of the kernel's `error_log`, and a `help` line behind it.
/// The errno is EINVAL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterError {
    /// The kernel's error text.
    pub text: Cow<'static, str>,
    /// The caret's column (in bytes) in `command`.
    pub column: usize,
    /// The filter.
    pub command: String,
    /// What to write instead, if known.
    pub help: Option<String>,
}

impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let column = Some(self.column);
        write_error(f, "event filter parse error", &self.text, &self.command, column, self.help.as_deref())
    }
}

impl std::error::Error for FilterError {}
