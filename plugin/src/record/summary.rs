//! The table at the end, and the same as JSON.

use std::fmt::Write as _;

use serde::Serialize;

use crate::ending::Quit;
use crate::engine::verify::Verified;

/// `summary=FILE`. Fields are only ever added.
#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    /// QEMU's release.
    pub(crate) qemu: String,
    /// Plugin API version.
    pub(crate) api: i32,
    /// The guest's ISA.
    pub(crate) target: String,
    /// Runtime minus linked address of the kernel, when it was found.
    pub(crate) slide: Option<String>,
    /// What kept probes from arming, if anything did.
    pub(crate) problem: Option<String>,
    /// Who ended QEMU on purpose, if somebody did.
    pub(crate) quit: Option<Quit>,
    /// Records written to the trace.
    pub(crate) written: u64,
    /// Records that were made and could not be written.
    pub(crate) lost: u64,
    /// `verify=on`: what was compared.
    pub(crate) verified: Option<Verified>,
    /// All probes, in the order of their definition.
    pub(crate) probes: Vec<ProbeSummary>,
    /// The probes of `watch=`, which the table does not show.
    pub(crate) watched: Vec<Watched>,
}

/// A probe of `watch=`.
#[derive(Debug, Serialize)]
pub(crate) struct Watched {
    pub(crate) group: String,
    pub(crate) name: String,
    /// Executions that passed the filter.
    pub(crate) hits: u64,
}

/// One probe.
#[derive(Debug, Serialize)]
pub(crate) struct ProbeSummary {
    pub(crate) name: String,
    pub(crate) group: String,
    /// `p` or `r`.
    pub(crate) kind: &'static str,
    /// As the user wrote it.
    pub(crate) place: String,
    /// Runtime address when the slide is known, linked address otherwise; `null` while pending.
    pub(crate) address: Option<String>,
    /// Executions that passed the filter.
    pub(crate) hits: u64,
    /// Executions that the filter rejected.
    pub(crate) filtered: u64,
    /// Calls that could not be tracked (beyond `maxactive`), instructions whose end could not be awaited, effects that
    /// could not be had.
    pub(crate) missed: u64,
    /// Hits whose record was dropped or lost.
    pub(crate) dropped: u64,
    /// Restarts of instructions that an exception cut short: not among the hits.
    pub(crate) reexecuted: u64,
    /// Return probes: calls that have not returned.
    pub(crate) pending: u64,
    /// Calls that will never return: their frame or their task is gone.
    pub(crate) abandoned: u64,
    /// Hits that changed the guest (`set`, `skip`, `replace`, `override`, `stop`, `quit`).
    pub(crate) effects: u64,
    /// How often the probe's address became the inside of another instruction, where it cannot fire.
    pub(crate) boundary_lost: u64,
}

impl Summary {
    /// The JSON document, with a newline at the end.
    pub(crate) fn to_json(&self) -> String {
        // These types always serialise: no map keys, no failing implementations.
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }

    /// The table for people.
    pub(crate) fn to_table(&self) -> String {
        let mut text = format!("qkprobe: QEMU {}, plugin API {}, {}", self.qemu, self.api, self.target);
        if let Some(slide) = &self.slide {
            let _ = write!(text, ", kernel slide {slide}");
        }
        text.push('\n');
        let width = |head: &str, cell: fn(&ProbeSummary) -> usize| {
            self.probes.iter().map(cell).max().unwrap_or(0).max(head.len())
        };
        let name = width("PROBE", |probe| probe.group.len() + 1 + probe.name.len());
        let place = width("PLACE", |probe| probe.place.len());
        let _ =
            writeln!(text, "  {:name$}  {:place$} {:>12} {:>9} {:>9}", "PROBE", "PLACE", "HITS", "MISSED", "DROPPED");
        for probe in &self.probes {
            let full = format!("{}/{}", probe.group, probe.name);
            let ProbeSummary { place: at, hits, missed, dropped, .. } = probe;
            let _ = write!(text, "  {full:name$}  {at:place$} {hits:>12} {missed:>9} {dropped:>9}");
            if probe.filtered != 0 {
                let _ = write!(text, "  ({} filtered)", probe.filtered);
            }
            let notes = [
                (probe.pending, "pending"),
                (probe.abandoned, "never returned"),
                (probe.reexecuted, "restarted"),
                (probe.effects, "changed the guest"),
            ];
            for (count, note) in notes.iter().filter(|(count, _)| *count != 0) {
                let _ = write!(text, "  ({count} {note})");
            }
            if probe.boundary_lost != 0 {
                text.push_str("  (the text was patched: no instruction boundary for a time)");
            }
            if probe.address.is_none() {
                text.push_str("  (pending: its module was never seen)");
            }
            text.push('\n');
        }
        if let Some(Verified { checked, next_pc_only, raced, mismatches }) = self.verified {
            let _ = writeln!(
                text,
                "qkprobe: verify: {checked} executions compared, {next_pc_only} more by their next PC alone, {raced} raced: \
                 {mismatches} mismatches"
            );
        }
        if self.lost != 0 {
            let _ = writeln!(text, "qkprobe: {} records were lost", self.lost);
        }
        if let Some(problem) = &self.problem {
            let _ = writeln!(text, "qkprobe: {problem}");
        }
        text
    }
}
