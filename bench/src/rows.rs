//! The rows of the table: what each compares, from which configurations, and the design's bound.

use qkprobe_tests::GuestArch;
use serde::Serialize;

use crate::bench::{Bench, Round};
use crate::{arming, gdb, guest_kprobe, hits, overhead, registration, removal};

/// One thing to run in each round; several rows may use its values.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Configuration {
    pub(crate) name: &'static str,
    pub(crate) run: fn(&Bench, &mut Round) -> Result<(), String>,
}

/// A configuration on another guest: its own name, and those of what it measures, begin with the guest's.
macro_rules! other {
    ($guest:literal, $arch:ident, $name:literal, $run:path) => {
        Configuration {
            name: concat!($guest, ":", $name),
            run: |bench, round| {
                round.with_prefix(concat!($guest, ":"), |round| $run(bench.of(GuestArch::$arch)?, round))
            },
        }
    };
}

/// All of them, in the order of a round: what is compared stands side by side.
pub(crate) const CONFIGURATIONS: &[Configuration] = &[
    Configuration { name: "guest", run: overhead::guest },
    Configuration { name: "loaded", run: overhead::loaded },
    Configuration { name: "empty", run: overhead::empty },
    Configuration { name: "armed", run: overhead::armed },
    Configuration { name: "elsewhere", run: hits::elsewhere },
    Configuration { name: "count", run: hits::count },
    Configuration { name: "count-all", run: hits::count_all },
    Configuration { name: "event", run: hits::event },
    Configuration { name: "event-3", run: hits::registers },
    Configuration { name: "event-string", run: hits::string },
    Configuration { name: "post", run: hits::post },
    Configuration { name: "post-landing", run: hits::post_landing },
    Configuration { name: "return", run: hits::returned },
    Configuration { name: "return-count", run: hits::return_count },
    Configuration { name: "override", run: hits::overridden },
    Configuration { name: "set", run: hits::set },
    Configuration { name: "verify", run: hits::verify },
    Configuration { name: "guest-kprobe", run: guest_kprobe::measure },
    Configuration { name: "gdb", run: gdb::measure },
    Configuration { name: "register", run: registration::measure },
    Configuration { name: "arm", run: arming::two },
    Configuration { name: "arm-1cpu", run: arming::one },
    Configuration { name: "never", run: removal::never },
    Configuration { name: "removed", run: removal::removed },
    other!("ppc64le", Ppc64le, "guest", overhead::guest),
    other!("ppc64le", Ppc64le, "loaded", overhead::loaded),
    other!("ppc64le", Ppc64le, "empty", overhead::empty),
    other!("ppc64le", Ppc64le, "count", hits::count),
    other!("ppc64le", Ppc64le, "event-3", hits::registers),
    other!("ppc64le", Ppc64le, "return", hits::returned),
    other!("sparc64", Sparc64, "guest", overhead::guest),
    other!("sparc64", Sparc64, "loaded", overhead::loaded),
    other!("sparc64", Sparc64, "empty", overhead::empty),
    other!("sparc64", Sparc64, "count", hits::count),
    other!("sparc64", Sparc64, "event-3", hits::registers),
    other!("sparc64", Sparc64, "return", hits::returned),
];

/// What a row's numbers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Unit {
    /// One time over another.
    Ratio,
    /// How many times as much.
    Factor,
    Nanoseconds,
    Milliseconds,
}

/// What the design asks for.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

impl Bound {
    pub(crate) fn holds(self, value: f64) -> bool {
        match self {
            Self::AtMost(bound) => value <= bound,
            Self::AtLeast(bound) => value >= bound,
        }
    }
}

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    /// What `--only` takes.
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    pub(crate) unit: Unit,
    pub(crate) bound: Option<Bound>,
    /// Names of [`CONFIGURATIONS`].
    pub(crate) needs: &'static [&'static str],
    value: Value,
}

/// How a row's value comes from those of a round.
#[derive(Clone, Copy, Debug)]
enum Value {
    /// `with / without`.
    Ratio(&'static str, &'static str),
    /// `with - without`.
    Difference(&'static str, &'static str),
    /// `(with - without) / hits`; the hits are those of one call.
    PerHit(Hit),
    /// As it is.
    Plain(&'static str),
    /// How many times a hit of qkprobe this value is.
    Times(&'static str, Hit),
    /// The same for a difference: `(with - without) / hit`.
    TimesDifference(&'static str, &'static str, Hit),
}

/// A configuration of qkprobe that hits in a loop.
#[derive(Clone, Copy, Debug)]
struct Hit {
    configuration: &'static str,
    command: &'static str,
}

impl Hit {
    const fn new(configuration: &'static str, command: &'static str) -> Self {
        Self { configuration, command }
    }

    fn cost(self, round: &Round) -> Option<f64> {
        let Self { configuration, command } = self;
        let more = round.get(&format!("{configuration}/{command}-more"))?;
        Some(more / round.get(&format!("{configuration}/hits"))?)
    }
}

impl Row {
    /// The row's value in one round. None where something is missing, or where noise left nothing to divide by.
    pub(crate) fn value(&self, round: &Round) -> Option<f64> {
        let difference = |with, without| Some(round.get(with)? - round.get(without)?);
        let times = |cost: f64, hit: Hit| hit.cost(round).filter(|hit| *hit > 0.0).map(|hit| cost / hit);
        match self.value {
            Value::Ratio(with, without) => Some(round.get(with)? / round.get(without)?),
            Value::Difference(with, without) => difference(with, without),
            Value::PerHit(hit) => hit.cost(round),
            Value::Plain(name) => round.get(name),
            Value::Times(name, hit) => times(round.get(name)?, hit),
            Value::TimesDifference(with, without, hit) => times(difference(with, without)?, hit),
        }
    }
}

const COUNT: Hit = Hit::new("count", "getppid");
const COUNT_ALL: Hit = Hit::new("count-all", "getppid");
const EVENT: Hit = Hit::new("event", "getppid");
const EVENT_3: Hit = Hit::new("event-3", "getppid");
const EVENT_STRING: Hit = Hit::new("event-string", "getppid");
const POST: Hit = Hit::new("post", "getppid");
const POST_LANDING: Hit = Hit::new("post-landing", "getppid");
const RETURN: Hit = Hit::new("return", "getppid");
const RETURN_COUNT: Hit = Hit::new("return-count", "getppid");
const OVERRIDE: Hit = Hit::new("override", "getppid");
const SET: Hit = Hit::new("set", "getppid");
const VERIFY: Hit = Hit::new("verify", "getppid");

const fn row(
    name: &'static str,
    what: &'static str,
    unit: Unit,
    bound: Option<Bound>,
    needs: &'static [&'static str],
    value: Value,
) -> Row {
    Row { name, what, unit, bound, needs, value }
}

const fn at_most(bound: f64) -> Option<Bound> {
    Some(Bound::AtMost(bound))
}

const fn at_least(bound: f64) -> Option<Bound> {
    Some(Bound::AtLeast(bound))
}

/// All rows, as the table shows them.
#[rustfmt::skip]
pub(crate) const ROWS: &[Row] = &[
    row("loaded", "Guest with the plugin loaded and no probe, over a guest without plugin", Unit::Ratio, at_most(1.01),
        &["guest", "loaded"], Value::Ratio("loaded/work", "guest/work")),
    row("armed", "Guest with 1,000 armed probes that are not hit, over one with an empty plugin", Unit::Ratio, at_most(1.03),
        &["empty", "armed"], Value::Ratio("armed/work", "empty/work")),
    row("empty", "Guest with an empty plugin, over a guest without plugin (what QEMU takes for any plugin)", Unit::Ratio, None,
        &["guest", "empty"], Value::Ratio("empty/work", "guest/work")),
    row("empty-call", "One getppid with a probe armed elsewhere, minus one without plugin", Unit::Nanoseconds, None,
        &["elsewhere", "guest-kprobe"], Value::Difference("elsewhere/getppid", "plain/getppid")),
    row("count", "A hit that counts", Unit::Nanoseconds, at_most(5.0),
        &["count"], Value::PerHit(COUNT)),
    row("count-all", "A hit that counts, each instruction of a function probed", Unit::Nanoseconds, at_most(5.0),
        &["count-all"], Value::PerHit(COUNT_ALL)),
    row("event", "A hit without arguments", Unit::Nanoseconds, at_most(80.0),
        &["event"], Value::PerHit(EVENT)),
    row("event-3", "A hit with three registers", Unit::Nanoseconds, at_most(200.0),
        &["event-3"], Value::PerHit(EVENT_3)),
    row("event-string", "A hit with a user string behind one more dereference", Unit::Nanoseconds, at_most(800.0),
        &["event-string"], Value::PerHit(EVENT_STRING)),
    row("post", "A hit without arguments behind an instruction, in the middle of a block", Unit::Nanoseconds, None,
        &["post"], Value::PerHit(POST)),
    row("post-landing", "A hit without arguments behind a call, where it lands", Unit::Nanoseconds, None,
        &["post-landing"], Value::PerHit(POST_LANDING)),
    row("return", "A call and its return, with value and latency", Unit::Nanoseconds, at_most(400.0),
        &["return"], Value::PerHit(RETURN)),
    row("return-count", "A call and its return, counted", Unit::Nanoseconds, None,
        &["return-count"], Value::PerHit(RETURN_COUNT)),
    row("override", "A call that returns a given value at once (less than nothing is possible: the body is not executed)", Unit::Nanoseconds, None,
        &["override"], Value::PerHit(OVERRIDE)),
    row("set", "A hit that counts and sets a register", Unit::Nanoseconds, None,
        &["set"], Value::PerHit(SET)),
    row("verify", "An execution that is counted and verified", Unit::Nanoseconds, None,
        &["verify"], Value::PerHit(VERIFY)),
    row("guest-ftrace", "The guest's own kprobe event, at a function's entry (ftrace), without arguments", Unit::Nanoseconds, None,
        &["guest-kprobe"], Value::Plain("guest-kprobe/ftrace")),
    row("guest-ftrace-3", "... with three registers", Unit::Nanoseconds, None,
        &["guest-kprobe"], Value::Plain("guest-kprobe/ftrace_3")),
    row("guest-ftrace-string", "... with a user string", Unit::Nanoseconds, None,
        &["guest-kprobe"], Value::Plain("guest-kprobe/ftrace_string")),
    row("guest-int3", "The guest's own kprobe event, inside a function (int3), without arguments", Unit::Nanoseconds, None,
        &["guest-kprobe"], Value::Plain("guest-kprobe/int3")),
    row("guest-int3-3", "... with three registers", Unit::Nanoseconds, None,
        &["guest-kprobe"], Value::Plain("guest-kprobe/int3_3")),
    row("guest-int3-string", "... with a user string", Unit::Nanoseconds, None,
        &["guest-kprobe"], Value::Plain("guest-kprobe/int3_string")),
    row("factor-ftrace", "The guest's kprobe event (ftrace) over qkprobe's, without arguments", Unit::Factor, at_least(10.0),
        &["guest-kprobe", "event"], Value::Times("guest-kprobe/ftrace", EVENT)),
    row("factor-ftrace-3", "... with three registers", Unit::Factor, at_least(10.0),
        &["guest-kprobe", "event-3"], Value::Times("guest-kprobe/ftrace_3", EVENT_3)),
    row("factor-ftrace-string", "... with a user string", Unit::Factor, at_least(10.0),
        &["guest-kprobe", "event-string"], Value::Times("guest-kprobe/ftrace_string", EVENT_STRING)),
    row("factor-int3", "The guest's kprobe event (int3) over qkprobe's, without arguments", Unit::Factor, at_least(10.0),
        &["guest-kprobe", "event"], Value::Times("guest-kprobe/int3", EVENT)),
    row("factor-int3-3", "... with three registers", Unit::Factor, at_least(10.0),
        &["guest-kprobe", "event-3"], Value::Times("guest-kprobe/int3_3", EVENT_3)),
    row("factor-int3-string", "... with a user string", Unit::Factor, at_least(10.0),
        &["guest-kprobe", "event-string"], Value::Times("guest-kprobe/int3_string", EVENT_STRING)),
    row("gdb", "gdb's hardware breakpoint that continues", Unit::Nanoseconds, None,
        &["guest-kprobe", "gdb"], Value::Difference("gdb/getppid", "plain/getppid")),
    row("factor-gdb", "gdb's hardware breakpoint over a hit without arguments", Unit::Factor, at_least(200.0),
        &["guest-kprobe", "gdb", "event"], Value::TimesDifference("gdb/getppid", "plain/getppid", EVENT)),
    row("register", "Start with 100,000 probes, minus start with one", Unit::Milliseconds, at_most(1000.0),
        &["register"], Value::Difference("register/100000", "register/1")),
    row("arm", "One event added to a busy guest with 2 vCPUs, on code that both execute, until the reply", Unit::Milliseconds, at_most(10.0),
        &["arm"], Value::Plain("arm/hot-add")),
    row("disarm", "... deleted again", Unit::Milliseconds, at_most(10.0),
        &["arm"], Value::Plain("arm/hot-delete")),
    row("arm-random", "One event added to it, on functions all over the kernel", Unit::Milliseconds, at_most(10.0),
        &["arm"], Value::Plain("arm/cold-add")),
    row("disarm-random", "... deleted again", Unit::Milliseconds, at_most(10.0),
        &["arm"], Value::Plain("arm/cold-delete")),
    row("arm-1000", "1,000 events added to it at once, on functions all over the kernel", Unit::Milliseconds, None,
        &["arm"], Value::Plain("arm/many-add")),
    row("disarm-1000", "... deleted again", Unit::Milliseconds, None,
        &["arm"], Value::Plain("arm/many-delete")),
    row("arm-1cpu", "One event added to a busy guest with 1 vCPU, on code that it executes, until the reply", Unit::Milliseconds, at_most(10.0),
        &["arm-1cpu"], Value::Plain("arm-1cpu/hot-add")),
    row("disarm-1cpu", "... deleted again", Unit::Milliseconds, at_most(10.0),
        &["arm-1cpu"], Value::Plain("arm-1cpu/hot-delete")),
    row("arm-random-1cpu", "One event added to it, on functions all over the kernel", Unit::Milliseconds, at_most(10.0),
        &["arm-1cpu"], Value::Plain("arm-1cpu/cold-add")),
    row("disarm-random-1cpu", "... deleted again", Unit::Milliseconds, at_most(10.0),
        &["arm-1cpu"], Value::Plain("arm-1cpu/cold-delete")),
    row("arm-1000-1cpu", "1,000 events added to it at once, on functions all over the kernel", Unit::Milliseconds, None,
        &["arm-1cpu"], Value::Plain("arm-1cpu/many-add")),
    row("disarm-1000-1cpu", "... deleted again", Unit::Milliseconds, None,
        &["arm-1cpu"], Value::Plain("arm-1cpu/many-delete")),
    row("removed", "Guest after 1,000 probes on code that it executes came and went, over one that never had a probe", Unit::Ratio, at_most(1.02),
        &["never", "removed"], Value::Ratio("removed/work", "never/work")),
    row("removed-call", "One getppid after they were removed, minus one before they came, in one boot", Unit::Nanoseconds, None,
        &["removed"], Value::Difference("removed/getppid", "removed-before/getppid")),
    row("ppc64le-loaded", "ppc64le guest with the plugin loaded and no probe, over one without plugin", Unit::Ratio, at_most(1.01),
        &["ppc64le:guest", "ppc64le:loaded"], Value::Ratio("ppc64le:loaded/work", "ppc64le:guest/work")),
    row("ppc64le-empty", "... with an empty plugin", Unit::Ratio, None,
        &["ppc64le:guest", "ppc64le:empty"], Value::Ratio("ppc64le:empty/work", "ppc64le:guest/work")),
    row("ppc64le-count", "A hit that counts", Unit::Nanoseconds, at_most(5.0),
        &["ppc64le:count"], Value::PerHit(Hit::new("ppc64le:count", "getppid"))),
    row("ppc64le-event-3", "A hit with three registers", Unit::Nanoseconds, at_most(200.0),
        &["ppc64le:event-3"], Value::PerHit(Hit::new("ppc64le:event-3", "getppid"))),
    row("ppc64le-return", "A call and its return, with value and latency", Unit::Nanoseconds, at_most(400.0),
        &["ppc64le:return"], Value::PerHit(Hit::new("ppc64le:return", "getppid"))),
    row("sparc64-loaded", "sparc64 guest with the plugin loaded and no probe, over one without plugin", Unit::Ratio, at_most(1.01),
        &["sparc64:guest", "sparc64:loaded"], Value::Ratio("sparc64:loaded/work", "sparc64:guest/work")),
    row("sparc64-empty", "... with an empty plugin", Unit::Ratio, None,
        &["sparc64:guest", "sparc64:empty"], Value::Ratio("sparc64:empty/work", "sparc64:guest/work")),
    row("sparc64-count", "A hit that counts", Unit::Nanoseconds, at_most(5.0),
        &["sparc64:count"], Value::PerHit(Hit::new("sparc64:count", "getppid"))),
    row("sparc64-event-3", "A hit with three registers", Unit::Nanoseconds, at_most(200.0),
        &["sparc64:event-3"], Value::PerHit(Hit::new("sparc64:event-3", "getppid"))),
    row("sparc64-return", "A call and its return, with value and latency", Unit::Nanoseconds, at_most(400.0),
        &["sparc64:return"], Value::PerHit(Hit::new("sparc64:return", "getppid"))),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn round(values: &[(&str, f64)]) -> Round {
        let mut round = Round::default();
        for (name, value) in values {
            round.set(*name, *value);
        }
        round
    }

    fn value(name: &str, round: &Round) -> Option<f64> {
        ROWS.iter().find(|row| row.name == name).and_then(|row| row.value(round))
    }

    #[test]
    fn names_are_unique_and_needs_exist() {
        for (index, row) in ROWS.iter().enumerate() {
            assert!(ROWS[..index].iter().all(|other| other.name != row.name), "{}", row.name);
            for need in row.needs {
                assert!(CONFIGURATIONS.iter().any(|configuration| configuration.name == *need), "{need}");
            }
        }
    }

    #[test]
    fn values_of_a_round() {
        let round = round(&[
            ("elsewhere/getppid", 500.0),
            ("event/getppid-more", 80.0),
            ("event/hits", 1.0),
            ("count-all/getppid-more", 30.0),
            ("count-all/hits", 10.0),
            ("count/getppid-more", -1.0),
            ("count/hits", 1.0),
            ("guest-kprobe/ftrace", 2400.0),
            ("plain/getppid", 400.0),
            ("gdb/getppid", 80_400.0),
        ]);
        assert_eq!(value("event", &round), Some(80.0));
        assert_eq!(value("count-all", &round), Some(3.0));
        // Noise may leave less than nothing for a hit: the table shows it.
        assert_eq!(value("count", &round), Some(-1.0));
        assert_eq!(value("factor-ftrace", &round), Some(30.0));
        assert_eq!(value("factor-gdb", &round), Some(1000.0));
        assert_eq!(value("empty-call", &round), Some(100.0));
        assert_eq!(value("event-3", &round), None);
    }

    #[test]
    fn values_of_changes_and_effects() {
        let round = round(&[
            ("override/getppid-more", -50.0),
            ("override/hits", 1.0),
            ("verify/getppid-more", 2600.0),
            ("verify/hits", 13.0),
            ("arm/hot-add", 0.5),
            ("arm/hot-delete", 0.25),
            ("arm/many-add", 40.0),
            ("never/work", 400.0),
            ("removed/work", 404.0),
            ("removed/getppid", 512.0),
            ("removed-before/getppid", 510.0),
        ]);
        // The function's body is not executed.
        assert_eq!(value("override", &round), Some(-50.0));
        assert_eq!(value("verify", &round), Some(200.0));
        assert_eq!(value("arm", &round), Some(0.5));
        assert_eq!(value("disarm", &round), Some(0.25));
        assert_eq!(value("arm-1000", &round), Some(40.0));
        assert_eq!(value("arm-1cpu", &round), None);
        assert_eq!(value("removed", &round), Some(1.01));
        assert_eq!(value("removed-call", &round), Some(2.0));
    }

    #[test]
    fn no_factor_over_less_than_nothing() {
        let values = [("event/getppid-more", -1.0), ("event/hits", 1.0), ("guest-kprobe/int3", 1.0)];
        assert_eq!(value("factor-int3", &round(&values)), None);
    }

    #[test]
    fn bounds() {
        assert!(Bound::AtMost(5.0).holds(5.0));
        assert!(!Bound::AtMost(5.0).holds(5.1));
        assert!(Bound::AtLeast(10.0).holds(10.0));
        assert!(!Bound::AtLeast(10.0).holds(9.9));
    }
}
