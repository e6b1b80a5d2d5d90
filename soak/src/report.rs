//! What is kept of boots that failed, and the table at the end.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use qkprobe_tests::BootResult;

use crate::cells::Cell;
use crate::judge::Judgement;
use crate::plan::{Plan, toml};

/// More failures of one boot say nothing new.
const SHOWN: usize = 12;

/// A boot that was judged.
#[derive(Debug)]
pub(crate) struct Boot {
    pub(crate) plan: Plan,
    pub(crate) result: BootResult,
    pub(crate) judgement: Judgement,
    pub(crate) failures: Vec<String>,
}

/// A boot of which there is nothing to judge.
#[derive(Debug)]
pub(crate) struct Unjudged {
    pub(crate) why: String,
    pub(crate) plan: Option<Box<Plan>>,
}

#[derive(Clone, Debug, Default)]
struct Row {
    boots: usize,
    failed: usize,
    probes: usize,
    hit: usize,
    hits: u64,
    relations: usize,
    lively: usize,
    missed: u64,
}

/// All boots so far.
#[derive(Debug)]
pub(crate) struct Report {
    probes: usize,
    rows: BTreeMap<String, Row>,
    /// How to have each failed boot again.
    again: Vec<String>,
}

impl Report {
    pub(crate) fn new(probes: usize) -> Self {
        Self { probes, rows: BTreeMap::new(), again: Vec::new() }
    }

    /// Whether nothing failed.
    pub(crate) fn is_right(&self) -> bool {
        self.again.is_empty()
    }

    /// Takes a boot in, tells of it, and keeps what is needed to look into it if it failed.
    pub(crate) fn add(&mut self, cell: Cell, seed: u64, took: Duration, outcome: Result<Boot, Unjudged>) {
        let row = self.rows.entry(cell.to_string()).or_default();
        row.boots += 1;
        let (failures, plan, result) = match outcome {
            Ok(Boot { plan, result, judgement, failures }) => {
                row.probes += plan.probes.len();
                row.hit += judgement.hit;
                row.hits += judgement.hits;
                row.relations += judgement.relations;
                row.lively += judgement.lively;
                row.missed += judgement.missed;
                println!(
                    "     {} in {:.0} s: {} of {} probes hit, {} hits, {} relations hold of {} ({} with hits), {} ends not awaited",
                    if failures.is_empty() { "ok" } else { "FAILED" },
                    took.as_secs_f32(),
                    judgement.hit,
                    plan.probes.len(),
                    judgement.hits,
                    judgement.relations,
                    plan.relations.len(),
                    judgement.lively,
                    plan.refused_ends,
                );
                (failures, Some(Box::new(plan)), Some(result))
            }
            Err(Unjudged { why, plan }) => {
                println!("\n     FAILED in {:.0} s", took.as_secs_f32());
                (vec![why], plan, None)
            }
        };
        if failures.is_empty() {
            return;
        }
        row.failed += 1;
        for failure in failures.iter().take(SHOWN) {
            println!("     - {failure}");
        }
        if failures.len() > SHOWN {
            println!("     - and {} more", failures.len() - SHOWN);
        }
        let again = format!(
            "cargo xtask soak --guest {} --qemu {} --seed {seed} --boots 1 --probes {}",
            cell.kernel.name(),
            cell.qemu.version(),
            self.probes
        );
        println!("     again: {again}");
        self.again.push(again);
        match keep(cell, seed, &failures, plan.as_deref(), result.as_ref()) {
            Ok(folder) => println!("     kept: {}", folder.display()),
            Err(error) => println!("     nothing could be kept: {error}"),
        }
    }

    /// What all came to.
    pub(crate) fn table(&self) -> String {
        let mut text = format!(
            "\n{:<34} {:>5} {:>6} {:>7} {:>7} {:>12} {:>9} {:>9} {:>7}\n",
            "guest", "boots", "failed", "probes", "hit", "hits", "relations", "with hits", "missed"
        );
        let mut all = Row::default();
        for (name, row) in &self.rows {
            all.boots += row.boots;
            all.failed += row.failed;
            all.probes += row.probes;
            all.hit += row.hit;
            all.hits += row.hits;
            all.relations += row.relations;
            all.lively += row.lively;
            all.missed += row.missed;
            row.write(name, &mut text);
        }
        all.write("all", &mut text);
        if !self.again.is_empty() {
            text += "\nthese boots failed:\n";
            self.again.iter().for_each(|again| _ = writeln!(text, "  {again}"));
        }
        text
    }
}

impl Row {
    fn write(&self, name: &str, text: &mut String) {
        let Self { boots, failed, probes, hit, hits, relations, lively, missed } = self;
        _ = writeln!(
            text,
            "{name:<34} {boots:>5} {failed:>6} {probes:>7} {hit:>7} {hits:>12} {relations:>9} {lively:>9} {missed:>7}"
        );
    }
}

fn keep(
    cell: Cell,
    seed: u64,
    failures: &[String],
    plan: Option<&Plan>,
    boot: Option<&BootResult>,
) -> std::io::Result<PathBuf> {
    let target = std::env::current_exe()?.ancestors().nth(2).map(Path::to_owned).unwrap_or_default();
    let folder = target.join("soak").join(format!("{}-{}-{seed}", cell.kernel.name(), cell.qemu.version()));
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("failures"), failures.join("\n") + "\n")?;
    if let Some(plan) = plan {
        fs::write(folder.join("probes.toml"), toml(&plan.probes))?;
        fs::write(folder.join("script"), plan.script.lines.join("\n") + "\n")?;
    }
    if let Some(boot) = boot {
        fs::write(folder.join("console"), &boot.console)?;
        fs::write(folder.join("stderr"), &boot.stderr)?;
        let summary = fs::read(boot.folder().join("summary.json")).unwrap_or_default();
        fs::write(folder.join("summary.json"), summary)?;
    }
    Ok(folder)
}
