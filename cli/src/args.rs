//! The command line: one definition, from which parsing, help, man pages and completions come.

mod test;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};
use qkprobe_harness::{control::Control, find, units};

use crate::help;
pub(crate) use test::Test;

/// Kprobes for guest kernels, from outside
///
/// Boots a kernel in QEMU with probes in it, adds and removes probes while it runs, and runs boot tests that end in a verdict.
/// Nothing of the guest is changed: no kprobes, no module, no debug build.
#[derive(Debug, Parser)]
#[command(name = "qkprobe", version, propagate_version = true, after_help = help::TOP, max_term_width = 110)]
pub(crate) struct Cli {
    /// When to use color: auto (on a terminal, unless NO_COLOR is set), always, never
    #[arg(long, global = true, value_enum, value_name = "WHEN", default_value = "auto", hide_possible_values = true)]
    pub(crate) color: Color,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    Auto,
    Always,
    Never,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Boot a kernel with probes and watch it
    #[command(after_help = help::RUN)]
    Run(Run),
    /// Boot kernels as tests say, and judge what they did
    #[command(after_help = test::HELP)]
    Test(Test),
    /// Add probes to a running guest
    #[command(after_help = help::ADD)]
    Add(Add),
    /// Remove probes from a running guest
    #[command(visible_alias = "delete", after_help = help::DEL)]
    Del(Select),
    /// Enable probes of a running guest
    #[command(after_help = help::ENABLE)]
    Enable(Select),
    /// Disable probes of a running guest, and keep them
    #[command(after_help = help::DISABLE)]
    Disable(Select),
    /// List the probes of a running guest
    #[command(after_help = help::LIST)]
    List(Show),
    /// Show what the probes of a running guest have counted
    #[command(after_help = help::STAT)]
    Stat(Stat),
    /// Show events of a running guest as they happen
    #[command(after_help = help::WATCH)]
    Watch(Watch),
    /// Release vCPUs that a stop probe holds
    #[command(after_help = help::CONTINUE)]
    Continue(Continue),
    /// End a running guest's QEMU after its last record
    #[command(after_help = help::QUIT)]
    Quit(Quit),
    /// List the symbols of a kernel image
    #[command(after_help = help::SYMBOLS)]
    Symbols(Symbols),
    /// Check definitions against a kernel image without booting it
    #[command(after_help = help::CHECK)]
    Check(Check),
    /// Say which QEMUs are here, what works with each, and why not
    #[command(after_help = help::DOCTOR)]
    Doctor(Doctor),
    /// Print the script that makes a shell complete qkprobe's arguments
    #[command(after_help = help::COMPLETIONS)]
    Completions(Completions),
    /// Write the man pages
    #[command(after_help = help::MAN)]
    Man(Man),
}

/// What is booted, and in what.
#[derive(Debug, Args)]
pub(crate) struct BootArgs {
    /// The kernel: vmlinuz or vmlinux
    #[arg(long, short, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) kernel: Option<PathBuf>,
    /// More symbols: System.map, a copy of /proc/kallsyms with modules, the vmlinux of the same build; any number
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) symbols: Vec<PathBuf>,
    /// The initial RAM disk
    #[arg(long, short = 'i', value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) initrd: Option<PathBuf>,
    /// A static program that becomes /init of an initramfs made for the boot
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) init: Option<PathBuf>,
    /// The guest's architecture, where the image does not say it
    #[arg(long, value_name = "ARCH")]
    pub(crate) arch: Option<String>,
    /// More of the kernel's command line
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) append: Option<String>,
    /// Number of vCPUs [default: 1]
    #[arg(long, visible_alias = "cpus", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=255))]
    pub(crate) smp: Option<u32>,
    /// Memory: 1G, 512M, or a number of MB [default: 512M; ppc: 256M]
    #[arg(long, short, value_name = "SIZE", value_parser = units::megabytes)]
    pub(crate) memory: Option<u32>,
    /// QEMU: a program, a folder with its programs, or a version of one that is found (11.1)
    #[arg(long, value_name = "QEMU", value_hint = ValueHint::AnyPath)]
    pub(crate) qemu: Option<PathBuf>,
    /// The plugin, instead of the one beside this program, in ../lib/qkprobe/, or in QKPROBE_PLUGIN
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) plugin: Option<PathBuf>,
    /// QEMU's seed and that of dice (in `test`); KASLR differs all the same: --append nokaslr
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) boot: BootArgs,
    /// Probes: p[:[GRP/]EVENT] PLACE [ARG...] [if FILTER] [do OPTION...], or r... for a return
    #[arg(value_name = "DEFINITION")]
    pub(crate) definitions: Vec<String>,
    /// Probes and settings from a TOML file, or a list with a definition on each line; any number
    #[arg(long, short, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) config: Vec<PathBuf>,
    /// Write the guest's console to a file, byte for byte, instead of showing it
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) console: Option<PathBuf>,
    /// Write the trace to a file instead of standard output
    #[arg(long, short, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) out: Option<PathBuf>,
    /// The trace's form
    #[arg(long, value_enum, default_value = "ftrace")]
    pub(crate) format: TraceFormat,
    /// Write the summary as JSON
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) summary: Option<PathBuf>,
    /// Drop records (and count them) rather than hold the guest when they come faster than they are read
    #[arg(long)]
    pub(crate) drop: bool,
    /// End after this time
    #[arg(long = "for", value_name = "TIME", value_parser = units::duration)]
    pub(crate) limit: Option<Duration>,
    /// End when a probe has hit so often: EVENT:hits>=N; looked at ten times a second
    #[arg(long, value_name = "CONDITION", value_parser = Until::parse)]
    pub(crate) until: Option<Until>,
    /// No status line
    #[arg(long, short)]
    pub(crate) quiet: bool,
    /// Arguments for QEMU itself
    #[arg(last = true, value_name = "QEMU ARGUMENT")]
    pub(crate) qemu_args: Vec<OsString>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TraceFormat {
    /// As the kernel's trace file
    Ftrace,
    /// One JSON object a line
    Json,
}

/// `EVENT:hits>=N`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Until {
    pub(crate) group: Option<String>,
    pub(crate) event: String,
    pub(crate) hits: u64,
}

impl Until {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let usage = || format!("'{text}' is no condition: write EVENT:hits>=N");
        let (names, condition) = text.split_once(':').ok_or_else(usage)?;
        let number = condition.trim().strip_prefix("hits").map(str::trim_start).ok_or_else(usage)?;
        let (more, number) = match (number.strip_prefix(">="), number.strip_prefix('>')) {
            (Some(number), _) => (0, number),
            (None, Some(number)) => (1, number),
            (None, None) => return Err(usage()),
        };
        let hits: u64 = number.trim().parse().map_err(|_| usage())?;
        let (group, event) = match names.split_once('/') {
            Some((group, event)) => (Some(group.to_owned()), event),
            None => (None, names),
        };
        if event.is_empty() {
            return Err(usage());
        }
        Ok(Self { group, event: event.to_owned(), hits: hits.saturating_add(more) })
    }

    /// Whether it is about this event.
    pub(crate) fn means(&self, group: &str, event: &str) -> bool {
        self.event == event && self.group.as_deref().is_none_or(|wanted| wanted == group)
    }
}

impl std::fmt::Display for Until {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.group {
            Some(group) => write!(f, "{group}/{}", self.event),
            None => f.write_str(&self.event),
        }
    }
}

/// Which guest.
#[derive(Debug, Args)]
pub(crate) struct GuestArgs {
    /// The guest: its control socket, or a process ID; else QKPROBE_GUEST, else the one that runs
    #[arg(long, short, value_name = "PID|SOCKET", value_hint = ValueHint::FilePath, add = ArgValueCompleter::new(complete_guest))]
    pub(crate) guest: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Add {
    #[command(flatten)]
    pub(crate) guest: GuestArgs,
    /// Probes: p[:[GRP/]EVENT] PLACE [ARG...] [if FILTER] [do OPTION...]; all or none are added
    #[arg(value_name = "DEFINITION", required = true)]
    pub(crate) definitions: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Select {
    #[command(flatten)]
    pub(crate) guest: GuestArgs,
    /// EVENT, GROUP/EVENT, GROUP/ or *
    #[arg(value_name = "EVENT", required = true, add = ArgValueCompleter::new(complete_event))]
    pub(crate) events: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Show {
    #[command(flatten)]
    pub(crate) guest: GuestArgs,
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Stat {
    #[command(flatten)]
    pub(crate) show: Show,
    /// Print the table at this interval, with hits per second
    #[arg(long, value_name = "TIME", value_parser = units::duration)]
    pub(crate) every: Option<Duration>,
    /// Print it N times, then end
    #[arg(long, value_name = "N", requires = "every")]
    pub(crate) times: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct Watch {
    #[command(flatten)]
    pub(crate) guest: GuestArgs,
    /// Only these: EVENT, GROUP/EVENT or GROUP/
    #[arg(value_name = "EVENT", add = ArgValueCompleter::new(complete_event))]
    pub(crate) events: Vec<String>,
    /// The lines as they come, in JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// End after so many lines
    #[arg(long, value_name = "N")]
    pub(crate) lines: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct Continue {
    #[command(flatten)]
    pub(crate) guest: GuestArgs,
    /// Only this vCPU
    #[arg(long, value_name = "N")]
    pub(crate) vcpu: Option<u32>,
}

#[derive(Debug, Args)]
pub(crate) struct Quit {
    #[command(flatten)]
    pub(crate) guest: GuestArgs,
    /// QEMU's exit status
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) status: u8,
}

#[derive(Debug, Args)]
pub(crate) struct Symbols {
    /// vmlinux, vmlinuz, System.map or a copy of /proc/kallsyms
    #[arg(value_name = "IMAGE", value_hint = ValueHint::FilePath)]
    pub(crate) image: PathBuf,
    /// Only names that match: * and ? stand for any characters
    #[arg(value_name = "GLOB")]
    pub(crate) glob: Option<String>,
    /// Only functions
    #[arg(long, short)]
    pub(crate) functions: bool,
    /// One JSON object a line
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Check {
    /// TOML files with probes (boot tests too), or text files with a definition on each line
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath, required_unless_present = "def")]
    pub(crate) files: Vec<PathBuf>,
    /// The kernel image; a file of a boot test may name its own
    #[arg(long, short, value_name = "IMAGE", value_hint = ValueHint::FilePath)]
    pub(crate) kernel: Option<PathBuf>,
    /// More symbols: System.map, a copy of /proc/kallsyms with modules, the vmlinux of the same build; any number
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) symbols: Vec<PathBuf>,
    /// A definition; any number
    #[arg(long, value_name = "DEFINITION", action = ArgAction::Append)]
    pub(crate) def: Vec<String>,
    /// The architecture, where the image does not say it
    #[arg(long, value_name = "ARCH")]
    pub(crate) arch: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// The plugin, instead of the one that belongs to this program
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) plugin: Option<PathBuf>,
    /// One more folder with QEMU's programs, or one program
    #[arg(long, value_name = "QEMU", value_hint = ValueHint::AnyPath)]
    pub(crate) qemu: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// The shell
    #[arg(value_name = "SHELL", value_parser = ["bash", "elvish", "fish", "powershell", "zsh"])]
    pub(crate) shell: String,
}

#[derive(Debug, Args)]
pub(crate) struct Man {
    /// The folder to write them to
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) folder: PathBuf,
}

/// The guests that run.
fn complete_guest(current: &std::ffi::OsStr) -> Vec<CompletionCandidate> {
    let current = current.to_string_lossy().into_owned();
    let all = find::guests().into_iter().filter(|guest| guest.pid.to_string().starts_with(&current));
    all.map(|guest| CompletionCandidate::new(guest.pid.to_string()).help(Some(guest.kernel.into()))).collect()
}

/// The events of all guests that run: which one is meant is not known here.
fn complete_event(current: &std::ffi::OsStr) -> Vec<CompletionCandidate> {
    let current = current.to_string_lossy().into_owned();
    let profiles = find::guests()
        .into_iter()
        .filter_map(|guest| Control::connect(&guest.socket).and_then(|mut control| control.profile()).ok());
    let names = profiles.flatten().flat_map(|probe| [format!("{}/{}", probe.group, probe.event), probe.event]);
    let names: std::collections::BTreeSet<_> = names.filter(|name| name.starts_with(&current)).collect();
    names.into_iter().map(CompletionCandidate::new).collect()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn conditions() {
        let until = |group: Option<&str>, hits| Until { group: group.map(str::to_owned), event: "open".into(), hits };
        assert_eq!(Until::parse("open:hits>=100"), Ok(until(None, 100)));
        assert_eq!(Until::parse("g/open:hits > 9"), Ok(until(Some("g"), 10)));
        for bad in ["open", "open:hits", "open:hits=3", ":hits>=1", "open:hits>=x", "open:missed>=1"] {
            assert!(Until::parse(bad).is_err_and(|text| text.contains("write EVENT:hits>=N")), "{bad}");
        }
    }
}
