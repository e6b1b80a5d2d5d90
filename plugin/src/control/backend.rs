//! What the server asks of the plugin, and the shapes of the answers. The names of their fields are the protocol's
//! (docs/control.md): fields are only ever added.

use std::sync::Arc;

use serde::Serialize;
use serde_json::{Map, Value};

use super::selector::Selector;

/// What the server asks of the plugin. Every method may take milliseconds; none is ever called on a vCPU's thread, but
/// several clients' threads may call at the same time.
pub(crate) trait Backend: Send + Sync + 'static {
    /// Registers all probes, or none.
    ///
    /// # Errors
    /// What is wrong with the first bad one, with the kernel's text and caret.
    fn add(&self, probes: &[NewProbe]) -> Result<Vec<AddedProbe>, Refusal>;

    /// Unregisters. When it returns, no handler of these probes runs or starts.
    ///
    /// # Errors
    /// `ENOENT` where nothing matches.
    fn delete(&self, selector: &Selector) -> Result<Vec<Removed>, Refusal>;

    /// Enables or disables; returns how many probes the selector means, whether or not they changed.
    ///
    /// # Errors
    /// `ENOENT` where nothing matches.
    fn set_enabled(&self, selector: &Selector, on: bool) -> Result<usize, Refusal>;

    /// All probes, as the kernel's `kprobes/list` shows them.
    fn list(&self) -> Vec<Listing>;

    /// All probes' counters, as `kprobe_profile` shows them.
    fn profile(&self) -> Vec<Profile>;

    /// The vCPUs that a `stop` probe holds.
    fn held(&self) -> Vec<Held>;

    /// Releases one held vCPU, or all; returns how many.
    fn go_on(&self, vcpu: Option<u32>) -> usize;

    /// What this run is.
    fn status(&self) -> Status;

    /// Drains and ends QEMU with this status. Need not return; the reply was sent before.
    fn quit(&self, status: u8);
}

/// One probe to register.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct NewProbe {
    /// A line of `kprobe_events`, without a line break, possibly with this project's extensions.
    pub(crate) line: String,
    /// The keys of a `[[probe]]` table (`filter`, `action`, ...) but for `def`, verbatim and unchecked. Shared by the
    /// probes of one request, which otherwise could make 64 KiB of text into hundreds of megabytes.
    pub(crate) options: Arc<Map<String, Value>>,
}

/// A probe that was registered.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct AddedProbe {
    /// `kprobes`.
    pub(crate) group: String,
    /// Its name, also where the user gave none.
    pub(crate) event: String,
    /// `p` or `r`.
    pub(crate) kind: &'static str,
    /// Runtime address if the slide is known, else the linked one, as `0x...`; `None` while it is pending.
    pub(crate) address: Option<String>,
    /// Whether it can hit by now.
    pub(crate) armed: bool,
}

/// A probe that is gone, with what it had counted.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Removed {
    /// Its group.
    pub(crate) group: String,
    /// Its name.
    pub(crate) event: String,
    /// Executions that passed the filter.
    pub(crate) hits: u64,
    /// Calls that a return probe could not track.
    pub(crate) missed: u64,
    /// Hits whose record was dropped.
    pub(crate) dropped: u64,
}

/// A line of the kernel's `kprobes/list`, and which event it belongs to.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Listing {
    /// As in [`AddedProbe::address`].
    pub(crate) address: Option<String>,
    /// The kernel's letter: `k` or `r`.
    #[serde(rename = "type")]
    pub(crate) letter: &'static str,
    /// `vfs_read+0x4`, or the place as the user wrote it where no symbol is known.
    pub(crate) symbol: String,
    /// The module, unless it is in the kernel itself.
    pub(crate) module: Option<String>,
    /// `GONE`, `DISABLED`, ... without the kernel's brackets.
    pub(crate) flags: Vec<&'static str>,
    /// Its group.
    pub(crate) group: String,
    /// Its name.
    pub(crate) event: String,
    /// The definition as `kprobe_events` shows it.
    pub(crate) definition: String,
}

/// A line of the kernel's `kprobe_profile`, and what the kernel does not count.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Profile {
    /// Its group.
    pub(crate) group: String,
    /// Its name.
    pub(crate) event: String,
    /// Executions that passed the filter; returns for `r`.
    pub(crate) hits: u64,
    /// Calls that a return probe could not track.
    pub(crate) missed: u64,
    /// Executions that the filter rejected.
    pub(crate) filtered: u64,
    /// Hits whose record was dropped.
    pub(crate) dropped: u64,
    /// Instructions that an exception cut short and that ran again.
    pub(crate) reexecuted: u64,
    /// Calls that have not returned yet.
    pub(crate) pending: u64,
    /// Calls that never returned: their stack was unwound.
    pub(crate) abandoned: u64,
}

/// A vCPU that a `stop` probe holds.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Held {
    /// The vCPU's index.
    pub(crate) vcpu: u32,
    /// The probe's group.
    pub(crate) group: String,
    /// The probe's name.
    pub(crate) event: String,
    /// Where it stands, `0x...`.
    pub(crate) address: String,
    /// The same as `vfs_read+0x4`.
    pub(crate) symbol: Option<String>,
}

/// What this run is.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Status {
    /// QEMU's release.
    pub(crate) qemu: String,
    /// Plugin API version.
    pub(crate) api: i32,
    /// QEMU's target.
    pub(crate) target: String,
    /// Whether the kernel of `kernel=` was seen running.
    pub(crate) kernel_found: bool,
    /// Runtime minus linked address, `0x...`, when it was found.
    pub(crate) slide: Option<String>,
    /// Addresses that are instrumented.
    pub(crate) armed_sites: usize,
    /// Probes that are registered.
    pub(crate) probes: usize,
    /// All changes that were asked for have taken effect in the guest.
    pub(crate) settled: bool,
    /// What keeps probes from arming, if anything does.
    pub(crate) problem: Option<String>,
}

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// For people; may have several lines, with a caret.
    pub(crate) message: String,
    /// The positive errno that the kernel's `write` would fail with.
    pub(crate) errno: i32,
    /// `EINVAL`.
    pub(crate) errno_name: &'static str,
}

impl Refusal {
    /// With the errno's name looked up.
    pub(crate) fn new(errno: i32, message: impl Into<String>) -> Self {
        let known = ERRNOS.iter().find(|(number, _)| *number == errno);
        Self { message: message.into(), errno, errno_name: known.map_or("EOTHER", |(_, name)| name) }
    }

    /// The most frequent one: the request itself is wrong.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(libc::EINVAL, message)
    }
}

/// The errnos that registration, tracing and the server itself refuse with.
const ERRNOS: [(i32, &str); 25] = [
    (libc::EPERM, "EPERM"),
    (libc::ENOENT, "ENOENT"),
    (libc::EIO, "EIO"),
    (libc::E2BIG, "E2BIG"),
    (libc::EAGAIN, "EAGAIN"),
    (libc::ENOMEM, "ENOMEM"),
    (libc::EACCES, "EACCES"),
    (libc::EFAULT, "EFAULT"),
    (libc::EBUSY, "EBUSY"),
    (libc::EEXIST, "EEXIST"),
    (libc::ENODEV, "ENODEV"),
    (libc::EINVAL, "EINVAL"),
    (libc::EFBIG, "EFBIG"),
    (libc::ENOSPC, "ENOSPC"),
    (libc::EROFS, "EROFS"),
    (libc::EDOM, "EDOM"),
    (libc::ERANGE, "ERANGE"),
    (libc::ENAMETOOLONG, "ENAMETOOLONG"),
    (libc::ENOSYS, "ENOSYS"),
    (libc::EOVERFLOW, "EOVERFLOW"),
    (libc::EILSEQ, "EILSEQ"),
    (libc::EMSGSIZE, "EMSGSIZE"),
    (libc::EOPNOTSUPP, "EOPNOTSUPP"),
    (libc::ETIMEDOUT, "ETIMEDOUT"),
    (libc::ECANCELED, "ECANCELED"),
];
