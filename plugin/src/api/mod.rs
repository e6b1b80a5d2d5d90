//! Probes in Rust: an own plugin on top of this crate.
//!
//! A user's crate is a `cdylib` that names one set-up function with [`plugin!`](crate::plugin). QEMU loads it as it loads
//! `libqkprobe.so`, with the same arguments, and everything that those ask for works in it as well:
//! 1. QEMU's `dlopen` runs two constructors: the one that decides the plugin API's version, and the macro's, which notes
//!    the set-up function in [`SET_UP`].
//! 2. `qemu_plugin_install` makes the plugin and registers the probes of the command line.
//! 3. Then `set_up` here gives the user's function the one [`Guest`], through which it registers probes.
//! 4. At QEMU's end, before the summary, `end` runs what was given to [`Guest::on_exit`].
//!
//! - `handlers`: what a handler gets and answers.
//! - `probe`: what is to be registered, as a user describes it.
//! - `prepare`: from there to what the registry takes, against the image and this QEMU.
//! - `contain`: a handler that panics.
//! - `guest`: the user's way to the plugin.
//! - `error`: why something is refused.

mod contain;
mod error;
mod guest;
pub(crate) mod handlers;
mod prepare;
mod probe;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;

use crate::running::Plugin;

pub use error::Error;
pub use guest::{Guest, ProbeHandle};
pub use handlers::{DATA_BYTES, Hit, Pre};
pub use probe::{Kprobe, Kretprobe, Probe};
pub use qkprobe_arch::GuestAddr;
pub use qkprobe_lang::Privilege;

/// A user's set-up function.
pub type SetUp = fn(&'static Guest) -> Result<(), Box<dyn std::error::Error>>;

/// What begins the names of arguments that are the user's own.
const OWN_PREFIX: &str = "x-";

/// The user's function, noted before QEMU calls anything.
static SET_UP: OnceLock<SetUp> = OnceLock::new();
/// The arguments that are the user's.
static OWN_ARGUMENTS: parking_lot::Mutex<Vec<(String, String)>> = parking_lot::Mutex::new(Vec::new());
/// The one guest of this process.
static GUEST: OnceLock<Guest> = OnceLock::new();

/// Makes this crate's cdylib a QEMU plugin: `qkprobe::plugin!(set_up);`, once, with a function
/// `fn(&'static Guest) -> Result<(), Box<dyn std::error::Error>>`.
///
/// The function runs while QEMU installs the plugin, after the arguments were read and the probes of the command line were
/// registered, and before the guest's first instruction. If it answers an error, QEMU ends with its text.
#[macro_export]
macro_rules! plugin {
    ($set_up:path) => {
        const _: () = {
            extern "C" fn note_set_up() {
                $crate::api::note_set_up($set_up);
            }
            // Run by `dlopen`, and so before QEMU calls `qemu_plugin_install`. It only stores the pointer. QEMU's entry
            // points are in the same .so: rustc exports the `#[no_mangle]` items of all crates of a cdylib.
            #[used]
            #[unsafe(link_section = ".init_array")]
            static NOTE_SET_UP: extern "C" fn() = note_set_up;
        };
    };
}

/// For [`plugin!`](crate::plugin) alone.
#[doc(hidden)]
pub fn note_set_up(set_up: SetUp) {
    // A second one has no effect: the macro is for one function.
    let _ = SET_UP.set(set_up);
}

/// Takes the user's own arguments (`x-KEY=VALUE`) out of all, if a user's function is there to read them.
pub(crate) fn keep_own_arguments(arguments: Vec<String>) -> Vec<String> {
    if SET_UP.get().is_none() {
        return arguments;
    }
    let (own, others) = split_own(arguments);
    *OWN_ARGUMENTS.lock() = own;
    others
}

fn split_own(arguments: Vec<String>) -> (Vec<(String, String)>, Vec<String>) {
    let (own, others): (Vec<_>, Vec<_>) = arguments.into_iter().partition(|argument| argument.starts_with(OWN_PREFIX));
    let pair = |argument: String| {
        let (key, value) = argument.split_once('=').unwrap_or((&argument, "on"));
        (key.trim_start_matches(OWN_PREFIX).to_owned(), value.to_owned())
    };
    (own.into_iter().map(pair).collect(), others)
}

/// Runs the user's function.
///
/// # Errors
/// What it says, with the causes; or that it panicked.
pub(crate) fn set_up(plugin: &'static Plugin) -> Result<(), String> {
    let Some(set_up) = SET_UP.get() else { return Ok(()) };
    let guest = GUEST.get_or_init(|| Guest::new(plugin, std::mem::take(&mut *OWN_ARGUMENTS.lock())));
    match catch_unwind(AssertUnwindSafe(|| set_up(guest))) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(with_causes(&*error)),
        Err(panic) => Err(format!("the set-up function panicked: {}", contain::text_of(&*panic))),
    }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str("\nbecause: ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// QEMU ends: runs what the user gave to `Guest::on_exit`.
pub(crate) fn end() {
    if let Some(guest) = GUEST.get() {
        guest.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_arguments_are_those_with_the_prefix() {
        let arguments = ["kernel=v", "x-out=a=b", "probe=p f", "x-loud"].map(str::to_owned).to_vec();
        let (own, others) = split_own(arguments);
        assert_eq!(others, ["kernel=v", "probe=p f"]);
        assert_eq!(own, [("out".to_owned(), "a=b".to_owned()), ("loud".to_owned(), "on".to_owned())]);
    }

    #[test]
    fn causes_are_told() {
        #[derive(Debug, thiserror::Error)]
        #[error("no map")]
        struct Outer(#[source] std::num::ParseIntError);
        let cause = "x".parse::<u32>().expect_err("no number");
        assert_eq!(with_causes(&Outer(cause)), "no map\nbecause: invalid digit found in string");
    }
}
