//! What the kernel says: with probes no other warnings than without.

use std::collections::{BTreeSet, HashMap};

use crate::boots;
use crate::cells::{Cell, Shape};
use crate::script::Script;

/// Parts of lines that depend on how busy the machine is, not on the guest.
const DEPENDS_ON_SPEED: [&str; 15] = [
    "clocksource",
    "hpet: Lost",
    "calibration not consistent",
    "Unstable clock detected",
    "to keep using the local clock",
    "\"trace_clock=",
    "on the kernel command line",
    "tsc:",
    "TSC ",
    "hrtimer: interrupt took",
    "perf: interrupt took too long",
    "sched: RT throttling",
    "hogged CPU",
    "random: ",
    "took too long",
];

/// Parts of lines with which no kernel ends well, whatever it said without probes.
const NEVER: [&str; 6] =
    ["Kernel panic", "Oops", "general protection", "double fault", "soft lockup", "detected stalls"];

/// What the kernels say without probes.
#[derive(Debug, Default)]
pub(crate) struct Usual {
    /// Of each guest: the machines of which there was a boot, and their lines.
    of: HashMap<Cell, (Vec<Shape>, BTreeSet<String>)>,
}

impl Usual {
    /// The lines of a console that were not there without probes. Boots the machine without probes if there are any.
    ///
    /// # Errors
    /// The boot without probes failed.
    pub(crate) fn unusual(
        &mut self,
        cell: Cell,
        shape: &Shape,
        script: &Script,
        console: &str,
    ) -> Result<Vec<String>, String> {
        let (shapes, usual) = self.of.entry(cell).or_default();
        let is_new = |usual: &BTreeSet<String>| lines(console).any(|line| !usual.contains(&normal(line)));
        if is_new(usual) && !shapes.contains(shape) {
            let without = boots::without_probes(cell, shape, script)?;
            usual.extend(lines(&without.console).map(normal));
            shapes.push(shape.clone());
        }
        let fatal = lines(console).filter(|line| NEVER.iter().any(|part| line.contains(part)));
        let unusual = lines(console).filter(|line| !usual.contains(&normal(line)));
        let all: BTreeSet<&str> = fatal.chain(unusual).collect();
        Ok(all.into_iter().map(str::to_owned).collect())
    }
}

/// The kernel's own lines, which begin with a time.
fn lines(console: &str) -> impl Iterator<Item = &str> {
    let is_kernels = |line: &&str| line.starts_with("[ ") || line.starts_with('[') && line.contains("] ");
    let depends = |line: &&str| DEPENDS_ON_SPEED.iter().any(|part| line.contains(part));
    // The init program's lines come between.
    console.lines().filter(is_kernels).filter(move |line| !depends(line)).filter(|line| !line.contains("QK "))
}

/// Without the time and all numbers.
fn normal(line: &str) -> String {
    let text = line.split_once("] ").map_or(line, |(_, text)| text);
    let mut normal = String::new();
    for word in text.split_inclusive([' ', ':', ',', '(', ')', '[', ']', '-', '/', '=', '+', '.']) {
        if word.bytes().any(|byte| byte.is_ascii_digit()) { normal.push('#') } else { normal.push_str(word) }
    }
    normal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_not_compared() {
        let [one, other] = ["[    0.311] ata1: lost 12 (ffff8801)", "[   12.004] ata2: lost 3 (ffff8f00)"].map(normal);
        assert_eq!(one, other);
        assert_ne!(one, normal("[    0.311] ata1: found 12 (ffff8801)"));
    }

    #[test]
    fn lines_that_count() {
        let console = "SeaBIOS\n[    0.1] a: b\nQK 3 ok x\n[    0.2] clocksource: tsc unstable\n[    0.3] c\n";
        assert_eq!(lines(console).collect::<Vec<_>>(), ["[    0.1] a: b", "[    0.3] c"]);
    }
}
