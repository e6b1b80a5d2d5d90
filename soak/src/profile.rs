//! Which functions of a guest run: counted once, and kept in the cache, so that the probes of a seed stay the same.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use qkprobe_tests::{Cache, GuestKernel, Qemu};

use crate::boots;
use crate::cells::Cell;
use crate::functions::Functions;
use crate::plan::{Known, Probe, toml};
use crate::script::{QUIET_SHAPE, Script};

/// Calls of the functions that run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Profile {
    calls: HashMap<String, u64>,
    /// Which of [`Functions::all`] they are.
    pub(crate) running: Vec<(usize, u64)>,
}

impl Profile {
    /// How often a function is called; `None` if it is not.
    pub(crate) fn calls(&self, function: &str) -> Option<u64> {
        self.calls.get(function).copied()
    }

    /// The lines `CALLS FUNCTION` of a file.
    fn parse(text: &str, functions: &Functions) -> Self {
        let line = |line: &str| {
            let (calls, name) = line.split_once(' ')?;
            Some((name.to_owned(), calls.parse().ok()?))
        };
        let calls: HashMap<String, u64> = text.lines().filter_map(line).collect();
        let running = |(index, name): (usize, &String)| Some((index, *calls.get(name)?));
        let running = functions.all.iter().map(|function| &function.name).enumerate().filter_map(running).collect();
        Self { calls, running }
    }

    /// The profile of a guest, made if there is none of this version of the kernel.
    ///
    /// # Errors
    /// The boot that counts did not do what it should.
    pub(crate) fn of(known: Known<'_>, cache: &Cache) -> Result<Self, String> {
        let kernel = known.cell.kernel;
        let path = file(cache, kernel)?;
        if let Ok(text) = fs::read_to_string(&path) {
            return Ok(Self::parse(&text, known.functions));
        }
        eprintln!("{}: counting which functions run (once) ...", kernel.name());
        let mut probes = Vec::new();
        for (index, function) in known.functions.all.iter().enumerate() {
            let line = format!("p:f{index} {}", function.name);
            if known.check(&line).is_ok() {
                probes.push(Probe { name: format!("f{index}"), line, action: "count" });
            }
        }
        let cell = Cell { kernel, qemu: Qemu::V11_1 };
        let boot = boots::with_probes(cell, &QUIET_SHAPE, &Script::load(1), &toml(&probes))?;
        let failures = crate::script::failures(&boot);
        if !failures.is_empty() {
            return Err(format!("{cell}, a probe on each function: {}", failures.join("; ")));
        }
        let mut text = String::new();
        for probe in boot.try_summary()?.probes.iter().filter(|probe| probe.hits > 0) {
            let index: usize = probe.name.trim_start_matches('f').parse().unwrap_or(usize::MAX);
            if let Some(function) = known.functions.all.get(index) {
                _ = writeln!(text, "{} {}", probe.hits, function.name);
            }
        }
        let io = |error: std::io::Error| format!("{}: {error}", path.display());
        fs::create_dir_all(path.parent().unwrap_or(&path)).map_err(io)?;
        fs::write(&path, &text).map_err(io)?;
        Ok(Self::parse(&text, known.functions))
    }
}

/// A file for each version of the kernel.
fn file(cache: &Cache, kernel: GuestKernel) -> Result<PathBuf, String> {
    let version = cache.kernel_version(kernel).map_err(|error| error.to_string())?;
    Ok(cache.root().join("soak").join(format!("{}-{version}.profile", kernel.name())))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::functions::Function;

    #[test]
    fn lines_of_a_profile() {
        let function = |name: &str| Function { name: name.to_owned(), addr: 0, size: 8 };
        let functions = Functions::from_parts(vec![function("idle"), function("schedule")], BTreeSet::new());
        let profile = Profile::parse("31 schedule\n2 gone\n", &functions);
        assert_eq!(profile.running, [(1, 31)]);
        assert_eq!((profile.calls("schedule"), profile.calls("idle")), (Some(31), None));
    }
}
