//! Why the API refuses: each with the errno that the kernel's own `register_kprobe` and its like give for it.

use qkprobe_arch::GuestAddr;

/// Why something is refused. Nothing has changed then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// `ENOENT`: no symbol of this name, or of no module that the image knows.
    #[error("{place}: no such symbol{help}")]
    NoSuchSymbol {
        /// As the user wrote it.
        place: String,
        /// Text to follow: what may have been meant.
        help: String,
    },
    /// `EADDRNOTAVAIL`: several functions have this name; one of the addresses has to be given instead.
    #[error("{place}: the symbol is not unique: give one of its addresses {addresses:?}")]
    SymbolNotUnique {
        /// As the user wrote it.
        place: String,
        /// Where they are, as linked.
        addresses: Vec<GuestAddr>,
    },
    /// `ENOENT`: a symbol with an offset that lies in no symbol any more.
    #[error("{place}: {what}")]
    NoSuchPlace {
        /// As the user wrote it.
        place: String,
        /// What is there.
        what: String,
    },
    /// `EILSEQ`: the address is inside an instruction.
    #[error("{place}: no instruction begins here: {what}")]
    NotBoundary {
        /// As the user wrote it.
        place: String,
        /// Which instruction covers it.
        what: String,
    },
    /// `EINVAL`: a return probe hooks a whole function, so its place must be a function's entry.
    #[error("{place}: not the entry of a function, so nothing returns from it")]
    NotFunctionEntry {
        /// As the user wrote it.
        place: String,
    },
    /// `EINVAL`: what the user asks for does not go together, or is no code.
    #[error("{place}: {what}")]
    Invalid {
        /// As the user wrote it.
        place: String,
        /// What is wrong.
        what: String,
    },
    /// `EOPNOTSUPP`: this QEMU, or this instruction, cannot.
    #[error("{place}: {what}")]
    Unsupported {
        /// As the user wrote it.
        place: String,
        /// What is missing, with the QEMU that has it.
        what: String,
    },
    /// `E2BIG`: more pending calls than a return probe may track.
    #[error("{place}: maxactive {maxactive}: at most {most}", most = super::prepare::MAX_MAXACTIVE)]
    TooBig {
        /// As the user wrote it.
        place: String,
        /// What was asked for.
        maxactive: u32,
    },
    /// `EEXIST`: another Rust probe has this name.
    #[error("{name}: a probe of this name exists already")]
    NameTaken {
        /// The name.
        name: String,
    },
    /// `ENOSPC`: no more probes are possible.
    #[error("{what}")]
    NoSpace {
        /// How many are.
        what: String,
    },
    /// `EINVAL`: the handle's probe is unregistered already.
    #[error("this probe is not registered any more")]
    NotRegistered,
    /// `EDEADLK`: a handler may not ask for this, because it would wait for its own end.
    #[error("not from within a handler: it would wait for its own end. Let another thread do it")]
    FromHandler,
}

impl Error {
    /// The errno, as a positive number of the host's.
    #[must_use]
    pub fn errno(&self) -> i32 {
        match self {
            Self::NoSuchSymbol { .. } | Self::NoSuchPlace { .. } => libc::ENOENT,
            Self::SymbolNotUnique { .. } => libc::EADDRNOTAVAIL,
            Self::NotBoundary { .. } => libc::EILSEQ,
            Self::NotFunctionEntry { .. } | Self::Invalid { .. } | Self::NotRegistered => libc::EINVAL,
            Self::Unsupported { .. } => libc::EOPNOTSUPP,
            Self::TooBig { .. } => libc::E2BIG,
            Self::NameTaken { .. } => libc::EEXIST,
            Self::NoSpace { .. } => libc::ENOSPC,
            Self::FromHandler => libc::EDEADLK,
        }
    }
}
