//! What the guest does meanwhile: known loads in random amounts, with probes whose counts are known.

use qkprobe_tests::{BootResult, Threads};

use crate::cells::{Cell, Shape};
use crate::plan::{Probe, Relation};
use crate::random::Random;

/// The lines of the init program's script, and the probes on what they do.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    pub(crate) lines: Vec<String>,
    pub(crate) probes: Vec<Probe>,
}

impl Script {
    /// Does a bit of everything.
    pub(crate) fn load(smp: u32) -> Self {
        let lines = [
            format!("threads {smp} getppid 200"),
            "background procs 2 pipe 60".to_owned(),
            format!("threads {smp} openclose 100 /init"),
            "openclose 50 /proc/version".to_owned(),
            "fork 10".to_owned(),
            "exec 4".to_owned(),
            "epoll 3 3".to_owned(),
            "time 20 fresh".to_owned(),
            "memtouch 2 2".to_owned(),
            "sethost soak".to_owned(),
            "wait".to_owned(),
            "threads 3 sleep 20".to_owned(),
            "tasks".to_owned(),
        ];
        Self { lines: lines.to_vec(), probes: Vec::new() }
    }

    /// The same, with numbers that a seed decides.
    pub(crate) fn random(cell: Cell, shape: &Shape, seed: u64, random: &mut Random) -> (Self, Vec<Relation>) {
        let smp = shape.smp;
        let [calls, opens, execs] = [1500, 400, 12].map(|most| 1 + random.below(most) as u64);
        let mut script = Self::load(smp);
        let file = format!("/etc/soak-{seed}");
        script.lines.extend([
            format!("threads {smp} getppid {calls}"),
            "procs 2 getppid 100".to_owned(),
            format!("threads {smp} openclose {opens} {file}"),
            format!("procs 2 exec {execs}"),
        ]);
        let (getppid, execve) = (cell.syscall("getppid"), cell.syscall("execve"));
        let smp = u64::from(smp);
        let mut known = vec![
            ("ppids", format!("p:ppids {getppid}"), "count", smp * 200 + smp * calls + 200),
            ("ppids_too", format!("p:ppids_too {getppid}"), "trace", smp * 200 + smp * calls + 200),
            ("execs", format!("p:execs {execve}"), "count", 4 + 2 * execs),
        ];
        if cell.has_state() {
            known.push(("ppid_returns", format!("r:ppid_returns {getppid}"), "count", smp * 200 + smp * calls + 200));
        }
        if cell.reads_user_memory() {
            let name = format!("do_sys_openat2 file=+0($arg2):ustring if file == \"{file}\"");
            known.push(("opens", format!("p:opens {name}"), "count", smp * opens));
            known.push(("open_returns", format!("r:open_returns {name}"), "count", smp * opens));
        }
        let relations =
            known.iter().map(|(name, _, _, hits)| Relation::Exactly { probe: (*name).to_owned(), hits: *hits });
        let relations = relations.collect();
        script.probes =
            known.into_iter().map(|(name, line, action, _)| Probe { name: name.to_owned(), line, action }).collect();
        (script, relations)
    }

    /// Adds a line, and returns its number.
    pub(crate) fn push(&mut self, line: String) -> u32 {
        self.lines.push(line);
        u32::try_from(self.lines.len()).unwrap_or(u32::MAX)
    }
}

/// What keeps a boot from having done its script.
pub(crate) fn failures(boot: &BootResult) -> Vec<String> {
    let failed = boot.qk.iter().filter(|line| !line.ok);
    let mut failures: Vec<String> =
        failed.map(|line| format!("line {} of the script: {} {}", line.line, line.command, line.text)).collect();
    if !boot.reached_end() {
        failures.push("the guest did not reach its end".to_owned());
    }
    if !boot.status.success() {
        let words: Vec<&str> = boot.stderr.lines().filter(|line| line.starts_with("qkprobe")).take(3).collect();
        failures.push(format!("QEMU ended with {}: {}", boot.status, words.join(" / ")));
    }
    failures
}

/// One vCPU with a thread, for profiles.
pub(crate) const QUIET_SHAPE: Shape = Shape { smp: 1, threads: Threads::Single, moved: false, code_cache: None };
