//! What all measurements share: sizes, files, boots, and the values of a round.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use qkprobe_arch::Arch;
use qkprobe_symbols::KernelImage;
use qkprobe_tests::{Boot, BootResult, Cache, GuestArch, GuestKernel, Qemu, Summary};
use tempfile::TempDir;

use crate::stats::median;

/// The guest of all rows that name no other: the smallest kernel.
pub(crate) const GUEST: GuestKernel = GuestKernel::X86_64Cloud6_1;
/// `nokaslr`: gdb and the guest's own kprobes get addresses. Without the mitigations a system call is cheap, so that what a probe adds
/// stands out. The clock is one whose rate is known, not measured at boot as the TSC's is: that error would be in all differences.
const APPEND_X86: &str = "nokaslr nopti mitigations=off quiet clocksource=hpet";
const APPEND: &str = "mitigations=off quiet";
const TIMEOUT: Duration = Duration::from_secs(300);
const EMPTY_PLUGIN: &str = include_str!("../empty-plugin/empty.c");

/// How much of everything. Each loop runs [`repeats`](Self::repeats) times in a boot, after one that does not count.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale {
    pub(crate) repeats: usize,
    pub(crate) getppid: u32,
    pub(crate) openclose: u32,
    pub(crate) memtouch_rounds: u32,
    pub(crate) forks: u32,
    pub(crate) guest_kprobe_getppid: u32,
    pub(crate) guest_kprobe_openclose: u32,
    pub(crate) gdb: u32,
    /// How often a probe is added to a running guest and deleted again.
    pub(crate) arms: usize,
    /// The same for 1,000 at once.
    pub(crate) arms_of_many: usize,
}

impl Scale {
    /// For numbers that count. Many short loops rather than few long ones: an interruption spoils one of them, and not the median.
    pub(crate) const FULL: Self = Self {
        repeats: 15,
        getppid: 100_000,
        openclose: 10_000,
        memtouch_rounds: 10,
        forks: 40,
        guest_kprobe_getppid: 15_000,
        guest_kprobe_openclose: 5_000,
        gdb: 500,
        arms: 300,
        arms_of_many: 15,
    };

    /// To see whether it works.
    pub(crate) const QUICK: Self = Self {
        repeats: 2,
        getppid: 20_000,
        openclose: 1_000,
        memtouch_rounds: 2,
        forks: 20,
        guest_kprobe_getppid: 5_000,
        guest_kprobe_openclose: 1_000,
        gdb: 200,
        arms: 30,
        arms_of_many: 3,
    };
}

/// What one round measured, by name: `event/getppid` is the time of a call, in nanoseconds, of the configuration `event`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Round {
    values: BTreeMap<String, f64>,
    /// Of all names that are set: the guest, where it is not that of most rows.
    prefix: &'static str,
    /// What makes the values of a configuration doubtful.
    pub(crate) notes: Vec<String>,
}

impl Round {
    pub(crate) fn get(&self, name: &str) -> Option<f64> {
        self.values.get(&format!("{}{name}", self.prefix)).copied()
    }

    pub(crate) fn set(&mut self, name: impl Into<String>, value: f64) {
        self.values.insert(format!("{}{}", self.prefix, name.into()), value);
    }

    /// Runs `measure` with names that begin so.
    pub(crate) fn with_prefix<R>(&mut self, prefix: &'static str, measure: impl FnOnce(&mut Self) -> R) -> R {
        self.prefix = prefix;
        let result = measure(self);
        self.prefix = "";
        result
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, f64)> {
        self.values.iter().map(|(name, value)| (name.as_str(), *value))
    }

    /// `CONFIGURATION/LOOP`: the median of each loop that the boot ran, in nanoseconds per call.
    pub(crate) fn set_loops(&mut self, configuration: &str, boot: &BootResult) {
        self.set_loops_in(configuration, boot, 1..u32::MAX);
    }

    /// The same of the loops in these lines of the script.
    pub(crate) fn set_loops_in(&mut self, configuration: &str, boot: &BootResult, lines: Range<u32>) {
        for command in ["memtouch", "getppid", "openclose", "fork"] {
            // The first one warms up.
            let inside = boot.qk_all(command).filter(|line| lines.contains(&line.line));
            let times: Vec<f64> = inside.skip(1).map(|line| line.number("ns")).collect();
            if let Some(time) = median(&times) {
                self.set(format!("{configuration}/{command}"), time);
            }
        }
    }
}

/// What stays the same in all rounds.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) qemu: Qemu,
    pub(crate) kernel: GuestKernel,
    pub(crate) scale: Scale,
    pub(crate) cache: Cache,
    pub(crate) arch: &'static dyn Arch,
    pub(crate) image: KernelImage,
    /// The same for other guests.
    others: [OnceLock<Result<Box<Bench>, String>>; 2],
    /// Removed at the end.
    scratch: TempDir,
}

impl Bench {
    /// Finds everything that was set up.
    ///
    /// # Errors
    /// What is missing.
    pub(crate) fn open(qemu: Qemu, kernel: GuestKernel, scale: Scale) -> Result<Self, String> {
        let cache = Cache::open().map_err(|error| error.to_string())?;
        let path = cache.kernel(kernel).map_err(|error| error.to_string())?;
        let image = KernelImage::load(&path).map_err(|error| error.to_string())?;
        let name = kernel.arch().name();
        let arch = qkprobe_arch::by_name(name).ok_or_else(|| format!("no support for {name}"))?;
        let scratch = scratch().map_err(|error| format!("no temporary folder: {error}"))?;
        Ok(Self { qemu, kernel, scale, cache, arch, image, others: Default::default(), scratch })
    }

    /// The same for another guest.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub(crate) fn of(&self, arch: GuestArch) -> Result<&Self, String> {
        let index = usize::from(arch == GuestArch::Sparc64);
        let open = || Self::open(self.qemu, GuestKernel::of(arch), self.scale).map(Box::new);
        self.others[index].get_or_init(open).as_deref().map_err(Clone::clone)
    }

    /// The function that the system call `name` calls.
    pub(crate) fn syscall(&self, name: &str) -> String {
        match self.kernel.arch() {
            GuestArch::X86_64 => format!("__x64_sys_{name}"),
            _ => format!("sys_{name}"),
        }
    }

    /// The function that a `getppid` calls once.
    pub(crate) fn getppid(&self) -> String {
        self.syscall("getppid")
    }

    /// A file of the bench's own folder.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// A boot with one vCPU, without a plugin.
    pub(crate) fn boot(&self) -> Boot {
        let append = if self.kernel.arch() == GuestArch::X86_64 { APPEND_X86 } else { APPEND };
        Boot::new(self.qemu, self.kernel).append(append).timeout(TIMEOUT)
    }

    /// The same with qkprobe, whose records go to a file in memory.
    pub(crate) fn boot_with_plugin(&self) -> Boot {
        self.boot().plugin().plugin_arg(format!("out={}", self.file("trace").display()))
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// It did not come to its end, or a line of the script failed.
    pub(crate) fn run(&self, boot: &Boot) -> Result<BootResult, String> {
        let result = boot.try_run().map_err(|error| error.to_string());
        // Hundreds of megabytes, if there was a probe.
        let _ = fs::remove_file(self.file("trace"));
        check(result?)
    }

    /// The empty plugin, compiled.
    ///
    /// # Errors
    /// There is no gcc, or it refuses.
    pub(crate) fn empty_plugin(&self) -> Result<PathBuf, String> {
        let (source, library) = (self.file("empty.c"), self.file("empty.so"));
        if library.exists() {
            return Ok(library);
        }
        fs::write(&source, EMPTY_PLUGIN).map_err(|error| error.to_string())?;
        let api = match self.qemu {
            Qemu::V7_2 => 1,
            Qemu::V10_0 => 4,
            Qemu::V11_1 => 7,
        };
        let mut gcc = Command::new("gcc");
        gcc.args(["-shared", "-fPIC", "-O2", "-Wall", "-Werror", &format!("-DAPI={api}"), "-o"]);
        let output = gcc.arg(&library).arg(&source).output().map_err(|error| format!("gcc: {error}"))?;
        if !output.status.success() {
            return Err(format!("gcc: {}", String::from_utf8_lossy(&output.stderr).trim()));
        }
        Ok(library)
    }
}

/// A folder in memory, if the system has one with room for the records of a boot: a disk would be measured too.
fn scratch() -> std::io::Result<TempDir> {
    const ROOM_MB: u64 = 1024;
    let mut builder = tempfile::Builder::new();
    let builder = builder.prefix("qkprobe-bench-");
    let df = Command::new("df").args(["-m", "--output=avail", "/dev/shm"]).output();
    let available = df.ok().and_then(|output| available(&String::from_utf8_lossy(&output.stdout)));
    if available.is_some_and(|megabytes| megabytes >= ROOM_MB) {
        return builder.tempdir_in("/dev/shm");
    }
    eprintln!("records go to a disk: /dev/shm has less than {ROOM_MB} MB");
    builder.tempdir()
}

/// The number below `df`'s heading.
fn available(df: &str) -> Option<u64> {
    df.lines().nth(1)?.trim().parse().ok()
}

/// A boot that did its script.
///
/// # Errors
/// It did not: the end of what it said.
pub(crate) fn check(boot: BootResult) -> Result<BootResult, String> {
    let failed = boot.qk.iter().find(|line| !line.ok);
    if let Some(line) = failed {
        return Err(format!("line {} of the script failed: {} {}", line.line, line.command, line.text));
    }
    if !boot.status.success() || !boot.reached_end() {
        let words: Vec<&str> = boot.stderr.lines().filter(|line| !line.trim().is_empty()).take(3).collect();
        return Err(format!("QEMU ended with {}: {}", boot.status, words.join(" / ")));
    }
    Ok(boot)
}

/// The summary that the plugin left.
///
/// # Errors
/// It left none.
pub(crate) fn summary(boot: &BootResult) -> Result<Summary, String> {
    boot.try_summary()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_in_memory() {
        assert_eq!(available("Avail\n24576\n"), Some(24_576));
        assert_eq!(available(""), None);
    }
}
