//! Whether a boot's counts are right.

use std::collections::HashMap;

use qkprobe_tests::{BootResult, ProbeSummary, Summary};

use crate::plan::{Plan, Relation};

/// What a boot came to.
#[derive(Debug, Default)]
pub(crate) struct Judgement {
    /// What is wrong.
    pub(crate) failures: Vec<String>,
    /// Relations that were looked at, and of these those with a hit.
    pub(crate) relations: usize,
    pub(crate) lively: usize,
    /// Probes with a hit, and all hits.
    pub(crate) hit: usize,
    pub(crate) hits: u64,
    /// Executions that could not be followed to their end.
    pub(crate) missed: u64,
}

/// Judges the counts of a boot that came to its end.
pub(crate) fn counts(plan: &Plan, boot: &BootResult, summary: &Summary) -> Judgement {
    let mut judgement = Judgement::default();
    let probes: HashMap<&str, &ProbeSummary> =
        summary.probes.iter().map(|probe| (probe.name.as_str(), probe)).collect();
    let traced = |name: &str| plan.probes.iter().any(|probe| probe.name == name && probe.action == "trace");
    for probe in &summary.probes {
        judgement.hit += usize::from(probe.hits > 0);
        judgement.hits += probe.hits;
        judgement.missed += probe.missed;
    }
    if summary.probes.len() != plan.probes.len() {
        judgement.failures.push(format!("{} probes of {}", summary.probes.len(), plan.probes.len()));
    }
    if let Some(problem) = &summary.problem {
        judgement.failures.push(format!("the plugin's problem: {problem}"));
    }
    let recorded = summary.probes.iter().filter(|probe| traced(&probe.name));
    let due: u64 = recorded.map(|probe| probe.hits - probe.dropped.min(probe.hits)).sum();
    if (due, 0) != (summary.written, summary.lost) {
        judgement
            .failures
            .push(format!("{due} hits should have a record: {} were written, {} lost", summary.written, summary.lost));
    }
    for relation in &plan.relations {
        let Some(checked) = check(relation, &probes, boot) else { continue };
        judgement.relations += 1;
        judgement.lively += usize::from(checked.is_lively);
        judgement.failures.extend(checked.wrong);
    }
    judgement
}

struct Checked {
    is_lively: bool,
    wrong: Option<String>,
}

/// `None` if nothing can be said.
fn check(relation: &Relation, probes: &HashMap<&str, &ProbeSummary>, boot: &BootResult) -> Option<Checked> {
    let zero = ProbeSummary::default();
    let get = |name: &str| probes.get(name).copied().unwrap_or(&zero);
    let tell = |names: &[&str]| {
        let tell = |name: &&str| {
            let ProbeSummary { kind, place, hits, missed, filtered, reexecuted, pending, abandoned, .. } = get(name);
            format!(
                "{name} ({kind} {place}): hits {hits}, missed {missed}, filtered {filtered}, reexecuted {reexecuted}, \
                 pending {pending}, abandoned {abandoned}"
            )
        };
        names.iter().map(tell).collect::<Vec<_>>().join("; ")
    };
    let checked = |is_right: bool, hits: u64, what: &str, names: &[&str]| {
        let wrong = (!is_right).then(|| format!("{what}: {}", tell(names)));
        Some(Checked { is_lively: hits > 0, wrong })
    };
    match relation {
        Relation::Same { first, second, text } => {
            if let Some(text) = text {
                let read = boot.qk.iter().find(|line| line.line == text.line && line.part.is_none());
                // The kernel has patched it.
                if read.and_then(|line| line.get("fnv1a")) != Some(text.fnv1a.as_str()) {
                    return None;
                }
            }
            let (one, other) = (get(first).hits, get(second).hits);
            checked(one == other, one, "executed equally often", &[first, second])
        }
        Relation::Ends { before, after } => {
            let (began, ended) = (get(before).hits, get(after));
            checked(began == ended.hits + ended.missed, began, "ends as often as it begins", &[before, after])
        }
        Relation::EndsAtMost { before, after } => {
            let (began, ended) = (get(before).hits, get(after).hits);
            checked(ended <= began, began, "does not end more often than it begins", &[before, after])
        }
        Relation::Calls { entry, returns, exits } => {
            let (entered, back) = (get(entry).hits, get(returns));
            let unfinished = back.pending + back.abandoned;
            let seen = back.hits + back.filtered + back.missed + unfinished;
            let left: u64 = exits.iter().map(|exit| get(exit).hits).sum();
            let fits = if exits.is_empty() {
                true
            } else if unfinished + back.missed == 0 {
                left == entered
            } else {
                left <= entered && left + unfinished + back.missed >= entered
            };
            let names: Vec<&str> = [entry, returns].into_iter().chain(exits).map(String::as_str).collect();
            checked(seen == entered && fits, entered, "calls, returns and ways out", &names)
        }
        Relation::Exactly { probe, hits } => {
            let found = get(probe);
            let what = format!("exactly {hits}");
            checked((found.hits, found.missed) == (*hits, 0), *hits, &what, &[probe])
        }
    }
}
