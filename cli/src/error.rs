//! Why a guest could not be booted or spoken to. Every text names what is wrong and what to do.

use std::io;
use std::path::PathBuf;

/// What went wrong around a guest.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The kernel image cannot be used.
    #[error(transparent)]
    Image(#[from] qkprobe_symbols::Error),
    /// The image does not say its architecture, or this build has no row for it.
    #[error("{file}: {what}")]
    Arch {
        /// The image.
        file: String,
        /// What is wrong, and what to give.
        what: String,
    },
    /// No QEMU.
    #[error(
        "{program} was not found in $PATH{looked}: install it (Debian: apt install {package}), or name it with --qemu FILE"
    )]
    NoQemu {
        /// The program.
        program: String,
        /// Where it was looked for besides.
        looked: String,
        /// Debian's package.
        package: &'static str,
    },
    /// No plugin.
    #[error(
        "libqkprobe.so was not found ({looked}): build it (cargo build --release -p qkprobe-plugin), or name it with \
         --plugin FILE or QKPROBE_PLUGIN"
    )]
    NoPlugin {
        /// Where it was looked for.
        looked: String,
    },
    /// A file or folder.
    #[error("{path}: {error}")]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system says.
        #[source]
        error: io::Error,
    },
    /// QEMU did not start, or ended before anything could be said to it.
    #[error("QEMU ended at once ({status}){}", below(stderr))]
    Start {
        /// How.
        status: String,
        /// What it said.
        stderr: String,
    },
    /// The plugin refuses; its own words.
    #[error("{message}")]
    Refused {
        /// `ENOENT`, ...
        code: String,
        /// The same as Linux's number; 0 if the plugin did not say one.
        errno: i64,
        /// For people.
        message: String,
    },
    /// The other side of a socket is gone or speaks another language.
    #[error("{what}: {detail}")]
    Talk {
        /// Which conversation.
        what: &'static str,
        /// What happened.
        detail: String,
    },
    /// It did not come in time.
    #[error("{what} did not come within {seconds:.1} s{tail}")]
    Timeout {
        /// What.
        what: String,
        /// How long.
        seconds: f64,
        /// The console's end, on lines of its own.
        tail: String,
    },
    /// The guest ended before it came.
    #[error("the guest ended ({how}) before {what}{tail}")]
    Ended {
        /// What was waited for.
        what: String,
        /// How QEMU ended.
        how: String,
        /// The console's end, on lines of its own.
        tail: String,
    },
}

/// Lines below the first, if there are any.
fn below(lines: &str) -> String {
    if lines.is_empty() { String::new() } else { format!("\n{lines}") }
}

impl Error {
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |error| Self::Io { path, error }
    }
}
