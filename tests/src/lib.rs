//! Boots guest kernels in QEMU, with or without the plugin, and says what came out.
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
//! - [`kernels`]: the guests: architectures and kernels ([`GuestKernel`]).
//! - [`boot`]: what to boot and how ([`Boot`]), down to QEMU's command line.
//! - [`running`]: a QEMU that runs ([`Running`]): its console, signals, its end.
//! - [`result`]: what a boot left behind ([`BootResult`]), parsed.
//! - [`control`]: the plugin's control socket ([`ControlClient`]).
//! - [`guest`]: a guest that does its script step by step ([`Guest`]).
//! - [`initramfs`]: the archive that the guest starts from.
//!
//! The environment: `QKPROBE_PLUGIN` is the plugin to load (else the newest `release/libqkprobe.so` of the workspace),
//! `QKPROBE_QEMU` limits [`Qemu::selected`] to one version, `QKPROBE_KEEP=1` keeps each boot's folder and prints its
//! name.

pub mod boot;
pub mod cache;
pub mod control;
pub mod guest;
pub mod initramfs;
pub mod kernels;
pub mod result;
pub mod running;

pub use boot::{Boot, Threads, plugin_path};
pub use cache::{Cache, CacheError, Qemu};
pub use control::{ControlClient, ControlError, Counts};
pub use guest::{Gate, Guest, gate};
pub use kernels::{GuestArch, GuestKernel};
pub use result::{BootResult, ProbeSummary, QkLine, Summary};
pub use running::{BootError, Running, Signal};
