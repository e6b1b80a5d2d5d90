//! What holds of return probes on every guest.

use qkprobe_tests::{Boot, Summary};

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

/// Functions that every child is in when it dies of its `write`; the last never returns.
const DEADLY: [&str; 4] = ["ksys_write", "vfs_write", "proc_reg_write", "do_exit"];

/// A file that is none makes the kernel oops in the middle of a call: the child's calls never return, nor that of the `handler`
/// of its fault. Its stack serves other tasks afterwards, in which all of them do.
#[track_caller]
pub(crate) fn a_task_dies_in_a_probed_function(what: &str, mut boot: Boot, handler: Option<&str>) {
    boot = boot
        .script(["background write /proc/sysrq-trigger h", "wait", "fork 40", "procs 4 getppid 500", "say alive"])
        .plugin_arg("count=p:bad proc_reg_write do set:$arg1=0")
        .plugin_arg("count=p:oops notify_die why=$arg1:s32 if why == 1")
        .plugin_arg("count=r:ppid sys_getppid")
        .plugin_arg("count=p:dead do_task_dead");
    let functions = || DEADLY.into_iter().chain(handler);
    for function in functions() {
        boot = boot
            .plugin_arg(format!("count=p:p_{function} {function}"))
            .plugin_arg(format!("count=r:r_{function} {function}"));
    }
    let boot = boot.run();
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
