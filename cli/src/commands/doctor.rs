//! `qkprobe doctor`.

use std::io;
use std::path::{Path, PathBuf};

use qkprobe_harness::arch::{self, GuestArch};
use qkprobe_harness::qemu::{self, Release};
use qkprobe_harness::{escape, find, plugin};

use super::say;
use crate::args::Doctor;
use crate::{Failure, Outcome};

/// What comes with which release (docs/probes.md).
const ABILITIES: [(Release, &str); 5] = [
    (Release::OLDEST, "entry probes without arguments, counting, control socket"),
    (Release::OLDEST, REGISTERS),
    (release(10, 1), "code armed without dropping all translated code; set"),
    (release(10, 2), "armed within milliseconds in a guest that never idles; restarts recognised"),
    (release(11, 0), "override, skip, replace; stop exactly at the instruction"),
];

/// What needs registers, which QEMU lists for a SPARC since 10.1.
const REGISTERS: &str = "arguments, filters, return and post probes";
const REGISTERS_OF_SPARC: Release = release(10, 1);

const fn release(major: u32, minor: u32) -> Release {
    Release { major, minor, micro: 0 }
}

/// Looks, tries, tells. Fails when no QEMU here works.
pub(crate) fn doctor(args: &Doctor) -> Outcome {
    let mut out = io::stdout().lock();
    let mut tell = |line: String| say(&mut out, &line).map(drop);
    let plugin = match plugin::find(args.plugin.as_deref()) {
        Ok(file) => {
            tell(format!("plugin: {}", file.display()))?;
            Some(file)
        }
        Err(error) => {
            tell(format!("plugin: none. {error}"))?;
            None
        }
    };
    let guests = find::guests();
    tell(format!("guests with a control socket: {}", guests.len()))?;
    for guest in guests {
        let line = format!("  process {}: {guest}, {}", guest.pid, guest.socket.display());
        tell(escape::line(line.as_bytes()))?;
    }
    let mut works = false;
    for row in &arch::ALL {
        tell(String::new())?;
        let programs = programs(args, row);
        if programs.is_empty() {
            let error = qemu::find(row, None).err().map(|error| error.to_string()).unwrap_or_default();
            tell(format!("{}: {error}", row.name))?;
            continue;
        }
        if row.isa().is_none() {
            tell(format!("{}: {} is here, but this version of qkprobe cannot decode {0}", row.name, row.program()))?;
            continue;
        }
        let taken = qemu::find(row, None).ok();
        for program in programs {
            let is_taken = taken.as_ref() == Some(&program);
            works |= one(row, &program, is_taken, plugin.as_deref(), &mut tell)?;
        }
    }
    if works { Ok(0) } else { Err(Failure::new("no QEMU here works with the plugin: see above")) }
}

fn programs(args: &Doctor, row: &GuestArch) -> Vec<PathBuf> {
    let given = args.qemu.iter().map(|path| if path.is_dir() { path.join(row.program()) } else { path.clone() });
    let is_it = |path: &PathBuf| path.is_file() && path.file_name().is_some_and(|name| *name == *row.program());
    let mut list: Vec<PathBuf> = given.filter(is_it).collect();
    list.extend(qemu::installed(&row.program()).into_iter().filter(|path| !args.qemu.contains(path)));
    list
}

/// One QEMU for one architecture; whether it works.
fn one(
    row: &GuestArch,
    program: &Path,
    is_taken: bool,
    plugin: Option<&Path>,
    tell: &mut impl FnMut(String) -> Result<(), Failure>,
) -> Result<bool, Failure> {
    let release = match Release::of(program) {
        Ok(release) => release,
        Err(error) => {
            tell(format!("{}: {error}", row.name))?;
            return Ok(false);
        }
    };
    let head = format!("{}: QEMU {release}, {}", row.name, program.display());
    let Some(plugin) = plugin else {
        tell(format!("{head}: not tried, there is no plugin"))?;
        return Ok(false);
    };
    let status = match qemu::try_plugin(program, plugin) {
        Ok(status) => status,
        Err(error) => {
            tell(format!("{head}: the plugin does not load"))?;
            for line in error.to_string().lines() {
                tell(format!("  {}", escape::line(line.as_bytes())))?;
            }
            if release < Release::OLDEST {
                tell(format!("  next: install QEMU {} or newer, and name it with --qemu", Release::OLDEST))?;
            }
            return Ok(false);
        }
    };
    tell(format!("{head}: the plugin loads, API {}", status.api))?;
    for (since, what) in ABILITIES {
        let since = if what == REGISTERS && row.name == "sparc64" { REGISTERS_OF_SPARC } else { since };
        let mark = if release >= since { "works" } else { "no   " };
        let least =
            if release >= since { String::new() } else { format!(" (needs QEMU {}.{})", since.major, since.minor) };
        tell(format!("  {mark}  {what}{least}"))?;
    }
    if is_taken {
        tell("  taken  where no --qemu names another".to_owned())?;
    }
    if !row.multi_thread {
        tell("  note   one vCPU: this machine has no more".to_owned())?;
    }
    Ok(true)
}
