//! Boot tests: a kernel, probes, and what must come of it. docs/tests.md is the reference.

pub mod count;
pub mod expect;
#[cfg(test)]
mod expect_tests;
pub mod file;
#[cfg(test)]
mod file_tests;
mod guest_ktap;
#[cfg(test)]
mod guest_ktap_tests;
mod guest_lines;
mod latency;
pub mod pool;
pub mod report;
pub mod retval;
pub mod run;
mod sections;
mod selector;
pub mod verdict;

pub use file::{TestFile, is_test};
pub use pool::{Settings, run_all};
pub use verdict::{TestReport, Verdict};
