//! The project's chores: `cargo xtask setup`, `test`, `demo`, `bench`, `ci`.

mod debian;
mod hash;
mod manifest;
mod process;
mod progress;
mod recipes;
mod setup;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "The project's chores")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Debug, Subcommand)]
enum Chore {
    /// Fetch what a boot needs into the cache: QEMU, guest kernels, the init program
    Setup(setup::Options),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().chore {
        Chore::Setup(options) => setup::run(options).map(drop),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
