//! What the plugin says to its user, on standard error.
//!
//! `eprintln!` panics when standard error is closed or full; a message that cannot be told is no reason to fall silent
//! altogether.

use std::fmt;
use std::io::Write as _;

/// Tells it; errors are ignored, there is nobody left to tell them to.
pub(crate) fn tell(text: fmt::Arguments<'_>) {
    // In one piece: the guest's console may share the terminal.
    let _ = std::io::stderr().write_all(text.to_string().as_bytes());
}

/// `eprintln!` that never panics.
macro_rules! say {
    ($($arg:tt)*) => { $crate::message::tell(format_args!("{}\n", format_args!($($arg)*))) };
}
pub(crate) use say;
