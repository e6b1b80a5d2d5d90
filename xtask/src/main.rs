//! The project's chores: `cargo xtask setup`, `test`, `demo`, `bench`, `soak`, `fuzz`, `ci`.
//!
//! - `setup` fills the cache outside of the checkout with QEMU, guest kernels and the init program: [`setup`] decides
//!   what is to be made, [`recipes`] says how ([`kernels`], [`programs`] and [`cross`] those that are more than unpacking),
//!   [`debian`] brings the packages, [`manifest`] remembers what is complete.
//! - `test`, `bench`, `soak` and `ci` run cargo in the right order: [`chores`]. Tests are run by [`suite`], with the busy loops of
//!   [`load`] beside them if they are to be stressed.
//! - `demo` boots a guest with probes: [`demo`].
//! - `fuzz` runs the parsers' tests under libFuzzer: [`fuzz`].

mod chores;
mod cross;
mod debian;
mod demo;
mod fuzz;
mod hash;
mod kernels;
mod load;
mod manifest;
mod process;
mod programs;
mod progress;
mod queue;
mod recipes;
mod setup;
mod suite;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about = "The project's chores", after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Debug, Subcommand)]
enum Chore {
    /// Fetch or build what a boot needs into the cache: QEMU, guest kernels, the init program
    ///
    /// The cache is $XDG_CACHE_HOME/qkprobe (~/.cache/qkprobe). Nothing is installed, except a missing gcc, libc6-dev
    /// or gdb if you are root. Removing the folder undoes it all. The kernels for ppc64, ppc32 and sparc64 are compiled
    /// here, once: some minutes with all CPUs, and 1 GB of disk while it lasts.
    #[command(after_help = SETUP_EXAMPLES)]
    Setup(setup::Options),
    /// Set up, build the plugin, run all tests
    #[command(after_help = TEST_EXAMPLES)]
    Test(chores::TestOptions),
    /// Set up, build the plugin, and watch a guest boot with probes in it
    #[command(after_help = "Example:\n  cargo xtask demo")]
    Demo,
    /// Set up, build the plugin, run the benchmarks
    #[command(
        after_help = "Examples:\n  cargo xtask bench\n  cargo xtask bench -- --help    the benchmarks' own options"
    )]
    Bench(chores::BenchOptions),
    /// Set up, build the plugin, and boot guests over and over with probes at random places; `soak --help` says more
    #[command(disable_help_flag = true)]
    Soak(chores::SoakOptions),
    /// Look for inputs that parsers fail on, led by coverage
    ///
    /// Runs libFuzzer on one target or all. Inputs that it finds stay in target/fuzz/corpus; one that fails lands in the tree, in
    /// __fuzz__/TARGET/crashes beside the target's source, where `cargo test` runs it too.
    #[command(after_help = FUZZ_EXAMPLES)]
    Fuzz(fuzz::FuzzOptions),
    /// All that a change has to pass: format, clippy, licences, tests
    #[command(after_help = "Example:\n  cargo xtask ci")]
    Ci,
}

const EXAMPLES: &str = "\
Examples:
  cargo xtask demo                  see what the plugin does
  cargo xtask test                  everything
  cargo xtask test --unit           what needs no QEMU
  cargo xtask COMMAND --help        more";

const SETUP_EXAMPLES: &str = "\
Examples:
  cargo xtask setup                 makes what is missing or outdated; under a second if nothing is
  cargo xtask setup --arch x86_64   no other guests; --arch may be given again
  cargo xtask setup --verify        compares every file with its sha256 first
  cargo xtask setup --refresh       makes everything anew from the newest packages";

const TEST_EXAMPLES: &str = "\
Examples:
  cargo xtask test                              everything
  cargo xtask test --quick                      units, and one boot for each architecture: at most 5 minutes
  cargo xtask test --stress                     everything, twice in a row, on a machine that has other things to do
  cargo xtask test --unit --filter decode
  cargo xtask test --filter counts::            the tests of one program that boots guests
  cargo xtask test --qemu 10.0 --filter openat";

const FUZZ_EXAMPLES: &str = "\
Examples:
  cargo xtask fuzz                          every target, a minute each
  cargo xtask fuzz elf --minutes 120
  cargo xtask fuzz elf --minutes 0 --keep   puts what was found before into the tree";

fn main() -> ExitCode {
    let done = match Arguments::parse().chore {
        Chore::Setup(options) => setup::run(&options).map(drop),
        Chore::Test(options) => chores::test(&options),
        Chore::Demo => demo::run(),
        Chore::Bench(options) => chores::bench(&options),
        Chore::Soak(options) => chores::soak(&options),
        Chore::Fuzz(options) => fuzz::run(&options),
        Chore::Ci => chores::ci(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
