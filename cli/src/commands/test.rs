//! `qkprobe test`.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use qkprobe_harness::boot_test::pool::Progress;
use qkprobe_harness::boot_test::{self, Settings, TestFile, TestReport, Verdict, report};
use qkprobe_harness::plugin;

use super::screen::is_colored;
use super::{Interrupt, arch, say};
use crate::args::{Color, Test};
use crate::{Failure, Outcome};

/// Finds, runs, reports.
pub(crate) fn test(args: &Test, color: Color) -> Outcome {
    let tests = collect(args)?;
    if args.list {
        let mut out = io::stdout().lock();
        for test in &tests {
            if !say(&mut out, &format!("{}\t{}", test.name, test.path.display()))? {
                break;
            }
        }
        return Ok(0);
    }
    let interrupt = Interrupt::catch()?;
    let settings = settings(args)?;
    // Before the run: a path that cannot be written must not cost an hour.
    for (option, path) in [("--junit", &args.junit), ("--json", &args.json)] {
        if let Some(path) = path {
            fs::write(path, "").map_err(|error| Failure::new(format!("{option} {}: {error}", path.display())))?;
        }
    }
    let mut display = Display {
        live: io::stderr().is_terminal(),
        green: is_colored(color, io::stderr().is_terminal()),
        total: tests.len(),
        done: 0,
        failed: 0,
        running: BTreeMap::new(),
        closed: false,
    };
    report::ktap::head(&mut io::stdout().lock(), tests.len(), settings.seed)?;
    let reports = boot_test::run_all(&tests, &settings, &interrupt.flag(), &mut display);
    display.clear();
    // A reader that has gone is told by the exit status.
    let _ = report::ktap::end(&mut io::stdout().lock(), &reports);
    if let Some(path) = &args.json {
        write_whole(path, &report::json::json(&reports, settings.seed), "--json")?;
    }
    if let Some(path) = &args.junit {
        let text = report::junit::junit(&reports, settings.seed).map_err(Failure::new)?;
        write_whole(path, &text, "--junit")?;
    }
    if let Some(status) = interrupt.status() {
        return Ok(status);
    }
    let is_good =
        |report: &TestReport| report.verdict.is_good() && !(args.flaky_fails && report.verdict == Verdict::Flaky);
    Ok(u8::from(!reports.iter().all(is_good)))
}

fn write_whole(path: &Path, text: &str, option: &str) -> Result<(), Failure> {
    fs::write(path, text).map_err(|error| Failure::new(format!("{option} {}: {error}", path.display())))
}

fn settings(args: &Test) -> Result<Settings, Failure> {
    let boot = &args.boot;
    let seed = boot.seed.unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::from(now.subsec_nanos()) ^ now.as_secs() & 0xffff_ffff
    });
    // Once, and not as the verdict of each test.
    plugin::find(boot.plugin.as_deref())?;
    for (option, path) in [("--kernel", &boot.kernel), ("--initrd", &boot.initrd), ("--init", &boot.init)] {
        if let Some(path) = path {
            fs::metadata(path).map_err(|error| Failure::usage(format!("{option} {}: {error}", path.display())))?;
        }
    }
    Ok(Settings {
        kernel: boot.kernel.clone(),
        initrd: boot.initrd.clone(),
        init: boot.init.clone(),
        arch: boot.arch.as_deref().map(arch).transpose()?,
        append: boot.append.clone(),
        cpus: boot.smp,
        memory_mb: boot.memory,
        qemu: boot.qemu.clone(),
        plugin: boot.plugin.clone(),
        seed,
        jobs: usize::try_from(args.jobs).unwrap_or(1),
        retries: args.retries,
    })
}

/// The tests that are meant, by path. Every file is read before any guest starts.
fn collect(args: &Test) -> Result<Vec<TestFile>, Failure> {
    let here = [PathBuf::from(".")];
    let given = if args.files.is_empty() { here.as_slice() } else { args.files.as_slice() };
    let mut paths = Vec::new();
    for path in given {
        if path.is_dir() {
            let before = paths.len();
            folder(path, &mut paths).map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
            if paths.len() == before {
                return Err(Failure::usage(format!("{}: no boot test (*.toml with [test]) in there", path.display())));
            }
        } else {
            paths.push(path.clone());
        }
    }
    let mut tests = Vec::new();
    let mut mistakes = Vec::new();
    for path in paths {
        match TestFile::read(&path) {
            Ok(test) => tests.push(test),
            Err(mistake) => mistakes.push(mistake),
        }
    }
    if !mistakes.is_empty() {
        return Err(Failure::usage(mistakes.join("\n")));
    }
    if let Some(filter) = &args.filter {
        tests.retain(|test| test.name.contains(filter.as_str()));
        if tests.is_empty() {
            return Err(Failure::usage(format!("--filter {filter}: no test has this in its name")));
        }
    }
    if let Some(shard) = args.shard {
        let mut position = 0..;
        tests.retain(|_| position.next().is_some_and(|position| shard.takes(position)));
    }
    Ok(tests)
}

/// Test files of a folder and of the folders in it, sorted, so that shards are the same everywhere.
fn folder(path: &Path, paths: &mut Vec<PathBuf>) -> io::Result<()> {
    let mut entries: Vec<PathBuf> = fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    entries.sort();
    for entry in entries {
        if entry.is_dir() {
            folder(&entry, paths)?;
        } else if entry.extension().is_some_and(|extension| extension == "toml")
            && boot_test::is_test(&fs::read_to_string(&entry)?)
        {
            paths.push(entry);
        }
    }
    Ok(())
}

/// KTAP on standard output, and on a terminal what runs.
struct Display {
    live: bool,
    green: bool,
    total: usize,
    done: usize,
    failed: usize,
    /// Attempts by name.
    running: BTreeMap<String, u32>,
    closed: bool,
}

impl Display {
    fn clear(&self) {
        if self.live {
            let _ = write!(io::stderr().lock(), "\r\x1b[K");
        }
    }

    fn draw(&self) {
        if !self.live {
            return;
        }
        let names: Vec<String> = self
            .running
            .iter()
            .map(|(name, attempt)| {
                let name = qkprobe_harness::escape::line(name.as_bytes());
                if *attempt == 0 { name } else { format!("{name} (attempt {})", attempt + 1) }
            })
            .collect();
        let counts = format!("[{}/{}] {} failed", self.done, self.total, self.failed);
        let (on, off) = match (self.green, self.failed) {
            (false, _) => ("", ""),
            (true, 0) => ("\x1b[32m", "\x1b[0m"),
            (true, _) => ("\x1b[31m", "\x1b[0m"),
        };
        let names: String = names.join(", ").chars().take(60).collect();
        let mut err = io::stderr().lock();
        let _ = write!(err, "\r\x1b[K{on}{counts}{off} {names}");
        let _ = err.flush();
    }
}

impl Progress for Display {
    fn started(&mut self, name: &str, attempt: u32) {
        self.running.insert(name.to_owned(), attempt);
        self.draw();
    }

    fn finished(&mut self, index: usize, report: &TestReport) {
        self.running.remove(&report.name);
        self.done += 1;
        self.failed += usize::from(!report.verdict.is_good());
        self.clear();
        self.closed |= report::ktap::test(&mut io::stdout().lock(), index + 1, report).is_err();
        self.draw();
    }
}
