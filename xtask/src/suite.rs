//! The tests of all programs in one queue: so many at a time, whichever program they are of, the longest first.
//!
//! cargo builds the test programs and says where they are. A program that boots guests gives a job for each of its tests;
//! any other is one job. How long each took stands in a file in the target folder, and decides the order of the next run.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::process::output;

/// A test program that cargo has built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Program {
    /// The package and the target: `qkprobe-tests counts`.
    pub(crate) name: String,
    /// The package.
    pub(crate) package: String,
    pub(crate) file: PathBuf,
    /// Where its tests run: the package's folder.
    folder: PathBuf,
}

/// Builds test programs; cargo's messages about them go to the terminal.
///
/// # Errors
/// They do not build.
pub(crate) fn build(command: &mut Command) -> Result<Vec<Program>, String> {
    command.args(["--no-run", "--message-format", "json-render-diagnostics"]).stderr(Stdio::inherit());
    let done = command.output().map_err(|error| format!("cannot run cargo: {error}"))?;
    if !done.status.success() {
        return Err(format!("the tests do not build ({})", done.status));
    }
    let lines = String::from_utf8_lossy(&done.stdout).into_owned();
    let messages = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    Ok(messages.filter_map(|message| program(&message)).collect())
}

/// The program of one of cargo's messages, if it is about a test program.
fn program(message: &Value) -> Option<Program> {
    if message["reason"] != "compiler-artifact" || message["profile"]["test"] != true {
        return None;
    }
    let file = PathBuf::from(message["executable"].as_str()?);
    let manifest = Path::new(message["manifest_path"].as_str()?);
    // path+file:///.../cli#qkprobe@0.1.0, or path+file:///.../xtask#0.1.0
    let id = message["package_id"].as_str()?;
    let (path, version) = id.rsplit_once('#')?;
    let package = version.split_once('@').map_or_else(|| path.rsplit('/').next(), |(name, _)| Some(name))?.to_owned();
    let target = message["target"]["name"].as_str()?;
    let kind = message["target"]["kind"][0].as_str()?;
    let name = if kind == "test" { format!("{package} {target}") } else { format!("{package} ({kind})") };
    Some(Program { name, package, file, folder: manifest.parent()?.to_owned() })
}

/// Something to run.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    /// What is told of it: `counts::branches_add_up`, or the program's name.
    name: String,
    program: Program,
    arguments: Vec<String>,
    plan: Plan,
}

/// What is known of a job beforehand.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Plan {
    /// How many guests it runs at a time.
    pub(crate) guests: usize,
    /// How long it takes, about, if no run has measured it.
    pub(crate) seconds: f64,
}

impl Program {
    /// The same under another name.
    pub(crate) fn named(self, name: &str) -> Self {
        Self { name: name.to_owned(), ..self }
    }

    fn list(&self, filter: Option<&str>) -> Result<Vec<String>, String> {
        let list = output(self.command().args(["--list", "--format", "terse"]).args(filter))?;
        Ok(list.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect())
    }

    /// A job for each test. `plan` is asked about its name, which is `TARGET::TEST`; none: it is not wanted.
    ///
    /// # Errors
    /// The program does not list its tests.
    pub(crate) fn tests(&self, plan: impl Fn(&str) -> Option<Plan>) -> Result<Vec<Job>, String> {
        let target = self.name.rsplit(' ').next().unwrap_or_default();
        let job = |test: String| {
            let name = format!("{target}::{test}");
            let plan = plan(&name)?;
            Some(Job { name, program: self.clone(), arguments: vec!["--exact".to_owned(), test], plan })
        };
        Ok(self.list(None)?.into_iter().filter_map(job).collect())
    }

    /// One job for all of its tests whose names contain `filter`; none if there is none.
    ///
    /// # Errors
    /// The program does not list its tests.
    pub(crate) fn whole(&self, filter: Option<&str>) -> Result<Option<Job>, String> {
        let arguments = filter.into_iter().map(str::to_owned).collect();
        let plan = Plan { guests: 1, seconds: 10.0 };
        let job = Job { name: self.name.clone(), program: self.clone(), arguments, plan };
        Ok((!self.list(filter)?.is_empty()).then_some(job))
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.file);
        command.current_dir(&self.folder).env("CARGO_MANIFEST_DIR", &self.folder).stdin(Stdio::null());
        command
    }
}

/// How many tests went how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    passed: u64,
    failed: u64,
}

/// The totals of `test result: ok. 3 passed; 0 failed; ...`. A program that died before it said so has one failure at least.
fn counts(said: &str, success: bool) -> Counts {
    let line = said.lines().rev().find_map(|line| line.strip_prefix("test result: "));
    let number = |word: &str| {
        let text = line?.split(['.', ';']).find_map(|part| part.trim().strip_suffix(word))?;
        text.trim().parse().ok()
    };
    let failed = number(" failed").unwrap_or(0);
    Counts { passed: number(" passed").unwrap_or(0), failed: if success { failed } else { failed.max(1) } }
}

/// What the workers share.
#[derive(Debug)]
struct State {
    queue: VecDeque<Job>,
    /// How many guests may run, and how many jobs run with how many guests.
    room: usize,
    running: usize,
    guests: usize,
    all: usize,
    done: usize,
    totals: Counts,
    failures: Vec<String>,
    durations: Durations,
}

/// Seconds by the jobs' names.
type Durations = BTreeMap<String, f64>;

/// How jobs are run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct How<'a> {
    /// How many guests may run at a time.
    pub(crate) guests: usize,
    /// More environment variables.
    pub(crate) variables: &'a [(&'a str, &'a str)],
    /// The file that holds how long each took.
    pub(crate) memory: &'a Path,
}

/// Runs all jobs; shows what failed, and the totals.
///
/// # Errors
/// A test failed, or there was none.
pub(crate) fn run(jobs: Vec<Job>, how: How<'_>) -> Result<(), String> {
    let start = Instant::now();
    let durations = fs::read(how.memory).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let durations: Durations = durations.unwrap_or_default();
    let queue = in_order(jobs, &durations);
    let state = State {
        all: queue.len(),
        queue,
        room: how.guests,
        running: 0,
        guests: 0,
        done: 0,
        totals: Counts::default(),
        failures: Vec::new(),
        durations,
    };
    let (state, changed) = (Mutex::new(state), Condvar::new());
    thread::scope(|scope| {
        for _ in 0..how.guests {
            scope.spawn(|| {
                while let Some(job) = next(&state, &changed) {
                    let start = Instant::now();
                    let ended = job.run(how.variables);
                    lock(&state).finished(&job, &ended, start.elapsed());
                    changed.notify_all();
                }
            });
        }
    });
    let State { all, totals, failures, durations, .. } = state.into_inner().unwrap_or_else(PoisonError::into_inner);
    // Who cannot write it has another order next time.
    let _ = serde_json::to_vec_pretty(&durations).map(|text| fs::write(how.memory, text));
    for failure in &failures {
        println!("FAILED {failure}");
    }
    println!("{all} jobs, {} guests at a time, in {:.1} s", how.guests, start.elapsed().as_secs_f32());
    println!("{} passed, {} failed", totals.passed, totals.failed);
    match (totals.failed, totals.passed) {
        (0, 0) => Err("no test has this in its name".to_owned()),
        (0, _) => Ok(()),
        (failed, passed) => Err(format!("{failed} of {} tests failed", failed + passed)),
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The first job for whose guests there is room; waits for that. `None` when all are given out.
fn next(state: &Mutex<State>, changed: &Condvar) -> Option<Job> {
    let mut state = lock(state);
    loop {
        // One that wants more than there is ever runs alone.
        let (room, idle) = (state.room.saturating_sub(state.guests), state.running == 0);
        if let Some(at) = state.queue.iter().position(|job| job.plan.guests <= room || idle) {
            let job = state.queue.remove(at)?;
            state.guests += job.plan.guests;
            state.running += 1;
            return Some(job);
        }
        if state.queue.is_empty() {
            return None;
        }
        state = changed.wait(state).unwrap_or_else(PoisonError::into_inner);
    }
}

/// The longest first, so that the last ones are short and no worker is left alone with a long one.
fn in_order(mut jobs: Vec<Job>, durations: &Durations) -> VecDeque<Job> {
    let seconds = |job: &Job| durations.get(&job.name).copied().unwrap_or(job.plan.seconds);
    jobs.sort_by(|one, other| seconds(other).total_cmp(&seconds(one)));
    jobs.into()
}

impl Job {
    fn is_whole(&self) -> bool {
        self.name == self.program.name
    }

    fn run(&self, variables: &[(&str, &str)]) -> Result<Output, String> {
        let mut command = self.program.command();
        command.args(&self.arguments).envs(variables.iter().copied());
        command.output().map_err(|error| format!("cannot run {}: {error}", self.program.file.display()))
    }
}

impl State {
    fn finished(&mut self, job: &Job, ended: &Result<Output, String>, took: Duration) {
        let (text, success) = match ended {
            Ok(output) => {
                let (said, told) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
                (format!("{said}{told}"), output.status.success())
            }
            Err(error) => (error.clone(), false),
        };
        let found = counts(&text, success);
        self.running -= 1;
        self.guests -= job.plan.guests;
        self.done += 1;
        self.totals.passed += found.passed;
        self.totals.failed += found.failed;
        let mut line = String::new();
        let verdict = if found.failed == 0 { "ok" } else { "FAILED" };
        let _ =
            write!(line, "[{:>3}/{}] {verdict:<6} {:>6.1} s  {}", self.done, self.all, took.as_secs_f32(), job.name);
        if job.is_whole() {
            let _ = write!(line, ": {} passed, {} failed", found.passed, found.failed);
        }
        if found.failed != 0 {
            let _ = write!(line, "\n{}", text.trim_end());
            self.failures.push(job.name.clone());
        } else {
            self.durations.insert(job.name.clone(), (took.as_secs_f64() * 10.0).round() / 10.0);
        }
        println!("{line}");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(name: &str) -> Program {
        Program { name: name.to_owned(), package: "p".to_owned(), file: "/t/it".into(), folder: "/w/p".into() }
    }

    fn job(name: &str, guests: usize) -> Job {
        Job { name: name.to_owned(), program: of("p it"), arguments: Vec::new(), plan: Plan { guests, seconds: 10.0 } }
    }

    #[test]
    fn totals_of_a_program() {
        let said = "running 3 tests\ntest result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 4 filtered out; finished in 0.1s\n";
        assert_eq!(counts(said, false), Counts { passed: 2, failed: 1 });
        assert_eq!(counts("test result: ok. 12 passed; 0 failed; 0 ignored\n", true), Counts { passed: 12, failed: 0 });
        // One that dies, or fails at its end, has failed.
        assert_eq!(counts("running 3 tests\n", false), Counts { passed: 0, failed: 1 });
        assert_eq!(counts("test result: ok. 3 passed; 0 failed;\n", false), Counts { passed: 3, failed: 1 });
    }

    #[test]
    fn test_programs_among_cargos_messages() {
        let message = |id: &str, kind: &str, test: bool| {
            json!({"reason": "compiler-artifact", "package_id": id, "manifest_path": "/w/p/Cargo.toml", "executable": "/t/it",
                   "profile": {"test": test}, "target": {"name": "counts", "kind": [kind]}})
        };
        let found = program(&message("path+file:///w/p#qkprobe-tests@0.1.0", "test", true)).expect("a program");
        assert_eq!((found.name.as_str(), found.package.as_str()), ("qkprobe-tests counts", "qkprobe-tests"));
        assert_eq!(found.folder, std::path::Path::new("/w/p"));
        let found = program(&message("path+file:///w/xtask#0.1.0", "bin", true)).expect("a program");
        assert_eq!((found.name.as_str(), found.package.as_str()), ("xtask (bin)", "xtask"));
        assert_eq!(program(&message("path+file:///w/p#0.1.0", "test", false)), None);
        assert_eq!(program(&json!({"reason": "build-finished", "success": true})), None);
    }

    #[test]
    fn no_more_guests_than_there_is_room_for() {
        let queue = VecDeque::from([job("two", 2), job("three", 3), job("one", 1), job("four", 4), job("last", 1)]);
        let state = State {
            all: queue.len(),
            queue,
            room: 3,
            running: 0,
            guests: 0,
            done: 0,
            totals: Counts::default(),
            failures: Vec::new(),
            durations: Durations::new(),
        };
        let (state, changed) = (Mutex::new(state), Condvar::new());
        let take = || next(&state, &changed).expect("a job");
        let end = |job: &Job| lock(&state).finished(job, &Err("as the test wants it".to_owned()), Duration::ZERO);
        let (two, one) = (take(), take());
        assert_eq!((two.name.as_str(), one.name.as_str()), ("two", "one"));
        end(&two);
        let last = take();
        assert_eq!(last.name, "last");
        end(&one);
        end(&last);
        // Nothing else runs: then what wants more than there is may, too.
        for name in ["three", "four"] {
            let job = take();
            assert_eq!(job.name, name);
            end(&job);
        }
        assert!(next(&state, &changed).is_none());
        assert_eq!(lock(&state).totals, Counts { passed: 0, failed: 5 });
    }

    #[test]
    fn the_longest_first() {
        let durations = Durations::from([("a".to_owned(), 1.0), ("b".to_owned(), 70.0), ("c".to_owned(), 3.0)]);
        let order = in_order(vec![job("a", 1), job("p it", 1), job("b", 1), job("new", 1), job("c", 1)], &durations);
        assert_eq!(order.iter().map(|job| job.name.as_str()).collect::<Vec<_>>(), ["b", "p it", "new", "c", "a"]);
    }
}
