//! Expectations: compiled against the test's probes, fed with what happens, asked at the end.
//!
//! Each keeps only what its verdict needs (counts, first times, samples of latencies) and the last events that it was about,
//! so a run may have any number of events.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use qkprobe_lang::{Definition, Filter};
use regex::Regex;

use super::count::Count;
use super::file::{Expect, ExpectSpec, Latency};
use super::guest_ktap::{GuestKtap, Suite};
use super::latency;
use super::retval::{Retval, returned};
use super::selector::Selector;
use super::verdict::GuestTest;
use crate::ImageTarget;
use crate::check::Checked;
use crate::event::Event;
use crate::record;
use crate::units::{counted, nanoseconds};

/// Events that an expectation shows.
const SHOWN: usize = 5;
/// Samples of a latency; further ones are counted and not judged.
const MAX_SAMPLES: usize = 1_000_000;

/// What was decided so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It may still go either way, or it holds only if nothing more happens.
    Open,
    /// It holds whatever comes.
    Held,
    /// It cannot hold any more; the reason.
    Broken(String),
}

/// What an expectation is about.
#[derive(Debug)]
enum Subject {
    Hits {
        selector: Selector,
        count: Count,
        hits: u64,
    },
    All {
        selector: Selector,
        filter: Filter,
        definition: Arc<Definition>,
        seen: u64,
    },
    Retval {
        selector: Selector,
        field: String,
        wanted: Retval,
        seen: u64,
    },
    Latency {
        selector: Selector,
        field: String,
        bounds: Latency,
        samples: Vec<u64>,
        dropped: u64,
    },
    /// `first` comes before any `second`.
    Before {
        first: Selector,
        second: Selector,
    },
    Sequence {
        members: Vec<Selector>,
        at: usize,
    },
    Console {
        text: String,
        regex: Option<Regex>,
        line: Vec<u8>,
    },
    Ktap(Box<GuestKtap>),
}

/// One thing that must hold. An `[[expect]]` with several keys becomes several.
#[derive(Debug)]
pub struct Expectation {
    /// For people.
    pub text: String,
    /// The line in the test's file.
    pub line: usize,
    subject: Subject,
    within: Option<Duration>,
    state: State,
    /// The last events that it was about.
    events: VecDeque<String>,
}

impl Expectation {
    /// Compiles an `[[expect]]`.
    ///
    /// # Errors
    /// A probe that the test does not have, a filter that does not fit it, a field that is missing.
    pub fn compile(expect: &Expect, probes: &[Checked], target: &ImageTarget<'_>) -> Result<Vec<Self>, String> {
        let Expect { line, spec } = expect;
        let within = spec.within;
        let limit = within.map(|limit| format!(" within {}", nanoseconds(limit.as_nanos()))).unwrap_or_default();
        let make = |text: String, subject: Subject| Self {
            text: format!("{text}{limit}"),
            line: *line,
            subject,
            within,
            state: State::Open,
            events: VecDeque::new(),
        };
        let select = |text: &str| Selector::new(text, probes, target);
        if let Some(text) = &spec.never {
            let count = Count { least: 0, most: 0 };
            let subject = Subject::Hits { selector: select(text)?, count, hits: 0 };
            return Ok(vec![make(format!("{text} never hits"), subject)]);
        }
        if let Some(members) = &spec.sequence {
            let text = members.join(", then ");
            let members = members.iter().map(|member| select(member)).collect::<Result<Vec<_>, _>>()?;
            if let Some(member) = members.iter().find(|member| member.counts_only) {
                return Err(format!("'{}' only counts: it has no events to be ordered", member.text));
            }
            return Ok(vec![make(text, Subject::Sequence { members, at: 0 })]);
        }
        if let Some(text) = &spec.console {
            let regex = regex("console", text)?;
            let subject = Subject::Console { text: text.clone(), regex, line: Vec::new() };
            return Ok(vec![make(format!("the console says {text}"), subject)]);
        }
        if spec.ktap.is_some() {
            let suite = match &spec.suite {
                Some(name) => Some(regex("suite", name)?.map_or_else(|| Suite::Name(name.clone()), Suite::Regex)),
                None => None,
            };
            let name = spec.suite.as_ref().map(|name| format!(" suite {name}")).unwrap_or_default();
            let subject = Subject::Ktap(Box::new(GuestKtap::new(suite)));
            return Ok(vec![make(format!("the guest's KTAP{name} passes"), subject)]);
        }
        let text = spec.event.as_deref().unwrap_or_default();
        Self::of_event(text, spec, probes, target, &select, &make)
    }

    fn of_event(
        text: &str,
        spec: &ExpectSpec,
        probes: &[Checked],
        target: &ImageTarget<'_>,
        select: &dyn Fn(&str) -> Result<Selector, String>,
        make: &dyn Fn(String, Subject) -> Self,
    ) -> Result<Vec<Self>, String> {
        let selector = select(text)?;
        let (counts_only, is_it) =
            (selector.counts_only, |probe: &&Checked| selector.names(&probe.definition.group, &probe.definition.event));
        let probe = probes.iter().find(is_it).ok_or("no probe")?;
        let definition = Arc::clone(&probe.definition);
        let events = |key: &str| {
            if counts_only { Err(format!("'{key}': '{text}' only counts: it has no events")) } else { select(text) }
        };
        // The argument that fetches this variable, by the name that the user gave it.
        let field = |variable: &str| {
            let found = definition.args.iter().find(|arg| arg.text.split(':').next() == Some(variable));
            found.map(|arg| arg.name.clone()).ok_or_else(|| {
                format!("'{text}' does not fetch {variable}: add it to the definition, as in r:NAME PLACE x={variable}")
            })
        };
        let mut list = Vec::new();
        if let Some(filter) = &spec.all {
            let compiled = Filter::compile(filter, &definition, target).map_err(|error| error.to_string())?;
            let subject = Subject::All {
                selector: events("all")?,
                filter: compiled,
                definition: Arc::clone(&definition),
                seen: 0,
            };
            list.push(make(format!("every {text} has {filter}"), subject));
        }
        if let Some(wanted) = &spec.retval {
            let subject = Subject::Retval {
                selector: events("retval")?,
                field: field("$retval")?,
                wanted: wanted.clone(),
                seen: 0,
            };
            list.push(make(format!("every {text} returns {}", wanted.text), subject));
        }
        if let Some(bounds) = &spec.latency {
            let shown: Vec<_> =
                bounds.bounds().map(|(name, _, most)| format!("{name} {}", nanoseconds(most.as_nanos()))).collect();
            let subject = Subject::Latency {
                selector: events("latency")?,
                field: field("$latency")?,
                bounds: bounds.clone(),
                samples: Vec::new(),
                dropped: 0,
            };
            list.push(make(format!("{text} takes at most {}", shown.join(", ")), subject));
        }
        for (other, comes_first) in [(&spec.before, true), (&spec.after, false)] {
            let Some(other) = other else { continue };
            let key = if comes_first { "before" } else { "after" };
            let (mine, theirs) = (events(key)?, select(other)?);
            if theirs.counts_only {
                return Err(format!("'{key}': '{other}' only counts: it has no events"));
            }
            let (first, second) = if comes_first { (mine, theirs) } else { (theirs, mine) };
            list.push(make(format!("{text} hits {key} {other}"), Subject::Before { first, second }));
        }
        if let Some(count) = spec.hits {
            list.push(make(format!("{text} hits {count}"), Subject::Hits { selector, count, hits: 0 }));
        } else if list.is_empty() {
            list.push(make(format!("{text} hits"), Subject::Hits { selector, count: Count::ANY, hits: 0 }));
        }
        Ok(list)
    }

    /// What was decided.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The guest's own tests that it was about.
    #[must_use]
    pub fn subtests(&self) -> Vec<GuestTest> {
        if let Subject::Ktap(ktap) = &self.subject { ktap.tests() } else { Vec::new() }
    }

    /// The last events that it was about, fit for a terminal.
    pub fn events(&self) -> impl Iterator<Item = &str> {
        self.events.iter().map(String::as_str)
    }

    /// Whether it says something about this event: a probe that nobody expects anything of has to hit.
    #[must_use]
    pub fn is_about(&self, group: &str, event: &str) -> bool {
        match &self.subject {
            Subject::Hits { selector, .. }
            | Subject::All { selector, .. }
            | Subject::Retval { selector, .. }
            | Subject::Latency { selector, .. } => selector.names(group, event),
            Subject::Before { first, second } => first.names(group, event) || second.names(group, event),
            Subject::Sequence { members, .. } => members.iter().any(|member| member.names(group, event)),
            Subject::Console { .. } | Subject::Ktap(_) => false,
        }
    }

    /// Whether it allows that this event never hits.
    #[must_use]
    pub fn allows_none(&self, group: &str, event: &str) -> bool {
        match &self.subject {
            Subject::Hits { selector, count, .. } => count.least == 0 && selector.names(group, event),
            Subject::Before { second, .. } => second.names(group, event),
            _ => false,
        }
    }

    fn note(&mut self, event: &Event) {
        self.events.push_back(event.to_string());
        if self.events.len() > SHOWN {
            self.events.pop_front();
        }
    }

    /// Time has come so far; an expectation whose time is over is decided.
    pub fn at(&mut self, now: Duration) {
        let Some(limit) = self.within.filter(|limit| self.state == State::Open && now > *limit) else { return };
        self.state = match self.now() {
            Ok(()) => State::Held,
            Err(reason) => State::Broken(format!("{reason} by {}", nanoseconds(limit.as_nanos()))),
        };
    }

    /// An event happened.
    pub fn event(&mut self, event: &Event, target: &ImageTarget<'_>) {
        self.at(Duration::try_from_secs_f64(event.time).unwrap_or_default());
        if self.state != State::Open {
            return;
        }
        let mut about = false;
        let state = match &mut self.subject {
            Subject::Hits { selector, count, hits } if !selector.counts_only && selector.matches(event, target) => {
                about = true;
                *hits += 1;
                judge_hits(*count, *hits)
            }
            Subject::All { selector, filter, definition, seen } if selector.matches(event, target) => {
                *seen += 1;
                if record::passes(event, filter, definition, target) {
                    State::Open
                } else {
                    about = true;
                    State::Broken(format!("hit {seen} does not pass"))
                }
            }
            Subject::Retval { selector, field, wanted, seen } if selector.matches(event, target) => {
                *seen += 1;
                let found = event.number(field).map(returned);
                if found.is_some_and(|found| wanted.holds(found)) {
                    State::Open
                } else {
                    about = true;
                    let found = found.map_or("(fault)".to_owned(), |found| found.to_string());
                    State::Broken(format!("return {seen} is {found}"))
                }
            }
            Subject::Latency { selector, field, samples, dropped, .. } if selector.matches(event, target) => {
                let sample = event.number(field).and_then(|ns| u64::try_from(ns).ok());
                if samples.len() < MAX_SAMPLES {
                    samples.extend(sample)
                } else {
                    *dropped += 1
                }
                about = true;
                State::Open
            }
            Subject::Before { first, second } => {
                if first.matches(event, target) {
                    about = true;
                    State::Held
                } else if second.matches(event, target) {
                    about = true;
                    State::Broken(format!("{} hit first", second.text))
                } else {
                    State::Open
                }
            }
            Subject::Sequence { members, at } => match members.get(*at) {
                Some(member) if member.matches(event, target) => {
                    about = true;
                    *at += 1;
                    if *at == members.len() { State::Held } else { State::Open }
                }
                _ => State::Open,
            },
            _ => State::Open,
        };
        self.state = state;
        if about {
            self.note(event);
        }
    }

    /// The guest wrote to its console.
    pub fn console(&mut self, bytes: &[u8], now: Duration) {
        /// A longer line is looked at in parts.
        const MAX_LINE: usize = 64 << 10;
        self.at(now);
        if let Subject::Ktap(ktap) = &mut self.subject {
            // What comes after a failure is still told.
            ktap.bytes(bytes);
            if self.state == State::Open && ktap.is_complete() {
                self.state = ktap.judge().map_or_else(State::Broken, |()| State::Open);
            }
            return;
        }
        if self.state != State::Open {
            return;
        }
        let Subject::Console { text, regex, line } = &mut self.subject else { return };
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            line.extend(piece.iter().filter(|byte| **byte != b'\r'));
            let shown = String::from_utf8_lossy(line);
            let found = match regex {
                Some(regex) => regex.is_match(shown.trim_end_matches('\n')),
                None => shown.contains(text.as_str()),
            };
            if found {
                self.state = State::Held;
                return;
            }
            if piece.ends_with(b"\n") || line.len() > MAX_LINE {
                line.clear();
            }
        }
    }

    /// The totals of probes that only count.
    pub fn totals(&mut self, total: impl Fn(&dyn Fn(&str, &str) -> bool) -> u64, now: Duration) {
        if self.state != State::Open {
            return;
        }
        if let Subject::Hits { selector, count, hits } = &mut self.subject
            && selector.counts_only
        {
            *hits = total(&|group, event| selector.names(group, event)).max(*hits);
            self.state = judge_hits(*count, *hits);
        }
        self.at(now);
    }

    /// Nothing more will happen.
    pub fn end(&mut self) {
        if let Subject::Ktap(ktap) = &mut self.subject {
            ktap.finish();
        }
        if self.state == State::Open {
            self.state = match self.now() {
                Ok(()) => State::Held,
                Err(reason) => State::Broken(reason),
            };
        }
    }

    /// Would it hold if this were the end?
    fn now(&self) -> Result<(), String> {
        match &self.subject {
            Subject::Hits { count, hits, .. } if count.contains(*hits) => Ok(()),
            Subject::Hits { hits, .. } => Err(counted(*hits, "hit")),
            Subject::All { seen, .. } | Subject::Retval { seen, .. } if *seen > 0 => Ok(()),
            Subject::All { .. } | Subject::Retval { .. } => Err("no hit".to_owned()),
            Subject::Latency { samples, .. } if samples.is_empty() => Err("no hit".to_owned()),
            Subject::Latency { samples, bounds, dropped, .. } => latency::judge(samples, bounds, *dropped),
            Subject::Before { first, .. } => Err(format!("{} did not hit", first.text)),
            Subject::Sequence { members, at } => {
                let missing = members.get(*at).map(|member| member.text.as_str()).unwrap_or_default();
                Err(format!("{at} of {} came, then no {missing}", members.len()))
            }
            Subject::Console { .. } => Err("it does not".to_owned()),
            Subject::Ktap(ktap) => ktap.judge(),
        }
    }

    /// Whether what is open only waits for the end: nothing that happens can make it hold any better.
    #[must_use]
    pub fn is_content(&self) -> bool {
        match &self.state {
            State::Held | State::Broken(_) => true,
            State::Open => self.within.is_none() && self.now().is_ok(),
        }
    }
}

/// What a text of the form `/REGEX/` means; `None` for any other.
fn regex(key: &str, text: &str) -> Result<Option<Regex>, String> {
    let inner = text.strip_prefix('/').and_then(|text| text.strip_suffix('/')).filter(|it| !it.is_empty());
    inner.map(Regex::new).transpose().map_err(|error| format!("{key} = '{text}': {error}"))
}

fn judge_hits(count: Count, hits: u64) -> State {
    if hits > count.most {
        State::Broken(counted(hits, "hit"))
    } else if hits >= count.least && count.most == u64::MAX {
        State::Held
    } else {
        State::Open
    }
}
