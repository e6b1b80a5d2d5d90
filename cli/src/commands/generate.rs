//! `qkprobe completions` and `qkprobe man`: from the command's own definition.

use std::fs;
use std::io;

use clap::CommandFactory as _;
use clap_complete::env::Shells;

use crate::args::{Cli, Completions, Man};
use crate::{Failure, Outcome};

/// The script asks this program for candidates, so it knows the guests and the probes of the moment.
pub(crate) fn completions(args: &Completions) -> Outcome {
    let shells = Shells::builtins();
    let shell = shells.completer(&args.shell).ok_or_else(|| Failure::usage("no such shell"))?;
    shell.write_registration("COMPLETE", "qkprobe", "qkprobe", "qkprobe", &mut io::stdout().lock())?;
    Ok(0)
}

/// `qkprobe.1`, `qkprobe-run.1`, ...
pub(crate) fn man(args: &Man) -> Outcome {
    let failed = |error: io::Error| Failure::new(format!("{}: {error}", args.folder.display()));
    fs::create_dir_all(&args.folder).map_err(failed)?;
    clap_mangen::generate_to(Cli::command(), &args.folder).map_err(failed)?;
    Ok(0)
}
