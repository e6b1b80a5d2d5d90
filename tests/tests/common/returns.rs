//! What holds of return probes on every guest.

use qkprobe_tests::{Boot, BootResult, Summary};

use super::{TraceLine, assert_hits};

/// Every call that began has returned, is pending, or never returns; and none was missed.
#[track_caller]
pub(crate) fn assert_all_accounted(summary: &Summary, entries: &str, returns: &str) {
    let (entries, returns) = (summary.probe(entries), summary.probe(returns));
    let seen = returns.hits + returns.filtered + returns.pending + returns.abandoned;
    assert_eq!((seen, returns.missed, returns.dropped), (entries.hits, 0, 0), "{returns:?}, {entries:?}");
}

/// The events of a trace in turns of this length; those that are called `behind_...` and are not in the turn stand for its
/// `behind`.
#[track_caller]
pub(crate) fn assert_turns(lines: &[TraceLine<'_>], turn: &[&str], at_least: usize) {
    let name = |event| if !turn.contains(&event) && event.starts_with("behind_") { "behind" } else { event };
    let events: Vec<&str> = lines.iter().map(|line| name(line.event)).filter(|event| turn.contains(event)).collect();
    let wrong = events.chunks(turn.len()).enumerate().find(|(_, events)| *events != turn);
    assert_eq!(wrong, None, "not {turn:?}");
    assert!(events.len() >= at_least * turn.len(), "{} events", events.len());
}

/// Counts the entries (`p_...`) and the returns (`r_...`) of functions.
pub(crate) fn with_counts<'a>(boot: Boot, functions: impl IntoIterator<Item = &'a str>) -> Boot {
    functions.into_iter().fold(boot, |boot, function| {
        boot.plugin_arg(format!("count=p:p_{function} {function}"))
            .plugin_arg(format!("count=r:r_{function} {function}"))
    })
}

/// All calls of functions that return, always, have; and there were some.
#[track_caller]
pub(crate) fn assert_all_returned(what: &str, summary: &Summary, functions: &[&str]) {
    for function in functions {
        let probe = summary.probe(&format!("r_{function}"));
        assert!(probe.hits > 0 && (probe.pending, probe.abandoned) == (0, 0), "{probe:?}, {what}");
    }
}

/// How a guest with two vCPUs and much to do is probed.
pub(crate) struct Loaded<'a> {
    /// What the names of system calls begin with.
    pub(crate) call: &'a str,
    /// Functions that return, always.
    pub(crate) returning: &'a [&'a str],
    /// The offsets of the ways out of schedule().
    pub(crate) ways_out: Vec<u64>,
    /// More tasks than that are asleep in the end.
    pub(crate) asleep: u64,
}

/// Children of [`Loaded::check`]: 6 twice; 20 by the first task, 10 by each of two threads; a child of each background, 3 of procs,
/// and as many of theirs.
pub(crate) const FORKS: u64 = 12 + 20 + 20 + 2 + 3 + 3 + 2;

impl Loaded<'_> {
    /// Threads, processes, pipes, programs, in front and behind: nothing is missed, and nothing is left on the stack of a dead
    /// task.
    #[track_caller]
    pub(crate) fn check(&self, what: &str, boot: Boot) -> Summary {
        let call = |name: &str| format!("{}{name}", self.call);
        let [exit_group, exit] = [call("exit_group"), call("exit")];
        let never = [exit_group.as_str(), exit.as_str(), "do_exit"];
        let functions = || self.returning.iter().copied().chain(never).chain(["schedule"]);
        let mut boot = with_counts(boot, functions()).plugin_arg("out=/dev/null").script([
            "threads 2 openclose 300 /init",
            "background procs 3 pipe 200",
            "background fork 20",
            "procs 2 exec 6",
            "threads 2 fork 10",
            "wait",
            "threads 4 sleep 100",
            "tasks",
        ]);
        for offset in &self.ways_out {
            boot = boot.plugin_arg(format!("count=p:out_{offset} schedule+{offset}"));
        }
        let boot = boot.plugin_arg("count=p:dead do_task_dead").run_ok();
        let what = format!("{what}\n{}", boot.stderr);
        let summary = boot.summary();
        let returns = |function: &str| summary.probe(&format!("r_{function}"));
        for function in functions() {
            assert_all_accounted(&summary, &format!("p_{function}"), &format!("r_{function}"));
        }
        assert_all_returned(&what, &summary, self.returning);
        assert_eq!(returns(&call("execve")).hits, 12, "{what}");
        assert_eq!(returns(&call("wait4")).hits, FORKS, "{what}");
        // None stays on a dead task.
        let lost = |function: &str| (returns(function).hits, returns(function).pending, returns(function).abandoned);
        assert_eq!(lost(&exit_group), (0, 0, FORKS), "{what}");
        // Two, two, and four threads.
        assert_eq!(lost(&exit), (0, 0, 8), "{what}");
        // Kernel threads that end when the power goes off may not come to their end.
        let (entered, dead) = (summary.probe("p_do_exit").hits, summary.probe("dead").hits);
        assert!(dead >= FORKS + 8 && entered - dead <= 4, "{what}");
        assert_eq!(lost("do_exit"), (0, entered - dead, dead), "{what}");

        let schedule = returns("schedule");
        let ways_out = summary.probes.iter().filter(|probe| probe.name.starts_with("out_"));
        let out: u64 = ways_out.map(|probe| probe.hits).sum();
        assert_eq!((schedule.hits, schedule.abandoned), (out, 0), "{what}");
        assert_sleepers_are_pending(&what, &boot, &summary, self.asleep);
        summary
    }
}

/// Who sleeps does it in schedule(); more than `least` do. Between the count and the power-off a few kernel threads begin or end.
#[track_caller]
pub(crate) fn assert_sleepers_are_pending(what: &str, boot: &BootResult, summary: &Summary, least: u64) {
    let (asleep, schedule) = (boot.qk("tasks").number("asleep") as u64, summary.probe("r_schedule"));
    assert!(asleep > least && schedule.pending.abs_diff(asleep) <= 10, "{asleep} asleep: {schedule:?}, {what}");
}

/// Functions that every child is in when it dies of its `write`; the last never returns.
const DEADLY: [&str; 4] = ["ksys_write", "vfs_write", "proc_reg_write", "do_exit"];

/// A file that is none makes the kernel oops in the middle of a call: the child's calls never return, nor that of the `handler`
/// of its fault. Its stack serves other tasks afterwards, in which all of them do.
#[track_caller]
pub(crate) fn a_task_dies_in_a_probed_function(what: &str, boot: Boot, handler: Option<&str>) {
    let boot = boot
        .script(["background write /proc/sysrq-trigger h", "wait", "fork 40", "procs 4 getppid 500", "say alive"])
        .plugin_arg("count=p:bad proc_reg_write do set:$arg1=0")
        .plugin_arg("count=p:oops notify_die why=$arg1:s32 if why == 1")
        .plugin_arg("count=r:ppid sys_getppid")
        .plugin_arg("count=p:dead do_task_dead");
    let functions = || DEADLY.into_iter().chain(handler);
    let boot = with_counts(boot, functions()).run();
    let what = format!("{what}\n{}\n{}", boot.console, boot.stderr);
    assert!(boot.status.success() && boot.reached_end(), "{what}");
    assert!(boot.console.lines().any(|line| line == "QK 5 ok say alive"), "{what}");
    assert_hits(&boot, &what, &[("bad", 1), ("oops", 1), ("ppid", 2000)]);
    let summary = boot.summary();
    // The dying child included.
    let dead = summary.probe("dead").hits;
    assert!(dead >= 45, "{what}");
    for function in functions() {
        let (entries, returns) = (format!("p_{function}"), format!("r_{function}"));
        assert_all_accounted(&summary, &entries, &returns);
        let left = (summary.probe(&returns).pending, summary.probe(&returns).abandoned);
        // None stays on the dead task's stack.
        let expected = if function == "do_exit" { (summary.probe(&entries).hits - dead, dead) } else { (0, 1) };
        assert_eq!(left, expected, "{function}: {what}");
    }
}
