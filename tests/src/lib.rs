//! Boots guest kernels in QEMU, with or without the plugin, and says what came out: the library `qkprobe_harness`, which has the
//! mechanisms, with the kernels, QEMUs and init program of this project's set-up.
//!
//! ```no_run
//! use qkprobe_tests::{Boot, GuestKernel, Qemu};
//!
//! let boot = Boot::new(Qemu::V11_1, GuestKernel::X86_64Cloud6_1)
//!     .smp(2)
//!     .append("nokaslr")
//!     .script(["openclose 100 /etc/none", "getppid 1000"])
//!     .plugin_arg("probe=p:open do_sys_openat2 file=+0($arg2):ustring")
//!     .run_ok();
//! assert_eq!(boot.qk("openclose").get("err"), Some("100"));
//! assert!(boot.trace.contains("open: "));
//! assert_eq!(boot.summary().probe("open").missed, 0);
//! ```
//!
//! - [`cache`]: where the QEMUs, kernels and the init program are ([`Cache`]); `cargo xtask setup` puts them there.
//! - [`kernels`]: the guests of the cache: architectures and kernels ([`GuestKernel`]).
//! - [`boot`]: what to boot and how ([`Boot`]), over the harness's builder.
//! - [`running`]: a QEMU that runs ([`Running`]), over the harness's.
//! - [`result`]: what a boot left behind ([`BootResult`]), with the init program's lines.
//! - [`control`]: the plugin's control socket ([`ControlClient`]), for tests: what fails panics.
//! - [`guest`]: a guest that does its script step by step ([`Guest`]).
//!
//! The environment: `QKPROBE_PLUGIN` is the plugin to load (else the release build in the target folder),
//! `QKPROBE_QEMU` limits [`Qemu::selected`] to one version, `QKPROBE_KEEP=1` keeps each boot's folder and prints its
//! name.

use std::time::Duration;

pub mod boot;
pub mod cache;
pub mod control;
pub mod guest;
pub mod kernels;
pub mod result;
pub mod running;

pub use boot::{Boot, Threads, plugin_path};
pub use cache::{Cache, CacheError, Qemu};
pub use control::{ControlClient, ControlError, Counts};
pub use guest::{Gate, Guest, gate, gate_device};
pub use kernels::{GuestArch, GuestKernel};
pub use qkprobe_harness::{ProbeSummary, Summary};
pub use result::{BootResult, QkLine};
pub use running::{BootError, Running, Signal};

/// How long a test waits for what must come. It says nothing about speed: only what never comes takes so long, however busy the
/// machine is.
pub const PATIENCE: Duration = Duration::from_secs(300);
