//! One boot, with probes or without.

use std::fs;
use std::time::Duration;

use qkprobe_tests::{Boot, BootResult};

use crate::cells::{Cell, Shape};
use crate::script::Script;

/// A guest that takes longer hangs. The slowest takes half a minute on a machine that does nothing else.
const PATIENCE: Duration = Duration::from_secs(900);
/// Warnings are on the console. The kernel's own watchdogs are off: a vCPU that the host does not run for ten seconds is locked up
/// for them, and a guest that does not go on is noticed without them.
const APPEND: &str = "loglevel=5 nowatchdog rcupdate.rcu_cpu_stall_suppress=1";

/// A boot of this machine.
fn boot(cell: Cell, shape: &Shape, script: &Script) -> Boot {
    let Shape { smp, threads, moved, code_cache } = shape;
    let mut boot = Boot::new(cell.qemu, cell.kernel)
        .smp(*smp)
        .threads(*threads)
        .append(APPEND)
        .script(&script.lines)
        .timeout(PATIENCE);
    if !moved {
        boot = boot.append("nokaslr");
    }
    if let Some(megabytes) = code_cache {
        boot = boot.code_cache(*megabytes);
    }
    boot
}

/// Without the plugin.
///
/// # Errors
/// QEMU did not start, or the guest hangs.
pub(crate) fn without_probes(cell: Cell, shape: &Shape, script: &Script) -> Result<BootResult, String> {
    boot(cell, shape, script).try_run().map_err(|error| error.to_string())
}

/// With these probes. Records go nowhere: only how many there are is asked.
///
/// # Errors
/// The same.
pub(crate) fn with_probes(cell: Cell, shape: &Shape, script: &Script, probes: &str) -> Result<BootResult, String> {
    // Read when QEMU starts, and not again.
    let path = std::env::temp_dir().join(format!("qkprobe-soak-{}.toml", std::process::id()));
    let io = |error: std::io::Error| format!("{}: {error}", path.display());
    fs::write(&path, probes).map_err(io)?;
    let boot = boot(cell, shape, script)
        .plugin_arg("out=/dev/null")
        .plugin_arg(format!("config={}", path.display()))
        .try_run();
    fs::remove_file(&path).map_err(io)?;
    boot.map_err(|error| error.to_string())
}
