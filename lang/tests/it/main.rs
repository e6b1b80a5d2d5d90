//! The languages as a user meets them: through the public interface only, against a fake kernel and a fake guest.
#![allow(missing_docs, reason = "tests")]

mod allocs;
mod config;
mod fake;
mod filter;
mod golden;
mod multiprobe;
mod print;
mod robust;
mod run;
mod syntax;
