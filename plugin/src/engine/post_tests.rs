//! After the instruction: in its block, and where it goes when its block ends with it.

use std::sync::Arc;

use super::Serving;
use super::fake::{Bench, DO_ONE, DO_TWO, FakeBlock, FakeState, allocations, split};
use super::fake_state::STACKS;
use super::kprobe::{Access, Handler};
use crate::api::handlers::{Pre, StepHandlers};
use crate::counters::Totals;
use crate::primitive::Mutex;

/// add $5,%rax
const ADD: u64 = DO_ONE + 5;
/// jne do_one+0x1b
const BRANCH: u64 = DO_ONE + 9;
const TAKEN: u64 = DO_ONE + 0x1b;
/// call do_two
const CALL: u64 = DO_ONE + 0xb;
/// mov (%rdi),%rax
const LOAD: u64 = DO_ONE + 0x11;
const SP: u64 = STACKS + 0x3e80;

fn kernel() -> FakeState {
    let state = FakeState::kernel();
    state.set("sp", SP);
    state
}

type Log = Arc<Mutex<Vec<String>>>;

/// Handlers before and after, which say so.
fn step(log: &Log, name: &str) -> Handler {
    let (before, after) = (Arc::clone(log), Arc::clone(log));
    let (pre, post) = (format!("pre{name}"), format!("post{name}"));
    Handler::Step(StepHandlers {
        pre: Some(Box::new(move |_| {
            before.lock().push(pre.clone());
            Pre::GoOn
        })),
        post: Some(Box::new(move |_| after.lock().push(post.clone()))),
    })
}

fn three(addr: u64) -> (Bench, Log) {
    let mut bench = Bench::with_text();
    let log = Log::default();
    for name in ["1", "2", "3"] {
        bench.handler(addr, Access::Read, step(&log, name));
    }
    (bench, log)
}

#[test]
fn handlers_of_a_place_run_newest_first_before_and_after() {
    let (bench, log) = three(ADD);
    let (vcpu, state) = (bench.vcpu(0, 4096), kernel());
    bench.execute(&vcpu, ADD, &state, Serving::Plain);
    bench.behind(&vcpu, ADD, &state);
    assert_eq!(log.lock().join(" "), "pre3 pre2 pre1 post3 post2 post1");
    bench.finish();
}

#[test]
fn and_so_they_do_where_the_block_ends() {
    let (bench, log) = three(BRANCH);
    let (vcpu, state) = (bench.vcpu(0, 4096), kernel());
    for (round, way) in [TAKEN, CALL, TAKEN].into_iter().enumerate() {
        bench.execute_last(&vcpu, BRANCH, &state);
        assert_eq!(bench.awaited(), 3);
        assert!(bench.arrive(&vcpu, way, &state), "the way is watched");
        assert_eq!(bench.awaited(), 0);
        assert_eq!(log.lock().join(" "), "pre3 pre2 pre1 post3 post2 post1", "round {round}");
        log.lock().clear();
    }
    // Both ways had their code dropped once.
    assert_eq!(*bench.retranslated.lock(), [TAKEN, CALL]);
    bench.finish();
}

#[test]
fn definitions_run_newest_first_with_the_true_next_pc() {
    let mut bench = Bench::with_text();
    for name in ["a", "b", "c"] {
        bench.probe(&format!("p:{name} do_one+0xb to=$nextpc ip=%ip do post"));
    }
    bench.probe("p:d do_one+5 ax=%ax to=$nextpc do post");
    let (vcpu, state) = (bench.vcpu(0, 1 << 16), kernel());
    // call do_two
    bench.execute_last(&vcpu, CALL, &state);
    state.call(DO_ONE + 0x10);
    assert!(bench.arrive(&vcpu, DO_TWO, &state));
    // add $5,%rax
    state.set("ax", 12);
    bench.execute(&vcpu, ADD, &state, Serving::Plain);
    state.set("ax", 17);
    bench.behind(&vcpu, ADD, &state);
    let at_two = "to=do_two+0x0/0x100 ip=0xffffffff81000200";
    assert_eq!(
        bench.events(),
        [
            format!("c: (do_one+11) {at_two}"),
            format!("b: (do_one+11) {at_two}"),
            format!("a: (do_one+11) {at_two}"),
            "d: (do_one+5) ax=0x11 to=do_one+0x9/0x100".to_owned(),
        ]
    );
}

#[test]
fn a_call_arrives_only_with_the_stack_pointer_that_it_leaves() {
    let mut bench = Bench::with_text();
    let (_, output) = bench.probe("p:a do_one+0xb do post");
    let (vcpu, state) = (bench.vcpu(0, 1 << 16), kernel());
    bench.execute_last(&vcpu, CALL, &state);
    // Somebody else gets there first, on another stack.
    let other = kernel();
    other.set("sp", SP + 0x4000);
    assert!(bench.arrive(&vcpu, DO_TWO, &other));
    assert_eq!(bench.totals(output).hits, 0);
    state.call(DO_ONE + 0x10);
    bench.arrive(&vcpu, DO_TWO, &state);
    bench.arrive(&vcpu, DO_TWO, &state);
    assert_eq!(bench.totals(output).hits, 1);
    bench.finish();
}

#[test]
fn m14_a_probe_that_joins_in_between_gets_no_post() {
    for lands in [false, true] {
        let addr = if lands { BRANCH } else { ADD };
        let mut bench = Bench::with_text();
        let log = Log::default();
        bench.handler(addr, Access::Read, step(&log, "1"));
        let (vcpu, state) = (bench.vcpu(0, 4096), kernel());
        let finish = |bench: &Bench| {
            if lands {
                bench.arrive(&vcpu, TAKEN, &state);
            } else {
                bench.behind(&vcpu, addr, &state);
            }
        };
        let begin = |bench: &Bench| {
            if lands {
                bench.execute_last(&vcpu, addr, &state);
            } else {
                bench.execute(&vcpu, addr, &state, Serving::Plain);
            }
        };
        begin(&bench);
        bench.handler(addr, Access::Read, step(&log, "2"));
        finish(&bench);
        assert_eq!(log.lock().join(" "), "pre1 post1", "lands: {lands}");
        begin(&bench);
        finish(&bench);
        assert_eq!(log.lock().join(" "), "pre1 post1 pre2 pre1 post2 post1", "lands: {lands}");
        bench.finish();
    }
}

#[test]
fn an_execution_that_begins_again_is_counted_once() {
    let mut bench = Bench::with_text();
    let log = Log::default();
    let (_, output) = bench.probe("p:a do_one+0x11 do post");
    let (_, handler) = bench.handler(LOAD, Access::Read, step(&log, "h"));
    let (vcpu, state) = (bench.vcpu(0, 1 << 16), kernel());
    // It faults twice before it ends. Nobody tells of exceptions (QEMU before 10.2).
    for _ in 0..3 {
        bench.execute_last(&vcpu, LOAD, &state);
        assert_eq!(bench.awaited(), 2);
    }
    bench.arrive(&vcpu, LOAD + 3, &state);
    assert_eq!(bench.awaited(), 0);
    let totals = bench.totals(output);
    assert_eq!((totals.hits, totals.reexecuted, totals.missed), (1, 2, 0));
    assert_eq!(bench.totals(handler).reexecuted, 2);
    assert_eq!(log.lock().iter().filter(|text| *text == "posth").count(), 1);
    // The next one is a new execution.
    bench.execute_last(&vcpu, LOAD, &state);
    bench.arrive(&vcpu, LOAD + 3, &state);
    let totals = bench.totals(output);
    assert_eq!((totals.hits, totals.reexecuted), (2, 2));
    bench.finish();
}

/// As an `iret` to a page of a program that is not there yet: the kernel brings the page and returns once more.
#[test]
fn a_transfer_whose_target_could_not_be_fetched_is_counted_once() {
    let mut bench = Bench::with_text();
    let (_, output) = bench.probe("p:a do_one+9 do post");
    let (vcpu, state) = (bench.vcpu(0, 1 << 16), kernel());
    bench.execute_last(&vcpu, BRANCH, &state);
    bench.execute_last(&vcpu, BRANCH, &state);
    bench.arrive(&vcpu, TAKEN, &state);
    let totals = bench.totals(output);
    assert_eq!((totals.hits, totals.reexecuted, totals.missed, totals.abandoned), (1, 1, 0, 0));
    assert_eq!(bench.awaited(), 0);
    bench.finish();
}

/// Two vCPUs on equal stacks, as programs that were forked have them: each execution ends once, whoever of them is first.
#[test]
fn executions_of_two_vcpus_on_equal_stacks() {
    let mut bench = Bench::with_text();
    let (_, output) = bench.probe("p:a do_one+9 do post");
    let (_, second) = bench.probe("p:b do_one+9 do post");
    let (one, other, state) = (bench.vcpu(0, 1 << 16), bench.vcpu(1, 1 << 16), kernel());
    state.set("sp", 0x7ffe_1000);
    bench.execute_last(&one, BRANCH, &state);
    bench.execute_last(&other, BRANCH, &state);
    assert_eq!(bench.awaited(), 4);
    bench.arrive(&one, TAKEN, &state);
    assert_eq!((bench.totals(output).hits, bench.totals(second).hits, bench.awaited()), (1, 1, 2));
    bench.arrive(&other, TAKEN, &state);
    for output in [output, second] {
        assert_eq!(bench.totals(output), Totals { hits: 2, ..bench.totals(output) });
        assert_eq!((bench.totals(output).reexecuted, bench.totals(output).missed), (0, 0));
    }
    assert_eq!(bench.awaited(), 0);
    bench.finish();
}

/// The same at different places of one page, which says nothing of who waits there, as it does on a kernel stack.
#[test]
fn a_programs_stack_is_not_one_vcpus() {
    let mut bench = Bench::with_text();
    let (_, output) = bench.probe("p:a do_one+9 do post");
    let (one, other) = (bench.vcpu(0, 1 << 16), bench.vcpu(1, 1 << 16));
    for (low, high, hits, abandoned) in [(0x7ffe_1000, 0x7ffe_1800, 2, 0), (SP, SP + 8, 3, 1)] {
        let (lower, upper) = (kernel(), kernel());
        lower.set("sp", low);
        upper.set("sp", high);
        bench.execute_last(&one, BRANCH, &lower);
        bench.execute_last(&other, BRANCH, &upper);
        bench.arrive(&other, TAKEN, &upper);
        bench.arrive(&one, TAKEN, &lower);
        assert_eq!((bench.totals(output).hits, bench.totals(output).abandoned), (hits, abandoned), "{low:#x}");
        assert_eq!(bench.awaited(), 0);
    }
    bench.finish();
}

#[test]
fn what_cannot_be_awaited_is_missed() {
    let mut bench = Bench::with_text();
    let (_, output) = bench.probe("p:a do_one+9 do post");
    let (vcpu, state) = (bench.vcpu(0, 1 << 16), kernel());
    bench.can_retranslate.store(false, std::sync::atomic::Ordering::Relaxed);
    bench.execute_last(&vcpu, BRANCH, &state);
    assert_eq!(bench.totals(output), Totals { missed: 1, ..Totals::default() });
    assert_eq!(bench.awaited(), 0);
    bench.can_retranslate.store(true, std::sync::atomic::Ordering::Relaxed);
    bench.execute_last(&vcpu, BRANCH, &state);
    bench.arrive(&vcpu, TAKEN, &state);
    assert_eq!(bench.totals(output).hits, 1);
    bench.finish();
}

#[test]
fn a_post_filter_sees_the_state_behind_the_instruction() {
    let mut bench = Bench::with_text();
    let (_, output) = bench.probe("p:a do_one+5 ax=%ax:u64 if ax == 10 do post");
    let (vcpu, state) = (bench.vcpu(0, 1 << 16), kernel());
    for result in [9, 10, 11, 10] {
        state.set("ax", result - 5);
        bench.execute(&vcpu, ADD, &state, Serving::Plain);
        state.set("ax", result);
        bench.behind(&vcpu, ADD, &state);
    }
    let totals = bench.totals(output);
    assert_eq!((totals.hits, totals.filtered), (2, 2));
    assert_eq!(bench.finish().len(), 2);
}

#[test]
fn neither_a_post_hit_nor_an_arrival_allocates() {
    let mut bench = Bench::with_text();
    bench.probe("p:a do_one+5 ax=%ax s=+0(%si):string do post");
    bench.probe("p:b do_one+0xb to=$nextpc s=+0(%si):string do post");
    bench.probe("r:c do_two r=$retval a=$arg1 t=$latency");
    let (vcpu, state) = (bench.vcpu(0, 1 << 22), kernel());
    let round = || {
        bench.execute(&vcpu, ADD, &state, Serving::Plain);
        bench.behind(&vcpu, ADD, &state);
        bench.execute_last(&vcpu, CALL, &state);
        state.call(DO_ONE + 0x10);
        bench.arrive(&vcpu, DO_TWO, &state);
        bench.execute(&vcpu, DO_TWO, &state, Serving::Plain);
        let back = state.ret();
        bench.arrive(&vcpu, back, &state);
    };
    round();
    let start = allocations();
    for _ in 0..1000 {
        round();
    }
    assert_eq!(allocations() - start, 0, "allocations in 4,000 hits and 2,000 arrivals");
    let lines = bench.finish();
    assert_eq!(lines.len(), 3 * 1001);
    assert!(split(&lines[2]).2.starts_with("c: (do_one+0x10/0x100 <- do_two) r="), "{}", lines[2]);
}

/// A block of the text from an address on, cut into instructions of these lengths.
fn block(vaddr: u64, insns: &[&[u8]]) -> FakeBlock {
    FakeBlock { vaddr, insns: insns.iter().map(|insn| insn.to_vec()).collect(), ..FakeBlock::default() }
}

#[test]
fn the_end_is_seen_in_the_block_or_at_its_successor() {
    let mut bench = Bench::with_text();
    bench.probe("p:a do_one+5 do post");
    bench.probe("p:b do_one+9 do post");
    let vcpu = bench.vcpu(0, 4096);
    let (add, branch): (&[u8], &[u8]) = (&[0x48, 0x83, 0xc0, 0x05], &[0x75, 0x10]);
    let (planted, _) = bench.translate(&vcpu, block(ADD, &[add, branch]));
    // The addition alone needs nothing before it; the branch waits.
    assert_eq!(planted.posts, [(1, ADD, Access::Read)]);
    assert_eq!(planted.planted, [(1, true, Access::Read)]);
    // At the block's end, the addition has to wait, too.
    let (planted, _) = bench.translate(&vcpu, block(ADD, &[add]));
    assert_eq!(planted.posts, []);
    assert_eq!(planted.planted, [(0, true, Access::Read)]);
    // The landings are planted from the first wait on.
    let ways = block(CALL, &[&[0xe8, 0xf0, 0x00, 0x00, 0x00]]);
    let (planted, _) = bench.translate(&vcpu, ways);
    assert_eq!(planted.landings, []);
    bench.execute_last(&vcpu, BRANCH, &kernel());
    let ways = block(CALL, &[&[0xe8, 0xf0, 0x00, 0x00, 0x00]]);
    let (planted, _) = bench.translate(&vcpu, ways);
    assert_eq!(planted.landings, [(0, CALL, Access::Write)]);
    bench.finish();
}

#[test]
fn a_wait_beneath_an_alias_is_for_the_alias() {
    let mut bench = Bench::with_text();
    let (_, output) = bench.probe("p:a do_one+9 to=$nextpc do post");
    let (vcpu, state) = (bench.vcpu(0, 1 << 16), kernel());
    // The kernel's start runs identity mapped.
    const LOW: u64 = 0x100_0000;
    state.block_pc.set(Some(LOW + 0x105));
    bench.execute_last(&vcpu, BRANCH, &state);
    assert!(bench.arrive(&vcpu, LOW + 0x11b, &state));
    assert_eq!(bench.totals(output).hits, 1);
    assert_eq!(bench.events(), ["a: (do_one+9) to=0x100011b"]);
}
