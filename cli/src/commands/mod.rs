//! One file for each kind of command, and what they share.

pub(crate) mod check;
pub(crate) mod client;
pub(crate) mod doctor;
pub(crate) mod generate;
pub(crate) mod run;
pub(crate) mod screen;
pub(crate) mod status;
pub(crate) mod symbols;
pub(crate) mod test;

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use qkprobe_harness::arch::GuestArch;

use crate::Failure;

/// Signals that ask this program to end.
#[derive(Clone, Debug)]
pub(crate) struct Interrupt(Arc<AtomicUsize>);

impl Interrupt {
    /// From here on they are noted instead of ending the program.
    pub(crate) fn catch() -> Result<Self, Failure> {
        let seen = Arc::new(AtomicUsize::new(0));
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
            let number = usize::try_from(signal).unwrap_or_default();
            signal_hook::flag::register_usize(signal, Arc::clone(&seen), number)?;
        }
        Ok(Self(seen))
    }

    /// The exit status that says so, once one has come.
    pub(crate) fn status(&self) -> Option<u8> {
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            signal => Some(u8::try_from(128 + signal).unwrap_or(u8::MAX)),
        }
    }

    /// The flag itself, for those who wait elsewhere.
    pub(crate) fn flag(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.0)
    }
}

/// The architecture of this name.
pub(crate) fn arch(name: &str) -> Result<&'static GuestArch, Failure> {
    GuestArch::by_name(name).ok_or_else(|| {
        Failure::usage(format!("--arch {name}: no such architecture; these exist: {}", GuestArch::names()))
    })
}

/// Writes a line to standard output; a reader that has gone is no error, but an end.
pub(crate) fn say(out: &mut impl Write, line: &str) -> Result<bool, Failure> {
    match writeln!(out, "{line}") {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::new(format!("standard output: {error}"))),
    }
}
