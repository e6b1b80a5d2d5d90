//! What the user sees while something takes long: on a terminal one live line below the finished ones, elsewhere plain
//! lines and a sign of life every 20 seconds. What goes on behind something else shows finished lines only.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How often the live line is drawn anew.
const REDRAW: Duration = Duration::from_millis(200);
/// How long plain output may stay silent.
const SIGN_OF_LIFE: Duration = Duration::from_secs(20);

/// Shared by all threads of one command. Cloning gives another handle.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    state: Arc<Mutex<State>>,
    start: Instant,
}

#[derive(Debug)]
struct State {
    terminal: bool,
    background: bool,
    active: BTreeMap<String, Step>,
    last_output: Instant,
}

#[derive(Debug)]
struct Step {
    what: String,
    since: Instant,
    measure: Option<Measure>,
}

/// How far a step has come.
#[derive(Debug)]
enum Measure {
    /// A folder that fills up, and the bytes it will hold at the end.
    Bytes(PathBuf, u64),
    /// A log that gets a line per file that was compiled.
    Lines(PathBuf),
}

impl Progress {
    /// Starts the thread that draws; it ends with the process. In the `background` the terminal belongs to another.
    pub(crate) fn new(background: bool) -> Self {
        let terminal = std::io::stderr().is_terminal() && !background;
        let state = State { terminal, background, active: BTreeMap::new(), last_output: Instant::now() };
        let progress = Self { state: Arc::new(Mutex::new(state)), start: Instant::now() };
        let drawer = progress.clone();
        thread::spawn(move || {
            loop {
                thread::sleep(REDRAW);
                drawer.redraw();
            }
        });
        progress
    }

    /// The other is done: from now on everything shows.
    pub(crate) fn to_foreground(&self) {
        let mut state = self.lock();
        state.terminal = std::io::stderr().is_terminal();
        state.background = false;
    }

    /// Says what `item` does now.
    pub(crate) fn step(&self, item: &str, what: &str) {
        self.begin(item, what, None);
    }

    /// The same for a download of `bytes` into `folder`.
    pub(crate) fn download(&self, item: &str, what: &str, folder: &Path, bytes: u64) {
        self.begin(item, &format!("{what}: {}", megabytes(bytes)), Some(Measure::Bytes(folder.to_owned(), bytes)));
    }

    /// The same for a build that writes `log`.
    pub(crate) fn build(&self, item: &str, what: &str, log: &Path) {
        self.begin(item, what, Some(Measure::Lines(log.to_owned())));
    }

    /// Prints a line that stays, and forgets what `item` was doing.
    pub(crate) fn done(&self, item: &str, what: &str) {
        let mut state = self.lock();
        state.active.remove(item);
        let at = self.start.elapsed();
        state.line(at, &format!("{item}: {what}"));
    }

    fn begin(&self, item: &str, what: &str, measure: Option<Measure>) {
        let mut state = self.lock();
        let step = Step { what: what.to_owned(), since: Instant::now(), measure };
        state.active.insert(item.to_owned(), step);
        if !state.terminal && !state.background {
            let at = self.start.elapsed();
            state.line(at, &format!("{item}: {what} ..."));
        }
    }

    fn redraw(&self) {
        let mut state = self.lock();
        if state.active.is_empty() || state.background {
            return;
        }
        let texts: Vec<String> =
            state.active.iter().map(|(item, step)| format!("{item}: {}", step.describe())).collect();
        let text = texts.join(" | ");
        let at = self.start.elapsed();
        if state.terminal {
            let text: String = text.chars().take(110).collect();
            eprint!("\r\x1b[K[{:5.1}s] {text}", at.as_secs_f32());
            let _ = std::io::stderr().flush();
        } else if state.last_output.elapsed() > SIGN_OF_LIFE {
            state.line(at, &text);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere must not hide the message that it printed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn line(&mut self, at: Duration, text: &str) {
        let clear = if self.terminal { "\r\x1b[K" } else { "" };
        eprintln!("{clear}[{:5.1}s] {text}", at.as_secs_f32());
        self.last_output = Instant::now();
    }
}

impl Step {
    fn describe(&self) -> String {
        let so_far = match &self.measure {
            Some(Measure::Bytes(folder, bytes)) => {
                let have = folder_size(folder).min(*bytes);
                format!(" ({}%)", (100 * have).checked_div(*bytes).unwrap_or(100))
            }
            Some(Measure::Lines(log)) => {
                let lines = std::fs::read(log).map_or(0, |log| log.iter().filter(|byte| **byte == b'\n').count());
                format!(" ({lines} files)")
            }
            None => String::new(),
        };
        format!("{}{so_far}, {:.0} s", self.what, self.since.elapsed().as_secs_f32())
    }
}

/// `bytes` for people.
pub(crate) fn megabytes(bytes: u64) -> String {
    format!("{} MB", bytes.div_ceil(1_000_000))
}

/// The bytes of the files in a folder and the folders in it.
fn folder_size(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => folder_size(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}
