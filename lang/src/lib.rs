//! The languages in which a user asks: `kprobe_events` definitions, ftrace filters, TOML files. Typed, resolved
//! against symbols (behind `Target`), compiled to fetch programs; and the way back: a record as trace text or JSON.
//!
//! 1. `parse` reads one line, says what is wrong in the kernel's words, and gives a `Definition`.
//! 2. At a hit, its `Program` runs against a `HitContext` and writes a record: pure, without allocation.
//! 3. A `Filter`, compiled for the definition, looks at the record.
//! 4. Later and elsewhere, `Definition::print_ftrace` or `print_json` shows it.
//!
//! Beside the kernel's part of a line stand this project's options, what a probe does to the guest: `ProbeConfig::from_line`
//! takes them apart, and an `EffectSpec`, compiled for the definition, gives `Effects`.
//!
//! Grammar, limits, texts and caret columns are those of Linux 6.12. Additions, never changes: `(fault)` for numbers,
//! arrays in user memory, `$nextpc`, `$latency`, `$entrytime`, `$argN` where a place is given as a number, a `help` line behind errors.
#![forbid(unsafe_code)]

mod arg;
mod command;
mod config;
mod diag;
mod effect;
mod filter;
mod number;
mod options;
mod print;
mod program;
mod suggest;
mod target;

pub use arg::{Arg, ArgType, Bits, TypeKind};
pub use command::{Command, Definition, Delete, Events, Kind, Place, PlaceBy, not_a_boundary, parse};
pub use config::{Action, Backpressure, Config, ConfigError, Format, Privilege, read_text};
pub use diag::Diagnostic;
pub use effect::{EffectSpec, Effects, FaultAttr, FaultState, FlowChange, Halt, HitMachine, Replacement, Set, When};
pub use filter::{Common, Filter, FilterError};
pub use options::ProbeConfig;
pub use program::{HitContext, MAX_STRING_BYTES, MAX_TAIL_BYTES, PAGE_BYTES, Program, Space};
pub use target::{NamedAddr, NoNames, PlaceError, SymbolLookup, SymbolNames, Target};
