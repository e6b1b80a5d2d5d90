//! `cargo xtask demo`: a guest boots, and what its probes see appears while it does.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use qkprobe_tests::{Boot, GuestKernel, Qemu};

use crate::{chores, setup};

/// How often new lines are looked for.
const POLL: Duration = Duration::from_millis(50);

const EXPLANATION: &str = "
A Debian 6.1 kernel, unmodified and without debug symbols, boots in QEMU 11.1, and these probes watch it from outside:
  early  the first C function of the kernel, long before the kernel's own kprobes work
  open   every file that is opened, with its name from user space; etc is the same with a filter: file ~ \"/etc/*\"
  mid    an instruction in the middle of vfs_read, with a register of that moment
  ppid   only counts: a getppid costs a few nanoseconds more, and there are 200,000
Lines with `guest |` are the guest's own console, the others are the trace.
";

/// Runs the demo.
///
/// # Errors
/// A text for the user.
pub(crate) fn run() -> Result<(), String> {
    setup::run(&setup::Options::demo())?;
    chores::build_plugin()?;
    println!("{EXPLANATION}");
    let boot = Boot::new(Qemu::V11_1, GuestKernel::X86_64Cloud6_1)
        .smp(2)
        .append("quiet")
        .plugin_arg("probe=p:early start_kernel")
        .plugin_arg("probe=p:open do_sys_openat2 file=+0($arg2):ustring flags=+0($arg3):x64")
        .plugin_arg("probe=p:etc do_sys_openat2 file=+0($arg2):ustring")
        .plugin_arg("filter=file ~ \"/etc/*\"")
        // The five bytes at a function's start are the call that ftrace patches: an instruction begins behind it.
        .plugin_arg("probe=p:mid vfs_read+5 count=%dx")
        .plugin_arg("count=p:ppid __x64_sys_getppid")
        .script([
            "openclose 2 /etc/hostname",
            "cat /proc/version",
            "threads 2 getppid 100000",
            "openclose 1 /init",
            "uname",
        ]);
    let start = Instant::now();
    let mut running = boot.spawn().map_err(|error| error.to_string())?;
    let trace = running.folder().join("trace");
    let mut shown = Shown::default();
    loop {
        let ended = running.try_wait().map_err(|error| error.to_string())?;
        shown.show_new(&running.console(), &trace).map_err(|error| error.to_string())?;
        if ended.is_some() {
            break;
        }
        thread::sleep(POLL);
    }
    let result = running.finish().map_err(|error| error.to_string())?;
    // The plugin's own table.
    println!("\n{}", result.stderr.trim_end());
    if result.status.success() && result.reached_end() {
        println!("\nThe guest ran for {:.1} s. Probes of your own: see configs/.", start.elapsed().as_secs_f32());
        return Ok(());
    }
    Err(format!("the guest did not come to its end ({}):\n{}", result.status, crate::process::tail(&result.console)))
}

/// What is on the terminal already.
#[derive(Debug, Default)]
struct Shown {
    console: usize,
    script_runs: bool,
    trace: Option<File>,
    /// A line of the trace that is not complete.
    pending: Vec<u8>,
}

impl Shown {
    fn show_new(&mut self, console: &str, trace: &Path) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if self.trace.is_none() {
            // It is not there before the plugin is loaded.
            self.trace = File::open(trace).ok();
        }
        if let Some(file) = &mut self.trace {
            file.read_to_end(&mut self.pending)?;
            let whole = self.pending.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            out.write_all(&self.pending[..whole])?;
            self.pending.drain(..whole);
        }
        let whole = console.rfind('\n').map_or(0, |at| at + 1);
        for line in console.get(self.console..whole).unwrap_or_default().lines() {
            // Firmware and kernel come first, and may leave an unfinished line.
            if line.ends_with("QK begin") {
                self.script_runs = true;
            } else if self.script_runs {
                writeln!(out, "guest | {line}")?;
            }
        }
        self.console = whole;
        out.flush()
    }
}
