//! Runs other programs, and makes their failures readable.

use std::ffi::OsStr;
use std::process::{Command, Stdio};

/// How much of a failed program's output goes into the message.
const TAIL_LINES: usize = 15;

/// Runs a program to its end and returns what it wrote to stdout.
///
/// # Errors
/// The program is not there, or failed; the text has the end of what it said.
pub(crate) fn output(command: &mut Command) -> Result<String, String> {
    let name = display(command);
    let done = command.stdin(Stdio::null()).output().map_err(|error| not_started(command.get_program(), &error))?;
    let stdout = String::from_utf8_lossy(&done.stdout).into_owned();
    if done.status.success() {
        return Ok(stdout);
    }
    let stderr = String::from_utf8_lossy(&done.stderr);
    let said = if stderr.trim().is_empty() { stdout.as_str() } else { &stderr };
    Err(format!("`{name}` failed ({}):\n{}", done.status, tail(said)))
}

/// Runs a program that talks to the user itself.
///
/// # Errors
/// The program is not there, or failed.
pub(crate) fn interactive(command: &mut Command) -> Result<(), String> {
    let status = command.status().map_err(|error| not_started(command.get_program(), &error))?;
    if status.success() { Ok(()) } else { Err(format!("`{}` failed ({status})", display(command))) }
}

/// Whether a program is in `PATH`.
pub(crate) fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// The last lines of a text.
pub(crate) fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

fn display(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

fn not_started(program: &OsStr, error: &std::io::Error) -> String {
    format!("cannot run `{}`: {error}", program.display())
}
