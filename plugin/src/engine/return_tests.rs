//! Return probes: spec 1.10 without a guest.

use std::sync::Arc;

use qkprobe_lang::Format;

use super::Serving;
use super::fake::{Bench, CALLER, DO_ONE, DO_TWO, FakeState};
use super::fake_state::STACKS;
use super::kprobe::{Access, Handler, Kretprobe, ReturnWork, Watch};
use super::vcpu::Vcpu;
use crate::api::handlers::ReturnHandlers;
use crate::counters::Totals;
use crate::primitive::Mutex;

const SP: u64 = STACKS + 0x3e80;
const BACK: u64 = CALLER + 0x10;

fn kernel() -> FakeState {
    let state = FakeState::kernel();
    state.set("sp", SP);
    state
}

fn enter(bench: &Bench, vcpu: &Vcpu, state: &FakeState, function: u64) {
    bench.execute(vcpu, function, state, Serving::Plain);
}

fn call(bench: &Bench, vcpu: &Vcpu, state: &FakeState, function: u64) {
    state.call(BACK);
    enter(bench, vcpu, state, function);
}

fn ret(bench: &Bench, vcpu: &Vcpu, state: &FakeState) {
    let back = state.ret();
    bench.arrive(vcpu, back, state);
}

type Log = Arc<Mutex<Vec<String>>>;

/// A return probe of a Rust program; `entry` says whether the return is wanted.
fn handlers(
    log: &Log,
    name: &str,
    maxactive: Option<u32>,
    entry: impl Fn() -> bool + Send + Sync + 'static,
) -> Handler {
    let (first, last) = (Arc::clone(log), Arc::clone(log));
    let (entered, returned) = (format!("e{name}"), format!("h{name}"));
    let work = ReturnWork::Handlers(ReturnHandlers {
        entry: Some(Box::new(move |hit, data| {
            first.lock().push(entered.clone());
            data[87] = hit.argument(1).expect("an argument") as u8;
            entry()
        })),
        handler: Box::new(move |hit, data| {
            let value = hit.return_value().expect("a result");
            last.lock().push(format!("{returned}={value} {} {}", data[87], hit.addr()));
        }),
    });
    Handler::Return(Kretprobe::new(work, maxactive))
}

fn taken(log: &Log) -> String {
    std::mem::take(&mut *log.lock()).join(", ")
}

#[test]
fn entries_run_newest_first_and_returns_oldest_first() {
    let mut bench = Bench::with_text();
    let log = Log::default();
    for name in ["1", "2", "3"] {
        bench.handler(DO_ONE, Access::Read, handlers(&log, name, None, || true));
    }
    let (vcpu, state) = (bench.vcpu(0, 4096), kernel());
    state.set("di", 5);
    call(&bench, &vcpu, &state, DO_ONE);
    assert_eq!(taken(&log), "e3, e2, e1");
    state.set("ax", 13);
    state.set("di", 6);
    ret(&bench, &vcpu, &state);
    let at = "0xffffffff81000310";
    assert_eq!(taken(&log), format!("h1=13 5 {at}, h2=13 5 {at}, h3=13 5 {at}"));
    assert_eq!(bench.awaited(), 0);
    bench.finish();
}

#[test]
fn recursion_beyond_maxactive_is_missed() {
    let mut bench = Bench::with_text();
    let (_, limited) = bench.probe("r2:a do_one d=$arg1:u64");
    let (_, free) = bench.probe("r:b do_one");
    let (vcpu, state) = (bench.vcpu(0, 1 << 16), kernel());
    for round in 1..=3 {
        for depth in 1..=5 {
            state.set("di", depth);
            call(&bench, &vcpu, &state, DO_ONE);
        }
        assert_eq!(bench.totals(limited).pending(), 2);
        for _ in 0..5 {
            ret(&bench, &vcpu, &state);
        }
        let totals = bench.totals(limited);
        assert_eq!((totals.hits, totals.missed, totals.entered), (2 * round, 3 * round, 2 * round));
        assert_eq!((totals.pending(), totals.abandoned), (0, 0));
        assert_eq!(bench.totals(free).hits, 5 * round);
    }
    // The two outermost calls: the inner one returns first.
    let lines = bench.events();
    let limited: Vec<&str> =
        lines.iter().filter(|line| line.starts_with("a:")).map(|line| &line[line.len() - 3..]).collect();
    assert_eq!(limited, ["d=2", "d=1", "d=2", "d=1", "d=2", "d=1"]);
}

#[test]
fn an_entry_handler_that_declines_is_neither_reported_nor_missed() {
    let mut bench = Bench::with_text();
    let log = Log::default();
    let (_, output) = bench.handler(DO_ONE, Access::Read, handlers(&log, "1", Some(1), || false));
    let (vcpu, state) = (bench.vcpu(0, 4096), kernel());
    for _ in 0..3 {
        call(&bench, &vcpu, &state, DO_ONE);
        ret(&bench, &vcpu, &state);
    }
    assert_eq!(taken(&log), "e1, e1, e1");
    assert_eq!(bench.totals(output), Totals::default());
    bench.finish();
}

#[test]
fn a_tail_call_returns_for_both_innermost_first() {
    let mut bench = Bench::with_text();
    let log = Log::default();
    bench.handler(DO_ONE, Access::Read, handlers(&log, "1", None, || true));
    bench.handler(DO_TWO, Access::Read, handlers(&log, "2", None, || true));
    let (vcpu, state) = (bench.vcpu(0, 4096), kernel());
    state.set("di", 0);
    call(&bench, &vcpu, &state, DO_ONE);
    // jmp do_two
    enter(&bench, &vcpu, &state, DO_TWO);
    state.set("ax", 13);
    ret(&bench, &vcpu, &state);
    let at = "0xffffffff81000310";
    assert_eq!(taken(&log), format!("e1, e2, h2=13 0 {at}, h1=13 0 {at}"));
    bench.finish();
}

#[test]
fn a_task_may_return_on_another_vcpu() {
    let mut bench = Bench::with_text();
    let (_, output) = bench.probe("r:a do_one");
    let (first, second) = (bench.vcpu(0, 1 << 16), bench.vcpu(1, 1 << 16));
    let (task, other) = (kernel(), kernel());
    other.set("sp", SP + 0x4000);
    call(&bench, &first, &task, DO_ONE);
    call(&bench, &second, &other, DO_ONE);
    ret(&bench, &first, &other);
    ret(&bench, &second, &task);
    assert_eq!(bench.totals(output).hits, 2);
    let lines = bench.finish();
    let cpus: Vec<&str> = lines.iter().map(|line| &line[25..30]).collect();
    assert_eq!(cpus, ["[000]", "[001]"]);
}

#[test]
fn frames_that_were_unwound_are_abandoned() {
    let mut bench = Bench::with_text();
    let (_, output) = bench.probe("r3:a do_one");
    let (vcpu, state) = (bench.vcpu(0, 1 << 16), kernel());
    for _ in 0..3 {
        call(&bench, &vcpu, &state, DO_ONE);
    }
    // A long jump to the outermost frame, which has used some stack and calls again.
    state.set("sp", SP - 8);
    state.call(BACK);
    enter(&bench, &vcpu, &state, DO_ONE);
    let totals = bench.totals(output);
    // The innermost is gone, and its place is there for this call.
    assert_eq!((totals.abandoned, totals.missed), (1, 0));
    bench.finish();
}

#[test]
fn frames_that_were_unwound_give_their_places_back() {
    let mut bench = Bench::with_text();
    let (_, output) = bench.probe("r3:a do_one");
    let (vcpu, state) = (bench.vcpu(0, 1 << 16), kernel());
    for _ in 0..3 {
        call(&bench, &vcpu, &state, DO_ONE);
    }
    state.set("sp", SP);
    // Another probe's wait sees the stack pointer first.
    bench.probe("r:b do_two");
    call(&bench, &vcpu, &state, DO_TWO);
    let totals = bench.totals(output);
    assert_eq!((totals.entered, totals.abandoned, totals.pending()), (3, 2, 1));
    ret(&bench, &vcpu, &state);
    // The outermost had the same frame as the call that returned: it is taken for one that did a tail call.
    let totals = bench.totals(output);
    assert_eq!((totals.hits, totals.abandoned, totals.pending()), (1, 2, 0));
    for _ in 0..3 {
        call(&bench, &vcpu, &state, DO_ONE);
    }
    assert_eq!(bench.totals(output).missed, 0, "all places are there again");
    bench.finish();
}

#[test]
fn the_end_of_a_task_ends_its_calls() {
    let mut bench = Bench::with_text();
    let (_, output) = bench.probe("r2:a do_one");
    bench.handler(CALLER, Access::Read, Handler::Watch(Watch::Stack));
    let (vcpu, task, other) = (bench.vcpu(0, 1 << 16), kernel(), kernel());
    other.set("sp", SP + 0x4000);
    call(&bench, &vcpu, &task, DO_ONE);
    call(&bench, &vcpu, &other, DO_ONE);
    // The task ends, far below its calls and on another page.
    task.set("sp", STACKS + 0x800);
    enter(&bench, &vcpu, &task, CALLER);
    let totals = bench.totals(output);
    assert_eq!((totals.abandoned, totals.pending()), (1, 1));
    ret(&bench, &vcpu, &other);
    let totals = bench.totals(output);
    assert_eq!((totals.hits, totals.pending()), (1, 0));
    // Both places are there again.
    task.set("sp", SP);
    call(&bench, &vcpu, &task, DO_ONE);
    call(&bench, &vcpu, &task, DO_ONE);
    assert_eq!(bench.totals(output).missed, 0);
    bench.finish();
}

#[test]
fn a_new_life_of_the_kernel_ends_all_calls() {
    let mut bench = Bench::with_text();
    let (_, output) = bench.probe("r:a do_one");
    bench.handler(CALLER, Access::Read, Handler::Watch(Watch::Life));
    let (vcpu, state) = (bench.vcpu(0, 1 << 16), kernel());
    for stack in 0..3 {
        state.set("sp", SP + stack * 0x4000);
        call(&bench, &vcpu, &state, DO_ONE);
    }
    enter(&bench, &vcpu, &state, CALLER);
    let totals = bench.totals(output);
    assert_eq!((totals.entered, totals.abandoned, totals.pending()), (3, 3, 0));
    ret(&bench, &vcpu, &state);
    assert_eq!(bench.totals(output).hits, 0);
    bench.finish();
}

/// Its return cannot be awaited either, but before that is known another vCPU, higher on an equal stack, has found it to be over.
#[test]
fn a_call_that_another_vcpu_took_is_not_missed_too() {
    let mut bench = Bench::with_text();
    let (_, output) = bench.probe("r1:a do_one");
    let (vcpu, state) = (bench.vcpu(0, 1 << 16), kernel());
    let pending = Arc::clone(&bench.pending);
    bench.retranslate = Box::new(move |_| {
        pending.end_stack(SP, &mut |_| {});
        false
    });
    call(&bench, &vcpu, &state, DO_ONE);
    assert_eq!((bench.totals(output).missed, bench.totals(output).entered), (0, 1));
    assert_eq!(bench.awaited(), 0);
    bench.finish();
}

#[test]
fn a_call_that_cannot_be_awaited_is_missed() {
    let mut bench = Bench::with_text();
    let (_, output) = bench.probe("r1:a do_one");
    let (vcpu, state) = (bench.vcpu(0, 1 << 16), kernel());
    bench.can_retranslate.store(false, std::sync::atomic::Ordering::Relaxed);
    call(&bench, &vcpu, &state, DO_ONE);
    let totals = bench.totals(output);
    assert_eq!((totals.missed, totals.pending(), totals.hits), (1, 0, 0));
    // The stack is not mapped.
    state.set("sp", 0x800);
    enter(&bench, &vcpu, &state, DO_ONE);
    let totals = bench.totals(output);
    assert_eq!((totals.missed, totals.pending(), totals.hits), (2, 0, 0));
    // Its place was given back.
    bench.can_retranslate.store(true, std::sync::atomic::Ordering::Relaxed);
    state.set("sp", SP);
    call(&bench, &vcpu, &state, DO_ONE);
    ret(&bench, &vcpu, &state);
    assert_eq!(bench.totals(output).hits, 1);
    bench.finish();
}

#[test]
fn the_record_shows_result_saved_arguments_and_latency() {
    let mut bench = Bench::with_text();
    bench.probe("r:a do_one r=$retval:s32 one=$arg1 two=$arg2:u64 t=$latency");
    let (vcpu, state) = (bench.vcpu(0, 1 << 16), kernel());
    state.set("di", 0x1234);
    state.set("si", 77);
    call(&bench, &vcpu, &state, DO_ONE);
    state.set("di", 0);
    state.set("si", 0);
    state.set("ax", 0xffff_fffe);
    std::thread::sleep(std::time::Duration::from_millis(2));
    ret(&bench, &vcpu, &state);
    let lines = bench.events();
    let (head, latency) = lines[0].split_once(" t=").expect("the last argument");
    assert_eq!(head, "a: (caller+0x10/0xd00 <- do_one) r=-2 one=0x1234 two=77");
    let latency: u64 = latency.parse().expect("a number");
    assert!((2_000_000..120_000_000_000).contains(&latency), "{latency} ns");
}

#[test]
fn json_names_the_caller() {
    let mut bench = Bench::with_text_as(Format::Json);
    bench.probe("r:a do_one r=$retval:u64");
    let (vcpu, state) = (bench.vcpu(0, 1 << 16), kernel());
    state.call(0x1234);
    enter(&bench, &vcpu, &state, DO_ONE);
    state.set("ax", 3);
    ret(&bench, &vcpu, &state);
    call(&bench, &vcpu, &state, DO_ONE);
    ret(&bench, &vcpu, &state);
    let lines = bench.finish_whole();
    let records: Vec<serde_json::Value> = lines
        .iter()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .filter(|line: &serde_json::Value| line["type"] == "event")
        .collect();
    // No name: the address.
    assert_eq!(records[0]["caller"], "0x1234");
    assert_eq!(records[1]["caller"], "caller+0x10/0xd00");
    for record in &records {
        assert_eq!((&record["event"], &record["group"]), (&"a".into(), &"kprobes".into()));
        assert_eq!((&record["place"], &record["args"]["r"]), (&"do_one".into(), &3.into()));
    }
    assert_eq!(records.len(), 2);
}

#[test]
fn a_filter_looks_at_the_return() {
    let mut bench = Bench::with_text();
    let (_, output) = bench.probe("r1:a do_one r=$retval:s64 one=$arg1:u64 if r < 0 && one == 2");
    let (vcpu, state) = (bench.vcpu(0, 1 << 16), kernel());
    for (argument, result) in [(2, 5), (1, -1_i64), (2, -1), (3, 0)] {
        state.set("di", argument);
        call(&bench, &vcpu, &state, DO_ONE);
        state.set("di", 99);
        state.set("ax", result as u64);
        ret(&bench, &vcpu, &state);
    }
    let totals = bench.totals(output);
    assert_eq!((totals.hits, totals.filtered, totals.missed, totals.pending()), (1, 3, 0, 0));
    assert_eq!(bench.events(), ["a: (caller+0x10/0xd00 <- do_one) r=-1 one=2"]);
}
