//! `qkprobe test`.

use std::collections::BTreeMap;
use std::ffi::OsString;
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

/// Exit statuses. What they mean to a user is in `--help` and docs/tests.md.
const FAILED: u8 = 1;
pub(crate) const NOTHING_RAN: u8 = 5;
/// `git bisect run` looks for another commit.
const BISECT_SKIP: u8 = 125;
/// `git bisect run` ends.
const BISECT_ABORT: u8 = 128;

/// Finds, runs, reports.
pub(crate) fn test(args: &Test, color: Color) -> Outcome {
    let outcome = run(args, color);
    match outcome {
        Ok(NOTHING_RAN) if args.bisect => Ok(BISECT_SKIP),
        Err(Failure { text, status }) if args.bisect => {
            let status = if matches!(status, NOTHING_RAN | BISECT_SKIP) { BISECT_SKIP } else { BISECT_ABORT };
            Err(Failure { text, status })
        }
        Err(Failure { text, status: NOTHING_RAN }) if args.allow_skip => {
            warn(&text);
            Ok(0)
        }
        outcome => outcome,
    }
}

fn warn(text: &str) {
    // Nobody is left to be told when this fails.
    let _ = writeln!(io::stderr(), "qkprobe: warning: {text}");
}

fn run(args: &Test, color: Color) -> Outcome {
    let Collected { tests, is_empty_part } = collect(args)?;
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
    // A reader that has gone is told by the exit status, here and at the end.
    let _ = report::ktap::head(&mut io::stdout().lock(), tests.len(), settings.seed);
    let reports = boot_test::run_all(&tests, &settings, &interrupt.flag(), &mut display);
    display.clear();
    let _ = report::ktap::end(&mut io::stdout().lock(), &reports);
    if std::env::var_os("GITHUB_ACTIONS").is_some_and(|it| !it.is_empty()) {
        tell_github(&reports, settings.seed, args.flaky_fails);
    }
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
    if let Some(status) = failed(&reports, args) {
        return Ok(status);
    }
    match report::nothing_ran(&reports) {
        Some(reason) if is_empty_part || args.allow_skip => warn(&format!("nothing ran: {reason}")),
        Some(reason) => {
            let next = if args.bisect { "" } else { " (--allow-skip makes that a success)" };
            return Err(Failure::nothing_ran(format!("nothing ran: {reason}{next}")));
        }
        None => {}
    }
    Ok(0)
}

/// The exit status, if a test did not pass.
fn failed(reports: &[TestReport], args: &Test) -> Option<u8> {
    let is_good =
        |report: &&TestReport| report.verdict.is_good() && !(args.flaky_fails && report.verdict == Verdict::Flaky);
    let mut bad = reports.iter().filter(|report| !is_good(report)).peekable();
    bad.peek()?;
    // What failed without a word on the kernel says nothing of the commit either.
    Some(if args.bisect && bad.all(TestReport::is_error) { BISECT_SKIP } else { FAILED })
}

/// Annotations, and the job's summary. Both are extras: what goes wrong with them changes no result.
fn tell_github(reports: &[TestReport], seed: u64, flaky_fails: bool) {
    let workspace = std::env::var_os("GITHUB_WORKSPACE").map(PathBuf::from);
    // Not on standard output, which may be kept as KTAP; the runner reads both.
    let _ = io::stderr().write_all(report::github::annotations(reports, workspace.as_deref(), flaky_fails).as_bytes());
    let Some(path) = std::env::var_os("GITHUB_STEP_SUMMARY").filter(|path: &OsString| !path.is_empty()) else { return };
    let file = fs::OpenOptions::new().append(true).create(true).open(&path);
    let written = file.and_then(|mut file| file.write_all(report::github::summary(reports, seed).as_bytes()));
    if let Err(error) = written {
        warn(&format!("GITHUB_STEP_SUMMARY {}: {error}", Path::new(&path).display()));
    }
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
    let named = [("--kernel", &boot.kernel), ("--initrd", &boot.initrd), ("--init", &boot.init)];
    let named = named.into_iter().filter_map(|(option, path)| Some((option, path.as_ref()?)));
    for (option, path) in named.chain(boot.symbols.iter().map(|path| ("--symbols", path))) {
        fs::metadata(path).map_err(|error| {
            let failure = Failure::usage(format!("{option} {}: {error}", path.display()));
            // A commit that does not build is none that fails.
            let is_not_built = option == "--kernel" && error.kind() == io::ErrorKind::NotFound;
            if args.bisect && is_not_built { Failure { status: BISECT_SKIP, ..failure } } else { failure }
        })?;
    }
    Ok(Settings {
        kernel: boot.kernel.clone(),
        symbols: boot.symbols.clone(),
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

/// The tests that are meant.
struct Collected {
    tests: Vec<TestFile>,
    /// The shard has none that is to be run, and others have.
    is_empty_part: bool,
}

/// The tests that are meant, by path. Every file is read before any guest starts.
fn collect(args: &Test) -> Result<Collected, Failure> {
    let here = [PathBuf::from(".")];
    let given = if args.files.is_empty() { here.as_slice() } else { args.files.as_slice() };
    let mut paths = Vec::new();
    for path in given {
        if path.is_dir() {
            let before = paths.len();
            folder(path, &mut paths).map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
            if paths.len() == before {
                let text = format!("{}: no boot test (*.toml with [test]) in there", path.display());
                return Err(Failure::nothing_ran(text));
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
            return Err(Failure::nothing_ran(format!("--filter {filter}: no test has this in its name")));
        }
    }
    let is_meant = |test: &TestFile| test.test.skip.is_none();
    let mut is_empty_part = tests.iter().any(is_meant);
    if let Some(shard) = args.shard {
        let mut position = 0..;
        tests.retain(|_| position.next().is_some_and(|position| shard.takes(position)));
    }
    is_empty_part &= !tests.iter().any(is_meant);
    Ok(Collected { tests, is_empty_part })
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
