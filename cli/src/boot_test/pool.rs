//! Many tests: some at once, as many as memory allows; what did not pass again, if asked for.

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use qkprobe_symbols::KernelImage;

use super::file::TestFile;
use super::run::Attempt;
use super::verdict::{TestReport, Verdict};
use crate::arch::GuestArch;
use crate::boot::Boot;

/// What a QEMU needs besides the guest's memory: translated code and itself, in MB.
const OVERHEAD_MB: u64 = 300;

/// What the command line says over the tests' files.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The image, for all tests.
    pub kernel: Option<PathBuf>,
    /// More symbols, for all tests.
    pub symbols: Vec<PathBuf>,
    /// The initial RAM disk, for tests that name none.
    pub initrd: Option<PathBuf>,
    /// The init program, for tests that name neither.
    pub init: Option<PathBuf>,
    /// The architecture.
    pub arch: Option<&'static GuestArch>,
    /// More of every kernel's command line.
    pub append: Option<String>,
    /// vCPUs, for tests that say nothing.
    pub cpus: Option<u32>,
    /// Memory in MB, for tests that say nothing.
    pub memory_mb: Option<u32>,
    /// QEMU, for all tests.
    pub qemu: Option<PathBuf>,
    /// The plugin.
    pub plugin: Option<PathBuf>,
    /// QEMU's seed; each further attempt adds 1.
    pub seed: u64,
    /// How many guests at once.
    pub jobs: usize,
    /// How many further attempts.
    pub retries: u32,
}

/// What a run tells while it goes on.
pub trait Progress: Send {
    /// A test begins (or begins again).
    fn started(&mut self, name: &str, attempt: u32) {
        let _ = (name, attempt);
    }

    /// A test is done; reports come in the order of the tests.
    fn finished(&mut self, index: usize, report: &TestReport);
}

/// Images that have been read, each with more symbols: many tests have one kernel.
#[derive(Debug, Default)]
struct Images(Mutex<HashMap<Vec<PathBuf>, Loaded>>);

/// An image, or why there is none.
type Loaded = Result<Arc<KernelImage>, String>;

impl Images {
    fn get(&self, kernel: &Path, symbols: &[PathBuf]) -> Result<Arc<KernelImage>, String> {
        let mut images = lock(&self.0);
        let load = || KernelImage::load_all(kernel, symbols).map(Arc::new).map_err(|error| error.to_string());
        let files = std::iter::once(kernel.to_owned()).chain(symbols.iter().cloned());
        images.entry(files.collect()).or_insert_with(load).clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Memory that guests may take.
#[derive(Debug)]
struct Memory {
    free_mb: Mutex<u64>,
    returned: Condvar,
    all_mb: u64,
}

impl Memory {
    fn new(all_mb: u64) -> Self {
        Self { free_mb: Mutex::new(all_mb), returned: Condvar::new(), all_mb }
    }

    /// Waits until so much is free. One guest alone may always run.
    fn take(&self, wanted_mb: u64) -> u64 {
        let wanted = wanted_mb.min(self.all_mb);
        let mut free = lock(&self.free_mb);
        while *free < wanted {
            free = self.returned.wait(free).unwrap_or_else(PoisonError::into_inner);
        }
        *free -= wanted;
        wanted
    }

    fn give(&self, mb: u64) {
        *lock(&self.free_mb) += mb;
        self.returned.notify_all();
    }
}

/// What this machine has to give, in MB.
fn available_mb() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kb: Option<u64> = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse().ok());
    kb.map_or(1 << 20, |kb| kb / 1024)
}

/// Reports that wait for those before them.
struct Reports<'a> {
    done: Vec<Option<TestReport>>,
    next: usize,
    progress: &'a mut dyn Progress,
}

impl Reports<'_> {
    fn add(&mut self, index: usize, report: TestReport) {
        if let Some(place) = self.done.get_mut(index) {
            *place = Some(report);
        }
        while let Some(Some(report)) = self.done.get(self.next) {
            self.progress.finished(self.next, report);
            self.next += 1;
        }
    }
}

/// Runs the tests; a signal's number in `interrupted` ends the run, and what has not run is interrupted too.
pub fn run_all(
    tests: &[TestFile],
    settings: &Settings,
    interrupted: &AtomicUsize,
    progress: &mut dyn Progress,
) -> Vec<TestReport> {
    let images = Images::default();
    let memory = Memory::new(available_mb());
    let queue: Mutex<VecDeque<usize>> = Mutex::new((0..tests.len()).collect());
    let done = std::iter::repeat_with(|| None).take(tests.len()).collect();
    let reports = Mutex::new(Reports { done, next: 0, progress });
    thread::scope(|scope| {
        for _ in 0..settings.jobs.clamp(1, tests.len().max(1)) {
            scope.spawn(|| {
                loop {
                    let Some(index) = lock(&queue).pop_front() else { break };
                    let Some(test) = tests.get(index) else { break };
                    let report = with_retries(test, settings, &images, &memory, interrupted, &|attempt| {
                        lock(&reports).progress.started(&test.name, attempt);
                    });
                    lock(&reports).add(index, report);
                }
            });
        }
    });
    lock(&reports).done.drain(..).flatten().collect()
}

fn with_retries(
    test: &TestFile,
    settings: &Settings,
    images: &Images,
    memory: &Memory,
    interrupted: &AtomicUsize,
    started: &dyn Fn(u32),
) -> TestReport {
    let start = Instant::now();
    let retries = test.test.retries.unwrap_or(settings.retries);
    let mut attempts = Vec::new();
    let mut first_failure: Option<TestReport> = None;
    let mut report = loop {
        let number = u32::try_from(attempts.len()).unwrap_or(u32::MAX);
        started(number);
        let report = once(test, settings, settings.seed.wrapping_add(u64::from(number)), images, memory, interrupted);
        attempts.push(report.verdict);
        if report.verdict == Verdict::Pass
            && let Some(failure) = first_failure
        {
            // What went wrong once is what a reader needs.
            break TestReport {
                verdict: Verdict::Flaky,
                reason: format!(
                    "passed at attempt {}; first: {}: {}",
                    number + 1,
                    failure.verdict.word(),
                    failure.reason
                ),
                expectations: failure.expectations,
                console: failure.console,
                stderr: failure.stderr,
                vcpus: failure.vcpus,
                ..report
            };
        }
        if number >= retries || !report.verdict.may_retry() || interrupted.load(Ordering::Relaxed) != 0 {
            break report;
        }
        first_failure.get_or_insert(report);
    };
    report.attempts = attempts;
    report.seconds = start.elapsed();
    report
}

fn once(
    test: &TestFile,
    settings: &Settings,
    seed: u64,
    images: &Images,
    memory: &Memory,
    interrupted: &AtomicUsize,
) -> TestReport {
    let mut report = TestReport::new(test.name.clone(), test.path.clone(), seed);
    let mut decided = |verdict, reason: String| {
        report.verdict = verdict;
        report.reason = reason;
        report.clone()
    };
    if interrupted.load(Ordering::Relaxed) != 0 {
        return decided(Verdict::Interrupted, "the run was interrupted".to_owned());
    }
    if let Some(reason) = &test.test.skip {
        return decided(Verdict::Skipped, reason.clone());
    }
    let Some(kernel) = settings.kernel.as_ref().or(test.guest.kernel.as_ref()) else {
        let reason = "no kernel: give --kernel FILE, or kernel = \"FILE\" in [guest]";
        return decided(Verdict::Fail, reason.to_owned());
    };
    let symbols: Vec<PathBuf> = test.guest.symbols.iter().chain(&settings.symbols).cloned().collect();
    let image = match images.get(kernel, &symbols) {
        Ok(image) => image,
        Err(error) => return decided(Verdict::Fail, error),
    };
    let boot = match boot(test, settings, kernel, seed) {
        Ok(boot) => symbols.iter().fold(boot, Boot::symbols),
        Err(reason) => return decided(Verdict::Fail, reason),
    };
    let arch = boot.arch_for(&image).ok();
    let taken = memory.take(arch.map_or(512, |arch| u64::from(boot.memory_mb_of(arch))) + OVERHEAD_MB);
    let report = Attempt { test, boot, image, interrupted }.run(report);
    memory.give(taken);
    report
}

/// The boot that a test's file and the command line ask for together.
fn boot(test: &TestFile, settings: &Settings, kernel: &Path, seed: u64) -> Result<Boot, String> {
    let guest = &test.guest;
    let mut boot = Boot::new(kernel).name(&test.name).watch().seed(seed);
    let named = guest.arch.as_deref().map(|name| {
        GuestArch::by_name(name)
            .ok_or_else(|| format!("arch = \"{name}\": no such architecture; these exist: {}", GuestArch::names()))
    });
    if let Some(arch) = settings.arch.or(named.transpose()?) {
        boot = boot.arch(arch);
    }
    let own_start = guest.initrd.is_some() || guest.init.is_some();
    if let Some(initrd) = guest.initrd.as_ref().or(settings.initrd.as_ref().filter(|_| !own_start)) {
        boot = boot.initrd(initrd);
    }
    if let Some(init) = guest.init.as_ref().or(settings.init.as_ref().filter(|_| !own_start)) {
        boot = boot.init(init);
    }
    for (path, content) in &guest.files {
        boot = boot.file(path, content.as_bytes());
    }
    for append in guest.append.iter().chain(&settings.append) {
        boot = boot.append(append);
    }
    if let Some(cpus) = guest.cpus.or(settings.cpus) {
        boot = boot.cpus(cpus);
    }
    if let Some(memory) = guest.memory.or(settings.memory_mb) {
        boot = boot.memory(memory);
    }
    if let Some(qemu) = settings.qemu.as_ref().or(guest.qemu.as_ref()) {
        boot = boot.qemu(qemu);
    }
    if let Some(plugin) = &settings.plugin {
        boot = boot.plugin(plugin);
    }
    Ok(boot.qemu_args(guest.args.iter().map(String::as_str)))
}

/// How long a whole run took, for its last line.
#[must_use]
pub fn total(reports: &[TestReport]) -> Duration {
    reports.iter().map(|report| report.seconds).sum()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;

    #[test]
    fn guests_share_what_memory_there_is() {
        let memory = Memory::new(1000);
        // More than there is: it runs alone.
        assert_eq!(memory.take(5000), 1000);
        memory.give(1000);
        let (running, most) = (AtomicU64::new(0), AtomicU64::new(0));
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let taken = memory.take(400);
                    most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    thread::sleep(Duration::from_millis(20));
                    running.fetch_sub(1, Ordering::SeqCst);
                    memory.give(taken);
                });
            }
        });
        assert_eq!((most.into_inner(), *lock(&memory.free_mb)), (2, 1000));
    }
}
