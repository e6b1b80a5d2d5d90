//! The guest's own KTAP (KUnit, kselftest), read from its console as leniently as the kernel's `kunit.py` reads it.
//!
//! A console holds more than KTAP: time stamps, prefixes, other lines between those that count, several outputs one after the
//! other. What the kernel prints (with a time stamp) and what a process prints are read apart, because they come in any order.
//! Levels are told by indentation, as KTAP has it, and by plans where somebody forgot to indent. The guest is not trusted:
//! lines, names, depth and the number of results that are kept have bounds; what is beyond them is counted.

use super::guest_lines::{Kind, Line, Start};
use super::verdict::{GuestTest, Outcome};

/// Bytes of a line that are looked at.
const MAX_LINE: usize = 4 << 10;
/// Characters of a name and of a reason.
const MAX_TEXT: usize = 200;
/// Levels.
const MAX_DEPTH: usize = 16;
/// Results that are kept.
const MAX_TESTS: usize = 10_000;
/// Names of suites that are kept for a message.
const MAX_SEEN: usize = 10;
/// Names of failed tests in a reason.
const SHOWN: usize = 3;

/// Results without subtests; and those with, where they say something else than their subtests do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

impl Counts {
    fn add(&mut self, other: Self) {
        self.passed = self.passed.saturating_add(other.passed);
        self.failed = self.failed.saturating_add(other.failed);
        self.skipped = self.skipped.saturating_add(other.skipped);
    }

    fn of(outcome: Outcome) -> Self {
        let mut counts = Self::default();
        match outcome {
            Outcome::Ok => counts.passed = 1,
            Outcome::NotOk => counts.failed = 1,
            Outcome::Skipped => counts.skipped = 1,
        }
        counts
    }

    fn all(self) -> u64 {
        self.passed.saturating_add(self.failed).saturating_add(self.skipped)
    }
}

/// A level that is not over: a document, or a test with subtests.
#[derive(Debug, Default)]
struct Level {
    name: Option<String>,
    /// Of its first line.
    indent: usize,
    plan: Option<u64>,
    results: u64,
    counts: Counts,
    /// Of `counts`, what `tests` does not have.
    unlisted: Counts,
    tests: Vec<GuestTest>,
}

impl Level {
    fn is_fresh(&self) -> bool {
        self.name.is_none() && self.plan.is_none() && self.results == 0
    }

    fn has_all(&self) -> bool {
        self.plan.is_some_and(|plan| self.results >= plan)
    }
}

/// One source of lines: the kernel, or processes.
#[derive(Debug, Default)]
struct Document {
    /// What stands before every line.
    prefix: String,
    /// The document itself first; none between documents.
    levels: Vec<Level>,
}

/// Reads a console for KTAP.
#[derive(Debug)]
pub(crate) struct GuestKtap {
    /// Only this suite; all if there is none.
    suite: Option<Suite>,
    kernel: Document,
    processes: Document,
    line: Vec<u8>,
    /// Documents that were begun.
    documents: u64,
    counts: Counts,
    unlisted: Counts,
    tests: Vec<GuestTest>,
    /// Tests in memory, in levels that are not over too.
    listed: usize,
    /// Suites that are not meant.
    seen: Vec<String>,
}

/// Which suite is meant.
#[derive(Debug)]
pub(crate) enum Suite {
    /// This name.
    Name(String),
    /// Any that matches.
    Regex(regex::Regex),
}

impl Suite {
    fn is(&self, name: &str) -> bool {
        match self {
            Self::Name(wanted) => wanted == name,
            Self::Regex(regex) => regex.is_match(name),
        }
    }
}

impl GuestKtap {
    pub(crate) fn new(suite: Option<Suite>) -> Self {
        Self {
            suite,
            kernel: Document::default(),
            processes: Document::default(),
            line: Vec::new(),
            documents: 0,
            counts: Counts::default(),
            unlisted: Counts::default(),
            tests: Vec::new(),
            listed: 0,
            seen: Vec::new(),
        }
    }

    /// The console goes on.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let room = MAX_LINE.saturating_sub(self.line.len());
            self.line.extend(piece.iter().take(room));
            if piece.ends_with(b"\n") {
                let line = std::mem::take(&mut self.line);
                self.line(&crate::escape::line(&line));
            }
        }
    }

    /// The console is over, and so is whatever is open.
    pub(crate) fn finish(&mut self) {
        if !self.line.is_empty() {
            let line = std::mem::take(&mut self.line);
            self.line(&crate::escape::line(&line));
        }
        for from_kernel in [true, false] {
            self.close_to(from_kernel, 0);
        }
    }

    /// Whether all that was begun is over; and something was. A document without a plan is over only with the console.
    pub(crate) fn is_complete(&self) -> bool {
        self.documents > 0 && self.kernel.levels.is_empty() && self.processes.levels.is_empty()
    }

    /// Whether what came passes.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn judge(&self) -> Result<(), String> {
        let Counts { passed, failed, skipped } = self.counts;
        if failed > 0 {
            let mut names = Vec::new();
            for test in &self.tests {
                failed_names(test, "", &mut names);
            }
            let more = if names.len() == SHOWN && failed > SHOWN as u64 { ", ..." } else { "" };
            return Err(format!("{failed} of {} failed: {}{more}", self.counts.all(), names.join(", ")));
        }
        if self.documents == 0 {
            return Err("no KTAP on the console".to_owned());
        }
        if self.suite.is_some() && self.counts.all() == 0 {
            let seen = if self.seen.is_empty() { "none".to_owned() } else { self.seen.join(", ") };
            return Err(format!("no such suite; there came {seen}"));
        }
        if passed == 0 && skipped > 0 {
            return Err(format!("nothing ran: {skipped} skipped"));
        }
        if passed == 0 {
            return Err("no result came".to_owned());
        }
        let is_open = |document: &Document| {
            document.levels.len() > 1 || document.levels.first().is_some_and(|level| level.plan.is_some())
        };
        if self.suite.is_none() && (is_open(&self.kernel) || is_open(&self.processes)) {
            return Err("it is not over".to_owned());
        }
        Ok(())
    }

    #[cfg(test)]
    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    /// The results, as far as they are kept.
    pub(crate) fn tests(&self) -> Vec<GuestTest> {
        let mut tests = self.tests.clone();
        tests.extend(rest(self.unlisted));
        tests
    }

    fn document(&mut self, from_kernel: bool) -> &mut Document {
        if from_kernel { &mut self.kernel } else { &mut self.processes }
    }

    fn line(&mut self, text: &str) {
        let Line { from_kernel, text } = Line::new(text);
        let document = self.document(from_kernel);
        if let Some(Start { prefix, indent, is_exact }) = Start::find(text) {
            // Within a document only a line of its own begins a level: words about KTAP may stand in any message.
            if document.levels.is_empty() || is_exact || prefix == document.prefix {
                self.start(from_kernel, prefix, indent);
                return;
            }
        }
        let document = self.document(from_kernel);
        if document.levels.is_empty() {
            return;
        }
        let text = text.strip_prefix(document.prefix.as_str()).unwrap_or(text);
        let indent = text.len() - text.trim_start().len();
        match Kind::of(text.trim()) {
            Kind::Subtest(name) => self.subtest(from_kernel, indent, name),
            Kind::Plan { count, skip } => self.plan(from_kernel, count, skip),
            Kind::Result { outcome, name, reason } => {
                let test = GuestTest { name: short(name), outcome, reason: short(reason), subtests: Vec::new() };
                self.result(from_kernel, indent, test);
            }
            Kind::BailOut(reason) => {
                self.leaf(from_kernel, failure("Bail out!", short(reason)));
                self.close_to(from_kernel, 0);
            }
            Kind::Other => {}
        }
    }

    /// A version line.
    fn start(&mut self, from_kernel: bool, prefix: &str, indent: usize) {
        let document = self.document(from_kernel);
        let first = document.levels.first().map(|level| level.indent);
        if first.is_none_or(|first| indent <= first) {
            self.close_to(from_kernel, 0);
            self.documents += 1;
            let document = self.document(from_kernel);
            prefix.clone_into(&mut document.prefix);
            document.levels.push(Level { indent, ..Level::default() });
            return;
        }
        self.deeper(from_kernel, indent, None);
    }

    /// A level below those that are indented less.
    fn deeper(&mut self, from_kernel: bool, indent: usize, name: Option<String>) {
        let levels = &self.document(from_kernel).levels;
        let keep = levels.iter().take_while(|level| level.indent < indent).count().max(1);
        self.close_to(from_kernel, keep);
        let levels = &mut self.document(from_kernel).levels;
        if levels.len() < MAX_DEPTH {
            levels.push(Level { name, indent, ..Level::default() });
        } else {
            self.leaf(from_kernel, failure("subtests", format!("more than {MAX_DEPTH} levels")));
        }
    }

    /// `# Subtest: NAME`: names the level that has just begun, or begins one, as kernels before 6.2 do.
    fn subtest(&mut self, from_kernel: bool, indent: usize, name: &str) {
        let levels = &mut self.document(from_kernel).levels;
        let name = short(name);
        match levels.as_mut_slice() {
            [_, .., top] if top.is_fresh() => top.name = Some(name),
            _ => self.deeper(from_kernel, indent, Some(name)),
        }
    }

    fn plan(&mut self, from_kernel: bool, count: u64, skip: Option<&str>) {
        let Some(top) = self.document(from_kernel).levels.last_mut().filter(|top| top.plan.is_none()) else { return };
        top.plan = Some(count);
        if let Some(reason) = skip {
            let (name, reason) = (top.name.clone().unwrap_or_else(|| "all".to_owned()), short(reason));
            self.leaf(from_kernel, GuestTest { name, outcome: Outcome::Skipped, reason, subtests: Vec::new() });
        }
        self.close_if_whole(from_kernel);
    }

    fn result(&mut self, from_kernel: bool, indent: usize, mut test: GuestTest) {
        let levels = &self.document(from_kernel).levels;
        let mut parents = levels.iter().take_while(|level| level.indent <= indent).count().max(1);
        // All of its subtests are there: it can only be the level's own result.
        if parents == levels.len() && parents > 1 && levels.last().is_some_and(Level::has_all) {
            parents -= 1;
        }
        self.close_to(from_kernel, parents + 1);
        let Some(level) = self.pop_if(from_kernel, parents) else {
            self.leaf(from_kernel, test);
            return self.close_if_whole(from_kernel);
        };
        let Level { mut counts, unlisted, tests, .. } = self.whole(level);
        test.subtests = tests;
        if counts.failed > 0 {
            test.outcome = Outcome::NotOk;
        } else if test.outcome == Outcome::NotOk || counts.all() == 0 {
            // It has failed, or was skipped, by itself.
            counts.add(Counts::of(test.outcome));
        }
        self.add(from_kernel, test, counts, unlisted);
        self.close_if_whole(from_kernel);
    }

    fn pop_if(&mut self, from_kernel: bool, more_than: usize) -> Option<Level> {
        let levels = &mut self.document(from_kernel).levels;
        if levels.len() > more_than { levels.pop() } else { None }
    }

    fn leaf(&mut self, from_kernel: bool, test: GuestTest) {
        let counts = Counts::of(test.outcome);
        self.add(from_kernel, test, counts, Counts::default());
    }

    /// A result of the topmost level; without one, of the document that has just ended.
    fn add(&mut self, from_kernel: bool, test: GuestTest, counts: Counts, unlisted: Counts) {
        let is_of_document = self.document(from_kernel).levels.len() <= 1;
        if let (true, Some(suite)) = (is_of_document, &self.suite)
            && !suite.is(&test.name)
        {
            self.listed = self.listed.saturating_sub(size(&test.subtests));
            if self.seen.len() < MAX_SEEN {
                self.seen.push(test.name);
            }
            if let Some(level) = self.document(from_kernel).levels.last_mut() {
                level.results = level.results.saturating_add(1);
            }
            return;
        }
        let is_listed = self.listed < MAX_TESTS;
        self.listed += usize::from(is_listed);
        let Some(level) = self.document(from_kernel).levels.last_mut() else { return };
        level.results = level.results.saturating_add(1);
        level.counts.add(counts);
        level.unlisted.add(if is_listed { unlisted } else { counts });
        if is_listed {
            level.tests.push(test);
        }
    }

    /// With a failure for what was planned and did not come.
    fn whole(&mut self, mut level: Level) -> Level {
        let missing = level.plan.map_or(0, |plan| plan.saturating_sub(level.results));
        if missing == 0 {
            return level;
        }
        level.counts.failed = level.counts.failed.saturating_add(missing);
        if self.listed >= MAX_TESTS {
            level.unlisted.failed = level.unlisted.failed.saturating_add(missing);
            return level;
        }
        self.listed += 1;
        let name =
            if missing == 1 { "1 result is missing".to_owned() } else { format!("{missing} results are missing") };
        let reason = format!("the plan says {}, {} came", level.plan.unwrap_or_default(), level.results);
        level.tests.push(failure(&name, reason));
        level
    }

    /// A document whose plan is fulfilled is over. One without a plan never is, nor one of which some are missing.
    fn close_if_whole(&mut self, from_kernel: bool) {
        let levels = &self.document(from_kernel).levels;
        if levels.len() == 1 && levels.first().is_some_and(Level::has_all) {
            self.close_to(from_kernel, 0);
        }
    }

    /// Ends the levels above the first `keep`, though their own results have not come.
    fn close_to(&mut self, from_kernel: bool, keep: usize) {
        while let Some(level) = self.pop_if(from_kernel, keep) {
            let is_document = self.document(from_kernel).levels.is_empty();
            if is_document {
                // What else was planned may be of another suite.
                let level = if self.suite.is_some() { level } else { self.whole(level) };
                self.counts.add(level.counts);
                self.unlisted.add(level.unlisted);
                self.tests.extend(level.tests);
            } else {
                let Level { name, mut counts, unlisted, tests, .. } = self.whole(level);
                if counts.failed == 0 {
                    counts.failed = 1;
                }
                let name = name.unwrap_or_else(|| "a test".to_owned());
                let reason = "its own result did not come".to_owned();
                let test = GuestTest { name, outcome: Outcome::NotOk, reason, subtests: tests };
                self.add(from_kernel, test, counts, unlisted);
            }
        }
    }
}

fn failure(name: &str, reason: String) -> GuestTest {
    GuestTest { name: name.to_owned(), outcome: Outcome::NotOk, reason, subtests: Vec::new() }
}

/// One result for those that are not kept.
fn rest(unlisted: Counts) -> Option<GuestTest> {
    let name = format!("{} more", unlisted.all());
    let outcome = if unlisted.failed > 0 { Outcome::NotOk } else { Outcome::Ok };
    let reason = format!("only the first {MAX_TESTS} are listed");
    (unlisted.all() > 0).then_some(GuestTest { name, outcome, reason, subtests: Vec::new() })
}

fn size(tests: &[GuestTest]) -> usize {
    tests.iter().map(|test| 1 + size(&test.subtests)).sum()
}

/// `suite.case` of the first failed tests without subtests that failed.
fn failed_names(test: &GuestTest, parent: &str, names: &mut Vec<String>) {
    if test.outcome != Outcome::NotOk || names.len() >= SHOWN {
        return;
    }
    let name = if parent.is_empty() { test.name.clone() } else { format!("{parent}.{}", test.name) };
    let before = names.len();
    for subtest in &test.subtests {
        failed_names(subtest, &name, names);
    }
    if names.len() == before {
        names.push(name);
    }
}

fn short(text: &str) -> String {
    match text.char_indices().nth(MAX_TEXT) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}
