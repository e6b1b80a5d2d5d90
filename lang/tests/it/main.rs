//! The languages as a user meets them: through the public interface only, against a fake kernel and a fake guest.
#![allow(missing_docs, reason = "tests")]

mod allocs;
mod config;
mod effect;
mod fake;
mod filter;
mod fuzz;
mod golden;
mod line;
mod multiprobe;
mod print;
mod run;
mod syntax;
