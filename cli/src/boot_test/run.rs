//! One attempt of one test: boot, look, judge, end.
//!
//! The order of verdicts is the order in which a person would ask: did QEMU work, did the kernel run, did it panic, did it
//! stand still, did it end as it should, and only then what the probes saw.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use qkprobe_lang::{SymbolLookup, Target as _};
use qkprobe_symbols::KernelImage;

use super::expect::{Expectation, State};
use super::file::{TestFile, WantedEnd};
use super::verdict::{ExpectationReport, ProbeReport, TestReport, Verdict};
use crate::ImageTarget;
use crate::boot::Boot;
use crate::check::{self, Checked};
use crate::control::Profile;
use crate::error::Error;
use crate::event::Event;
use crate::folder::Folder;
use crate::guest::{End, Guest};
use crate::positions;
use crate::qemu::{self, Release};
use crate::streams::Happening;

/// Lines of the console in a report, and in that of a panic or an oops, whose own lines are many.
const TAIL: usize = 30;
const LONG_TAIL: usize = 80;
const POLL: Duration = Duration::from_millis(20);
/// How often the probes' counters are asked.
const COUNTS: Duration = Duration::from_millis(500);
/// A panic prints its trace before it reboots; that much is waited for it.
const AFTER_PANIC: Duration = Duration::from_secs(10);
/// What the kernel says last when it does not restart, as on a machine that cannot.
const LAST_WORDS: &str = "---[ end Kernel panic";
/// So many starts of the kernel are a loop.
const LOOP: u64 = 3;

/// Why the run was ended from this side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    Wanted,
    Timeout,
    Hang,
    Panicked,
    Loop,
    Interrupted,
}

/// One attempt.
pub(crate) struct Attempt<'a> {
    pub(crate) test: &'a TestFile,
    pub(crate) boot: Boot,
    pub(crate) image: Arc<KernelImage>,
    pub(crate) interrupted: &'a AtomicUsize,
}

impl Attempt<'_> {
    /// Makes it. The report has everything but names and times.
    pub(crate) fn run(self, mut report: TestReport) -> TestReport {
        let result = self.judge(&mut report);
        let (verdict, reason) = result.unwrap_or_else(|decided| decided);
        report.verdict = verdict;
        report.reason = reason;
        report
    }

    /// The verdict; `Err` is one that was clear before the guest ran.
    fn judge(self, report: &mut TestReport) -> Result<(Verdict, String), (Verdict, String)> {
        let Self { test, mut boot, image, interrupted } = self;
        let broken = |error: Error| (Verdict::Fail, error.to_string());
        let arch = boot.arch_for(&image).map_err(broken)?;
        arch.name.clone_into(&mut report.arch);
        report.kernel = image.banner.clone().unwrap_or_else(|| boot.kernel.display().to_string());
        let skip = |reason: String| (Verdict::Skipped, reason);
        let isa = arch.isa().ok_or_else(|| skip(format!("this version of qkprobe cannot decode {}", arch.name)))?;
        let program = qemu::find(arch, boot.qemu.as_deref()).map_err(|error| skip(error.to_string()))?;
        let release = Release::of(&program).map_err(|error| (Verdict::QemuFailed, error.to_string()))?;
        report.qemu = release.to_string();
        let least = test.test.needs_qemu.unwrap_or(Release::OLDEST).max(Release::OLDEST);
        if release < least {
            return Err(skip(format!("QEMU {release} is older than {least}")));
        }
        let target = ImageTarget { arch: isa, image: Some(&image) };
        let probes = check::check(&test.probes, &target).map_err(|mistakes| (Verdict::Fail, mistakes.join("\n")))?;
        let mut expectations = compile(test, &probes, &target)?;
        let folder = Folder::small().map_err(|error| (Verdict::Fail, error.to_string()))?;
        if !probes.is_empty() {
            boot = boot.plugin_arg(format!("config={}", write_probes(test, report.seed, folder.path())?.display()));
        }
        let mut guest = match boot.image(Arc::clone(&image)).start() {
            Ok(guest) => guest,
            // What this QEMU lacks is no fault of the kernel's.
            Err(Error::Refused { message, .. }) if message.contains("that came with QEMU") => {
                return Err(skip(message));
            }
            Err(Error::Refused { message, .. }) => return Err((Verdict::Fail, message)),
            Err(error) => return Err((Verdict::QemuFailed, error.to_string())),
        };
        report.ran = true;
        let mut run = Run {
            test,
            target,
            probes: &probes,
            expectations: &mut expectations,
            progress: Instant::now(),
            counts: Vec::new(),
            next_counts: Instant::now(),
            found: false,
            problem: None,
            end_seen: false,
        };
        let stop = run.watch(&mut guest, interrupted);
        if matches!(stop, Some(Stop::Hang | Stop::Timeout)) {
            let places = positions::of(&mut guest).map(|list| list.iter().map(ToString::to_string).collect());
            report.vcpus =
                places.unwrap_or_else(|error| vec![format!("QEMU does not say where the vCPUs are: {error}")]);
        }
        run.finish(&mut guest);
        let verdict = run.verdict(stop, &guest);
        let Run { counts, .. } = run;
        describe(report, &verdict, &guest, &expectations, counts);
        Ok(verdict)
    }
}

fn compile(
    test: &TestFile,
    probes: &[Checked],
    target: &ImageTarget<'_>,
) -> Result<Vec<Expectation>, (Verdict, String)> {
    let mut list = Vec::new();
    for expect in &test.expect {
        let place = |error| (Verdict::Fail, format!("{}:{}: {error}", test.path.display(), expect.line));
        list.extend(Expectation::compile(expect, probes, target).map_err(place)?);
    }
    if let WantedEnd::Hit(event) = &test.test.end {
        let name = event.rsplit('/').next().unwrap_or_default();
        if !probes.iter().any(|probe| probe.definition.event == name) {
            return Err((Verdict::Fail, format!("end = \"hit:{event}\": the test has no such probe")));
        }
    }
    Ok(list)
}

/// The plugin's messages name the file as the user does.
fn write_probes(test: &TestFile, seed: u64, folder: &Path) -> Result<PathBuf, (Verdict, String)> {
    let name = test.path.file_name().unwrap_or("probes.toml".as_ref());
    let path = folder.join(name);
    fs::write(&path, test.seeded_probes(seed))
        .map_err(|error| (Verdict::Fail, format!("{}: {error}", path.display())))?;
    Ok(path)
}

fn describe(
    report: &mut TestReport,
    verdict: &(Verdict, String),
    guest: &Guest,
    expectations: &[Expectation],
    counts: Vec<Profile>,
) {
    report.end = guest.end().map(|end| end.to_string()).unwrap_or_default();
    report.expectations = expectations
        .iter()
        .map(|one| {
            let (held, reason) = match one.state() {
                State::Held => (Some(true), None),
                State::Broken(reason) => (Some(false), Some(reason.clone())),
                State::Open => (None, None),
            };
            let events = one.events().map(str::to_owned).collect();
            let (text, line, subtests) = (one.text.clone(), one.line, one.subtests());
            ExpectationReport { text, line, held, reason, events, subtests }
        })
        .collect();
    report.probes = counts
        .into_iter()
        .map(|Profile { group, event, hits, missed, dropped, .. }| ProbeReport { group, event, hits, missed, dropped })
        .collect();
    if verdict.0 != Verdict::Pass {
        let is_long = matches!(verdict.0, Verdict::Panic | Verdict::Oops);
        report.console = guest.console_tail(if is_long { LONG_TAIL } else { TAIL });
        // The summary's table is in the report already.
        let is_ours = |line: &str| line.contains("terminating on signal 15 from pid ");
        report.stderr = guest.words().into_iter().filter(|line| !is_ours(line)).collect();
    }
}

struct Run<'a> {
    test: &'a TestFile,
    target: ImageTarget<'a>,
    probes: &'a [Checked],
    expectations: &'a mut Vec<Expectation>,
    /// When the guest last did something that can be seen.
    progress: Instant,
    counts: Vec<Profile>,
    next_counts: Instant,
    /// The plugin has seen this kernel run.
    found: bool,
    problem: Option<String>,
    /// `end = "hit:..."` or `"console:..."` has come.
    end_seen: bool,
}

impl Run<'_> {
    /// Watches until the guest ends or is to be ended.
    fn watch(&mut self, guest: &mut Guest, interrupted: &AtomicUsize) -> Option<Stop> {
        self.progress = Instant::now();
        loop {
            let over = guest.is_over();
            match guest.next(POLL) {
                Some(happening) => self.happened(guest, &happening),
                None if over => return None,
                None => {}
            }
            if interrupted.load(Ordering::Relaxed) != 0 {
                return Some(Stop::Interrupted);
            }
            if Instant::now() >= self.next_counts {
                self.next_counts = Instant::now() + COUNTS;
                self.ask(guest);
                let now = guest.elapsed();
                self.expectations.iter_mut().for_each(|one| one.at(now));
            }
            if let Some(stop) = self.reason_to_stop(guest) {
                return Some(stop);
            }
        }
    }

    fn reason_to_stop(&self, guest: &Guest) -> Option<Stop> {
        let all_content = || self.expectations.iter().all(Expectation::is_content);
        let has_hit = |event: &str| self.counts.iter().any(|probe| names(event, probe) && probe.hits > 0);
        let wanted = match &self.test.test.end {
            WantedEnd::Done => self.found && self.silent_probe().is_none() && all_content(),
            WantedEnd::Hit(event) => self.end_seen || has_hit(event),
            WantedEnd::Console(_) => self.end_seen,
            WantedEnd::PowerOff | WantedEnd::Reboot | WantedEnd::Panic | WantedEnd::Exit(_) => false,
        };
        if wanted {
            return Some(Stop::Wanted);
        }
        let is_past = |at: &Instant| at.elapsed() > AFTER_PANIC || guest.console().contains(LAST_WORDS);
        if guest.watched().panic.as_ref().is_some_and(|panic| is_past(&panic.at)) {
            return Some(Stop::Panicked);
        }
        if guest.watched().starts >= LOOP {
            return Some(Stop::Loop);
        }
        if guest.elapsed() > self.test.test.timeout() {
            return Some(Stop::Timeout);
        }
        (self.progress.elapsed() > self.test.test.hang()).then_some(Stop::Hang)
    }

    fn happened(&mut self, guest: &Guest, happening: &Happening) {
        match happening {
            Happening::Console(bytes) => {
                self.progress = Instant::now();
                let now = guest.elapsed();
                self.expectations.iter_mut().for_each(|one| one.console(bytes, now));
                if let WantedEnd::Console(text) = &self.test.test.end {
                    self.end_seen = self.end_seen || guest.console().contains(text.as_str());
                }
            }
            Happening::Trace(line) => {
                let Some(event) = Event::parse(line) else { return };
                self.progress = Instant::now();
                self.expectations.iter_mut().for_each(|one| one.event(&event, &self.target));
                if let WantedEnd::Hit(wanted) = &self.test.test.end {
                    let (group, name) = wanted.split_once('/').map_or((None, wanted.as_str()), |(g, e)| (Some(g), e));
                    let is_it = event.event == name && group.is_none_or(|group| group == event.group);
                    self.end_seen = self.end_seen || is_it;
                }
            }
            Happening::Watched(_) => self.progress = Instant::now(),
            Happening::Stderr(_) | Happening::Machine(_) => {}
        }
    }

    /// Asks the plugin what was counted so far. A guest that has just ended does not answer.
    fn ask(&mut self, guest: &mut Guest) {
        let Ok(control) = guest.control() else { return };
        let (Ok(counts), Ok(status)) = (control.profile(), control.status()) else { return };
        let hits = |list: &[Profile]| list.iter().map(|probe| probe.hits).sum::<u64>();
        if hits(&counts) != hits(&self.counts) {
            self.progress = Instant::now();
        }
        self.counts = counts;
        self.found = status.kernel_found;
        self.problem = status.problem;
        self.totals(guest.elapsed());
    }

    fn totals(&mut self, now: Duration) {
        let counts = &self.counts;
        let total = |is_it: &dyn Fn(&str, &str) -> bool| {
            counts.iter().filter(|probe| is_it(&probe.group, &probe.event)).map(|probe| probe.hits).sum()
        };
        self.expectations.iter_mut().for_each(|one| one.totals(total, now));
    }

    /// Ends the guest, takes what it still says, and decides what is open.
    fn finish(&mut self, guest: &mut Guest) {
        self.ask(guest);
        let elapsed = guest.elapsed();
        let mut last = Vec::new();
        guest.stop(|happening| last.push(happening.clone()));
        last.iter().for_each(|happening| self.happened(guest, happening));
        if let Some(summary) = guest.summary() {
            self.problem = summary.problem.or(self.problem.take());
            self.found = self.found || summary.slide.is_some();
            let old = std::mem::take(&mut self.counts);
            let pending = |group: &str, event: &str| {
                old.iter()
                    .find(|probe| probe.group == group && probe.event == event)
                    .map_or((0, 0), |probe| (probe.pending, probe.abandoned))
            };
            self.counts = summary
                .probes
                .into_iter()
                .map(|probe| {
                    let (pending, abandoned) = pending(&probe.group, &probe.name);
                    Profile {
                        group: probe.group,
                        event: probe.name,
                        hits: probe.hits,
                        missed: probe.missed,
                        filtered: probe.filtered,
                        dropped: probe.dropped,
                        pending,
                        abandoned,
                    }
                })
                .collect();
            self.totals(elapsed);
        }
        self.expectations.iter_mut().for_each(Expectation::end);
    }

    fn verdict(&self, stop: Option<Stop>, guest: &Guest) -> (Verdict, String) {
        let wanted = &self.test.test.end;
        let end = guest.end().unwrap_or(End::Ended);
        if stop == Some(Stop::Interrupted) {
            return (Verdict::Interrupted, "the run was interrupted".to_owned());
        }
        if let End::Killed(_) | End::Exit(_) = end {
            return (Verdict::QemuFailed, end.to_string());
        }
        let watched = guest.watched();
        if let Some(text) = watched.panic_text(&guest.console()).filter(|_| *wanted != WantedEnd::Panic) {
            return (Verdict::Panic, text);
        }
        if !self.has_booted(guest) {
            let reason = self.problem.clone().unwrap_or_else(|| match &end {
                End::Ended => format!("after {:.0} s the kernel had not started", guest.elapsed().as_secs_f64()),
                end => format!("the kernel had not started when the machine ended ({end})"),
            });
            return (Verdict::NeverBooted, reason);
        }
        let may_oops = self.test.test.allow_oops || *wanted == WantedEnd::Panic;
        if let Some(text) = watched.oops_text().filter(|_| !may_oops) {
            return (Verdict::Oops, text);
        }
        match stop {
            Some(Stop::Hang) => {
                let time = self.test.test.hang().as_secs_f64();
                return (Verdict::Hang, format!("no hit and nothing on the console for {time:.1} s"));
            }
            Some(Stop::Timeout) => {
                return (
                    Verdict::Timeout,
                    format!("it took longer than {:.1} s", self.test.test.timeout().as_secs_f64()),
                );
            }
            Some(Stop::Loop) => {
                return (Verdict::Reboot, format!("the guest reboots in a loop: its kernel started {LOOP} times"));
            }
            _ => {}
        }
        let as_wanted = match wanted {
            WantedEnd::PowerOff => end == End::PowerOff,
            WantedEnd::Reboot => end == End::Reset,
            WantedEnd::Panic => watched.panic.is_some(),
            WantedEnd::Hit(_) | WantedEnd::Console(_) => stop == Some(Stop::Wanted) || self.end_seen,
            WantedEnd::Done => true,
            WantedEnd::Exit(wanted) => matches!(&end, End::Quit { status, .. } if i32::from(*status) == *wanted),
        };
        if !as_wanted && end == End::Reset {
            return (Verdict::Reboot, format!("the guest rebooted, and had to end by {wanted}"));
        }
        if !as_wanted {
            let found = if *wanted == WantedEnd::Panic { "without a panic".to_owned() } else { format!("by {end}") };
            return (Verdict::Fail, format!("the run ended {found}, and had to end by {wanted}"));
        }
        self.seen()
    }

    fn has_booted(&self, guest: &Guest) -> bool {
        // A guest that is no Linux has no such function.
        let has_start = matches!(self.target.symbol(None, "start_kernel"), SymbolLookup::One { .. });
        let counted = self.counts.iter().any(|probe| probe.hits > 0);
        let seen = if has_start { guest.watched().starts > 0 } else { self.found };
        seen || counted
    }

    /// A probe that has not hit, though nobody says that it may not.
    fn silent_probe(&self) -> Option<(&str, &str)> {
        let names = self.probes.iter().map(|probe| (probe.definition.group.as_str(), probe.definition.event.as_str()));
        names.into_iter().find(|(group, event)| {
            let hits = self.counts.iter().filter(|probe| probe.group == *group && probe.event == *event);
            hits.map(|probe| probe.hits).sum::<u64>() == 0
                && !self.expectations.iter().any(|one| one.allows_none(group, event))
        })
    }

    /// What the probes saw.
    fn seen(&self) -> (Verdict, String) {
        let broken: Vec<&Expectation> =
            self.expectations.iter().filter(|one| matches!(one.state(), State::Broken(_))).collect();
        if let [first, rest @ ..] = broken.as_slice() {
            let State::Broken(reason) = first.state() else { return (Verdict::Fail, String::new()) };
            let more = if rest.is_empty() { String::new() } else { format!(", and {} more", rest.len()) };
            return (Verdict::Fail, format!("expected: {}; found: {reason}{more}", first.text));
        }
        if self.probes.is_empty() && self.expectations.is_empty() {
            return (Verdict::Fail, "the test has neither a probe nor an expectation: it tests nothing".to_owned());
        }
        if let Some(problem) = self.problem.as_ref().filter(|_| !self.probes.is_empty()) {
            return (Verdict::Fail, format!("the probes were not armed: {problem}"));
        }
        if let Some((group, event)) = self.silent_probe() {
            let next = "say never, or hits = 0, if that is meant";
            return (Verdict::Fail, format!("the probe {group}/{event} never hit: {next}"));
        }
        (Verdict::Pass, String::new())
    }
}

fn names(wanted: &str, probe: &Profile) -> bool {
    match wanted.split_once('/') {
        Some((group, event)) => probe.group == group && probe.event == event,
        None => probe.event == wanted,
    }
}
