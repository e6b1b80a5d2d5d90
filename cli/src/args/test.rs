//! The arguments of `qkprobe test`.

use std::path::PathBuf;

use clap::{Args, ValueHint};

use super::BootArgs;

pub(super) const HELP: &str = "\
Examples:
  qkprobe test --kernel vmlinuz --initrd initrd.img tests
  qkprobe test --kernel vmlinuz --initrd initrd.img -j 2 --junit junit.xml --json result.json tests/boot.toml
  qkprobe test --list tests --shard 1/4
  qkprobe test --bisect --kernel vmlinuz --initrd initrd.img tests/boot.toml

Exit status:
  0        all that ran passed, and something ran; or the --shard has no test
  1        a test did not pass, or a report could not be written
  2        a test file or the command line is wrong
  5        nothing ran: no test, or all were skipped (0 with --allow-skip)
  130, 143 ended by Ctrl-C, by SIGTERM

Exit status with --bisect:
  0        good: all that ran passed
  1        bad: a test did not pass
  125      this kernel cannot be judged: it is not there, a probe does not fit it, QEMU failed, nothing ran
  128      what was given to qkprobe is wrong: the bisection ends, as it does with 130 and 143
  2        the command line is wrong";

#[derive(Debug, Args)]
pub(crate) struct Test {
    #[command(flatten)]
    pub(crate) boot: BootArgs,
    /// Test files, or folders with such; the current folder if there is none
    #[arg(value_name = "FILE|DIR", value_hint = ValueHint::AnyPath)]
    pub(crate) files: Vec<PathBuf>,
    /// Run so many guests at once, as far as memory allows
    #[arg(long, short, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) jobs: u32,
    /// Only the I-th of N parts of the tests
    #[arg(long, value_name = "I/N", value_parser = Shard::parse)]
    pub(crate) shard: Option<Shard>,
    /// Run a failed test up to N times more; if it passes then, it is flaky
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) retries: u32,
    /// Only tests whose name contains this
    #[arg(long, value_name = "TEXT")]
    pub(crate) filter: Option<String>,
    /// Write a JUnit report
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) junit: Option<PathBuf>,
    /// Write a report as JSON
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) json: Option<PathBuf>,
    /// Show which tests would run, and run none
    #[arg(long)]
    pub(crate) list: bool,
    /// Flaky tests do not count as passed
    #[arg(long)]
    pub(crate) flaky_fails: bool,
    /// Succeed even if no test ran: there is none, or all were skipped
    #[arg(long)]
    pub(crate) allow_skip: bool,
    /// Exit as `git bisect run` wants it: 0 good, 1 bad, 125 this kernel cannot be judged
    #[arg(long, conflicts_with_all = ["allow_skip", "shard", "list"])]
    pub(crate) bisect: bool,
}

/// `I/N`, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shard {
    pub(crate) index: usize,
    pub(crate) count: usize,
}

impl Shard {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let usage = || format!("'{text}' is no part: write 1/4 for the first of four");
        let (index, count) = text.split_once('/').ok_or_else(usage)?;
        let (index, count) = (index.parse().map_err(|_| usage())?, count.parse().map_err(|_| usage())?);
        if index == 0 || index > count { Err(usage()) } else { Ok(Self { index, count }) }
    }

    /// Whether the test of this position (from 0) belongs here.
    pub(crate) fn takes(self, position: usize) -> bool {
        position % self.count == self.index - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts() {
        assert_eq!(Shard::parse("2/3"), Ok(Shard { index: 2, count: 3 }));
        for bad in ["0/3", "4/3", "1", "a/b", "1/0"] {
            assert!(Shard::parse(bad).is_err(), "{bad}");
        }
        let parts: Vec<Vec<usize>> = (1..=3)
            .map(|index| (0..7).filter(|position| Shard { index, count: 3 }.takes(*position)).collect())
            .collect();
        assert_eq!(parts, [vec![0, 3, 6], vec![1, 4], vec![2, 5]]);
    }
}
