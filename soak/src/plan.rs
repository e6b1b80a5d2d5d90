//! What a seed decides: the machine, the script, the probes, and what must hold of their counts.

use std::fmt::Write as _;

use qkprobe_harness::ImageTarget;
use qkprobe_harness::check::check;
use qkprobe_lang::ProbeConfig;
use qkprobe_symbols::{GuestAddr, KernelImage};

use crate::cells::{Cell, Shape};
use crate::code::{self, Code, Insn, Kind};
use crate::functions::{Function, Functions};
use crate::profile::Profile;
use crate::random::Random;
use crate::script::Script;

/// Of a hundred functions so many are ones that run, as the profile says.
const KNOWN_TO_RUN: u64 = 75;
/// Functions that run more often get no probe that records.
const QUIET: u64 = 20_000;
/// A function with more ways out gets no probe on each.
const MOST_EXITS: usize = 6;

/// One probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Probe {
    pub(crate) name: String,
    /// The whole line.
    pub(crate) line: String,
    pub(crate) action: &'static str,
}

/// What must hold of counts, by the probes' names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Relation {
    /// Both are executed as often; if `text` is given, as long as the guest reads the text between them like that.
    Same { first: String, second: String, text: Option<Text> },
    /// What cannot fault ends as often as it begins.
    Ends { before: String, after: String },
    /// What may fault does not end more often.
    EndsAtMost { before: String, after: String },
    /// Calls begin, and return or wait or never do; and they leave by these ways, if these are known.
    Calls { entry: String, returns: String, exits: Vec<String> },
    /// What the script does.
    Exactly { probe: String, hits: u64 },
}

/// A piece of text, and the line of the script that reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Text {
    pub(crate) line: u32,
    /// What the init program prints of the text of the image.
    pub(crate) fnv1a: String,
}

/// A boot.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) shape: Shape,
    pub(crate) script: Script,
    pub(crate) probes: Vec<Probe>,
    pub(crate) relations: Vec<Relation>,
    /// Places that are instructions and were refused, and places that are none and were not.
    pub(crate) misjudged: Vec<String>,
    /// Ends of instructions that cannot be awaited.
    pub(crate) refused_ends: usize,
}

/// What is known of the guest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known<'a> {
    pub(crate) cell: Cell,
    pub(crate) image: &'a KernelImage,
    pub(crate) target: ImageTarget<'a>,
    pub(crate) functions: &'a Functions,
    pub(crate) profile: &'a Profile,
}

impl Known<'_> {
    /// Whether a line is accepted; why not.
    pub(crate) fn check(&self, line: &str) -> Result<(), String> {
        let config = ProbeConfig::from_line(line, String::new()).map_err(|error| error.to_string())?;
        check(&[config], &self.target).map(drop).map_err(|errors| errors.join(" "))
    }

    fn begins(&self, addr: u64) -> bool {
        self.functions.is_begin(self.cell.kernel.arch(), addr)
    }
}

/// The plan of a seed, with so many probes at least.
///
/// # Errors
/// No objdump.
pub(crate) fn plan(known: Known<'_>, seed: u64, count: usize) -> Result<Plan, String> {
    let mut random = Random::new(seed);
    let shape = Shape::random(known.cell, &mut random);
    let (script, relations) = Script::random(known.cell, &shape, seed, &mut random);
    let mut builder = Builder {
        known,
        plan: Plan { shape, script, probes: Vec::new(), relations, misjudged: Vec::new(), refused_ends: 0 },
        random,
    };
    builder.plan.probes = builder.plan.script.probes.clone();
    while builder.plan.probes.len() < count {
        let wanted = (count - builder.plan.probes.len()).div_ceil(2);
        let functions = builder.choose(wanted);
        for (function, code) in functions.iter().zip(code::read(known.cell.kernel.arch(), known.image, &functions)?) {
            if builder.plan.probes.len() < count
                && let Some(code) = code.filter(|code| !code.insns.is_empty())
            {
                builder.function(function, &code);
            }
        }
    }
    Ok(builder.plan)
}

struct Builder<'a> {
    known: Known<'a>,
    plan: Plan,
    random: Random,
}

impl Builder<'_> {
    fn choose(&mut self, count: usize) -> Vec<Function> {
        let (all, hot) = (&self.known.functions.all, &self.known.profile.running);
        let mut chosen = Vec::new();
        for _ in 0..count {
            let from = self.random.percent(KNOWN_TO_RUN);
            let index = if from { self.random.pick(hot).map(|(index, _)| *index) } else { None };
            let index = index.unwrap_or_else(|| self.random.below(all.len()));
            chosen.extend(all.get(index).cloned());
        }
        chosen
    }

    fn function(&mut self, function: &Function, code: &Code) {
        let has_state = self.known.cell.has_state();
        let known = self.known;
        match self.random.next() % 100 {
            0..35 => {
                let is_closed =
                    known.functions.is_whole(function) && code.is_closed(function, |addr| known.begins(addr));
                let mut pairs = if is_closed { code.pairs(function, &known.functions.targets) } else { Vec::new() };
                // A function's own name means where it is entered, which may be behind its first instruction.
                pairs.retain(|(from, _)| *from != 0);
                match self.random.pick(&pairs).copied() {
                    Some(pair) => self.pair(function, pair),
                    None => self.place(function, code),
                }
            }
            35..60 if has_state => self.calls(function, code),
            60..80 if has_state => self.ends(function, code),
            80..85 => self.between(function, code),
            _ => self.place(function, code),
        }
    }

    /// Adds a probe, if it is accepted.
    fn add(&mut self, kind: char, place: &str, rest: &str, action: &'static str) -> Option<String> {
        let name = format!("n{}", self.plan.probes.len());
        let line = format!("{kind}:{name} {place}{rest}");
        match self.known.check(&line) {
            Ok(()) => {
                self.plan.probes.push(Probe { name: name.clone(), line, action });
                Some(name)
            }
            Err(_) if rest.ends_with(" do post") => {
                self.plan.refused_ends += 1;
                None
            }
            Err(why) => {
                self.plan
                    .misjudged
                    .push(format!("{line} is refused: {}", why.split_whitespace().collect::<Vec<_>>().join(" ")));
                None
            }
        }
    }

    /// Counts, or records something where that is not too much.
    fn what(&mut self, function: &Function) -> (&'static str, &'static str) {
        let often = self.known.profile.calls(&function.name).is_some_and(|calls| calls > QUIET);
        match self.random.below(4) {
            0 if !often && self.known.cell.has_state() => (" s=$stack m=+8($stack):x32", "trace"),
            1 if !often => ("", "trace"),
            _ => ("", "count"),
        }
    }

    /// An instruction: often twice, in two ways.
    fn place(&mut self, function: &Function, code: &Code) {
        let Some(insn) = self.random.pick(&code.insns).copied() else { return };
        let place = at(function, insn.offset);
        let (fetch, action) = self.what(function);
        let first = self.add('p', &place, fetch, action);
        let second = if self.random.percent(50) { self.add('p', &place, "", "count") } else { None };
        if let (Some(first), Some(second)) = (first, second) {
            self.plan.relations.push(Relation::Same { first, second, text: None });
        }
    }

    /// Two instructions of one straight line.
    fn pair(&mut self, function: &Function, (from, to): (u64, u64)) {
        let (fetch, action) = self.what(function);
        let first = self.add('p', &at(function, from), fetch, action);
        let second = self.add('p', &at(function, to), "", "count");
        let (Some(first), Some(second)) = (first, second) else { return };
        // Where the kernel lies elsewhere, nobody knows which addresses to read.
        let (addr, len) = (function.addr + from, usize::try_from(to - from).unwrap_or(0));
        if let Some(bytes) = self.known.image.bytes(GuestAddr(addr), len).filter(|_| !self.plan.shape.moved) {
            let line = self.plan.script.push(format!("readtext {addr:#x} {len}"));
            let text = Some(Text { line, fnv1a: fnv1a(bytes) });
            self.plan.relations.push(Relation::Same { first, second, text });
        }
    }

    /// An instruction, and behind it.
    fn ends(&mut self, function: &Function, code: &Code) {
        let Some(Insn { offset, kind }) = self.random.pick(&code.insns).copied() else { return };
        let place = at(function, offset);
        let (fetch, action) = self.what(function);
        let before = self.add('p', &place, "", "count");
        let after = self.add('p', &place, &format!("{fetch} do post"), action);
        if let (Some(before), Some(after)) = (before, after) {
            let never_faults = kind == Kind::Plain;
            self.plan.relations.push(if never_faults {
                Relation::Ends { before, after }
            } else {
                Relation::EndsAtMost { before, after }
            });
        }
    }

    /// A function's calls and returns.
    fn calls(&mut self, function: &Function, code: &Code) {
        // Data has a symbol in the text, too.
        if code.insns.first().is_none_or(|first| first.offset != 0) {
            return;
        }
        let (_, action) = self.what(function);
        let fetch = if action == "trace" { " ret=$retval s=$stack" } else { "" };
        let Some(entry) = self.add('p', &function.name, "", "count") else { return };
        let Some(returns) = self.add('r', &function.name, fetch, action) else { return };
        let is_whole = self.known.functions.is_whole(function);
        let known = self.known;
        let exits =
            code.exits(function, |addr| known.begins(addr)).filter(|exits| is_whole && exits.len() <= MOST_EXITS);
        let exits: Option<Vec<String>> = exits
            .unwrap_or_default()
            .into_iter()
            .map(|offset| self.add('p', &at(function, offset), "", "count"))
            .collect();
        self.plan.relations.push(Relation::Calls { entry, returns, exits: exits.unwrap_or_default() });
    }

    /// The middle of an instruction is no place.
    fn between(&mut self, function: &Function, code: &Code) {
        let wide = code.insns.windows(2).filter_map(|pair| {
            let [this, next] = pair else { return None };
            // The kernel puts other instructions in the place of some, seldom of these.
            (this.kind == Kind::Plain && next.offset - this.offset > 1)
                .then_some(this.offset + (next.offset - this.offset) / 2)
        });
        let places: Vec<u64> = wide.collect();
        if let Some(offset) = self.random.pick(&places) {
            let line = format!("p:between {}", at(function, *offset));
            if self.known.check(&line).is_ok() {
                self.plan.misjudged.push(format!("{line} is accepted: no instruction begins there"));
            }
        }
    }
}

fn at(function: &Function, offset: u64) -> String {
    format!("{}+{offset}", function.name)
}

/// FNV-1a as the init program prints it.
fn fnv1a(bytes: &[u8]) -> String {
    let hash = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3));
    format!("{hash:016x}")
}

/// The probes as a file for `config=`.
pub(crate) fn toml(probes: &[Probe]) -> String {
    let mut text = String::new();
    for Probe { line, action, .. } in probes {
        // No line has an apostrophe: names and places are plain words.
        _ = writeln!(text, "[[probe]]\ndef = '{line}'\naction = '{action}'");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From the FNV reference.
    #[test]
    fn the_hash_is_fnv1a() {
        assert_eq!(fnv1a(b""), "cbf29ce484222325");
        assert_eq!(fnv1a(b"a"), "af63dc4c8601ec8c");
        assert_eq!(fnv1a(b"foobar"), "85944171f73967e8");
    }

    #[test]
    fn probes_as_toml() {
        let probe = Probe { name: "n0".to_owned(), line: "p:n0 f+4 do post".to_owned(), action: "count" };
        assert_eq!(toml(&[probe]), "[[probe]]\ndef = 'p:n0 f+4 do post'\naction = 'count'\n");
    }
}
