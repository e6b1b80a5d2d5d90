//! The command `qkprobe`. What it does is in the library `qkprobe_harness`; here is what a user types and sees.

mod args;
mod commands;
mod help;

use std::io::Write as _;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use args::{Cli, Command};

/// Why a command did not do what it was asked for.
#[derive(Debug)]
pub(crate) struct Failure {
    text: String,
    status: u8,
}

impl Failure {
    /// It could not be done.
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), status: 1 }
    }

    /// There was nothing to run.
    pub(crate) fn nothing_ran(text: impl Into<String>) -> Self {
        Self { text: text.into(), status: commands::test::NOTHING_RAN }
    }

    /// What the user wrote is wrong.
    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self { text: text.into(), status: 2 }
    }
}

impl From<qkprobe_harness::Error> for Failure {
    fn from(error: qkprobe_harness::Error) -> Self {
        Self::new(error.to_string())
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        // Who reads the first lines of a listing and goes has what he wants.
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Self { text: String::new(), status: 0 },
            _ => Self::new(error.to_string()),
        }
    }
}

/// What a command ends with.
pub(crate) type Outcome = Result<u8, Failure>;

fn main() -> ExitCode {
    // With COMPLETE=SHELL in the environment this answers the shell's question, and does not return.
    match clap_complete::CompleteEnv::with_factory(Cli::command).try_complete(std::env::args_os(), None) {
        Ok(true) => return ExitCode::SUCCESS,
        Ok(false) => {}
        // To nobody, if the shell has gone.
        Err(error) => error.exit(),
    }
    let cli = Cli::parse();
    let color = cli.color;
    let outcome = match cli.command {
        Command::Run(run) => commands::run::run(&run, color),
        Command::Test(test) => commands::test::test(&test, color),
        Command::Add(add) => commands::client::add(&add),
        Command::Del(select) => commands::client::del(&select),
        Command::Enable(select) => commands::client::set_enabled(&select, true),
        Command::Disable(select) => commands::client::set_enabled(&select, false),
        Command::List(show) => commands::client::list(&show),
        Command::Stat(stat) => commands::client::stat(&stat),
        Command::Watch(watch) => commands::client::watch(&watch),
        Command::Continue(go) => commands::client::go_on(&go),
        Command::Quit(quit) => commands::client::quit(&quit),
        Command::Symbols(symbols) => commands::symbols::symbols(&symbols),
        Command::Check(check) => commands::check::check(&check),
        Command::Doctor(doctor) => commands::doctor::doctor(&doctor),
        Command::Completions(completions) => commands::generate::completions(&completions),
        Command::Man(man) => commands::generate::man(&man),
    };
    match outcome {
        Ok(status) => ExitCode::from(status),
        Err(Failure { text, status }) if text.is_empty() => ExitCode::from(status),
        Err(Failure { text, status }) => {
            // Nobody is left to be told when even this fails.
            let _ = writeln!(std::io::stderr(), "qkprobe: error: {text}");
            ExitCode::from(status)
        }
    }
}
