//! Boots guest kernels with probes in them, from Rust.
//!
//! ```no_run
//! use std::time::Duration;
//! use qkprobe_harness::{Boot, guest::End};
//!
//! # fn main() -> Result<(), qkprobe_harness::Error> {
//! let mut guest = Boot::new("vmlinuz")
//!     .init("target/my-init")
//!     .probe("p:open do_sys_openat2 file=+0($arg2):ustring")
//!     .start()?;
//! let open = guest.event(Duration::from_secs(60), |event| event.event == "open")?;
//! assert_eq!(open.text("file").as_deref(), Some("/dev/console"));
//! guest.add("r:fork kernel_clone pid=$retval:s32")?;
//! assert_eq!(guest.wait_for_end(Duration::from_secs(60))?, End::PowerOff);
//! # Ok(())
//! # }
//! ```
//!
//! A QEMU that gets nothing but what was asked for, and leaves its trace and summary as files, is a [`Running`]:
//!
//! ```no_run
//! # use std::time::Duration;
//! use qkprobe_harness::{Boot, Signal};
//!
//! # fn main() -> Result<(), qkprobe_harness::Error> {
//! let run = Boot::new("vmlinuz").initrd("initrd.img").probe("p:open do_sys_openat2").cpus(2).launch()?;
//! run.wait_for_console("login:", Duration::from_secs(60))?;
//! run.signal(Signal::Terminate);
//! let left = run.finish(Duration::from_secs(90))?;
//! assert!(left.summary().is_some_and(|summary| summary.probe("open").hits > 0));
//! # Ok(())
//! # }
//! ```
//!
//! - [`boot`]: what to boot and how ([`Boot`]); [`arch`] knows what each architecture takes, [`qemu`] and [`plugin`] find the
//!   programs, [`initramfs`] packs what the kernel starts from.
//! - [`running`]: a QEMU that runs ([`Running`]): its console, its own words, signals, its end; [`folder`] is where its files are.
//! - [`guest`]: the same with events ([`Guest`]); [`streams`] is where they come from.
//! - [`summary`]: what the plugin counted; [`watched`]: what this crate's own probes saw.
//! - [`control`]: the plugin's control socket; [`find`] finds those of guests that others started.
//! - [`check`]: definitions against an image ([`ImageTarget`]), without a guest.
//! - [`boot_test`]: tests as TOML files, with verdicts; [`record`] judges events by ftrace filters, [`positions`] says where the
//!   vCPUs of a guest are that does nothing.
//!
//! However a program that uses this ends, the QEMUs that it started end too, and their folders go.
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::panic)]
#![cfg_attr(test, allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::panic, reason = "tests"))]

pub mod arch;
pub mod boot;
pub mod boot_test;
mod capture;
pub mod check;
mod command;
pub mod control;
pub mod error;
pub mod escape;
pub mod event;
pub mod find;
pub mod folder;
pub mod guest;
pub mod initramfs;
pub mod plugin;
pub mod positions;
mod process;
pub mod qemu;
mod qmp;
pub mod record;
pub mod running;
pub mod streams;
pub mod summary;
pub mod units;
pub mod watched;

pub use boot::{Boot, Threads};
pub use command::doubled;
pub use error::Error;
pub use guest::Guest;
pub use qkprobe_resolve::ImageTarget;
pub use running::{Finished, Running, Signal};
pub use summary::{ProbeSummary, Summary};
