//! What the numbers were measured on.

use std::fs;
use std::path::Path;
use std::process::Command;

use qkprobe_tests::{Cache, GuestKernel, Qemu};
use serde::Serialize;

/// The machine, the tools, and how busy it was beside us.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) date: String,
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) kernel: String,
    pub(crate) qemu: String,
    pub(crate) guest: String,
    pub(crate) rustc: String,
    pub(crate) revision: String,
    pub(crate) load_before: String,
    pub(crate) load_after: String,
}

impl Machine {
    /// Asks the system. What it does not say is `unknown`.
    pub(crate) fn describe(cache: &Cache, qemu: Qemu, guest: GuestKernel) -> Self {
        let version = guest_version(cache, guest);
        let qemu =
            cache.qemu(qemu, "qemu-system-x86_64").ok().and_then(|path| says(Command::new(path).arg("--version")));
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR"));
        Self {
            date: known(says(Command::new("date").args(["-u", "+%Y-%m-%d %H:%M UTC"]))),
            cpu: known(fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| model_name(&text))),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            kernel: known(says(Command::new("uname").arg("-sr"))),
            qemu: known(qemu.map(|text| text.trim_start_matches("QEMU emulator version ").to_owned())),
            guest: format!("{} ({version})", guest.name()),
            rustc: known(says(Command::new("rustc").arg("--version"))),
            revision: known(says(Command::new("git").arg("-C").arg(workspace).args([
                "describe",
                "--always",
                "--dirty",
                "--abbrev=12",
            ]))),
            load_before: load(),
            load_after: String::new(),
        }
    }

    /// The measurement is over.
    pub(crate) fn measured(&mut self) {
        self.load_after = load();
    }
}

fn guest_version(cache: &Cache, guest: GuestKernel) -> String {
    cache.kernel_version(guest).unwrap_or_else(|_| "unknown".to_owned())
}

/// The load averages over 1, 5 and 15 minutes. Our own guests are in them: one vCPU and a writer at most.
fn load() -> String {
    known(fs::read_to_string("/proc/loadavg").ok().map(|text| text.split(' ').take(3).collect::<Vec<_>>().join(" ")))
}

fn model_name(cpuinfo: &str) -> Option<String> {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// The first line of a program's output.
fn says(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).lines().next()?.trim().to_owned())
}

fn known(text: Option<String>) -> String {
    text.filter(|text| !text.is_empty()).unwrap_or_else(|| "unknown".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_model() {
        let text = "processor\t: 0\nmodel name\t: Some CPU @ 2.00GHz\nprocessor\t: 1\nmodel name\t: Other\n";
        assert_eq!(model_name(text).as_deref(), Some("Some CPU @ 2.00GHz"));
        assert_eq!(model_name("cpu family: 6\n"), None);
    }
}
