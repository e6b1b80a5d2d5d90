//! An instruction that raised an exception and runs again is one hit.

use qkprobe_arch::GuestAddr;

use super::Serving;
use super::fake::{Bench, DO_ONE, FakeState};
use super::fake_state::STACKS;
use super::kprobe::{Handler, Watch};
use super::restart::exception;
use super::vcpu::Vcpu;

/// mov (%rdi),%rax
const LOAD: u64 = DO_ONE + 0x11;
const BLOCK: u64 = DO_ONE + 0x10;
const SP: u64 = STACKS + 0x3e88;
/// Where the CPU stores the interrupted program counter, and the flags.
const FRAME: u64 = STACKS + 0x3e58;

fn kernel() -> FakeState {
    let state = FakeState::kernel();
    state.set("sp", SP);
    state.block_pc.set(Some(BLOCK));
    state
}

fn execute(bench: &Bench, vcpu: &Vcpu, state: &FakeState) {
    bench.execute(vcpu, LOAD, state, Serving::Plain);
}

/// QEMU tells of an exception, then the CPU stores its frame.
fn fault(bench: &Bench, vcpu: &Vcpu, state: &FakeState, pc: u64) {
    exception(&bench.env(), vcpu, state, GuestAddr(BLOCK));
    state.poke(FRAME, pc);
    state.poke(FRAME + 16, 0x246);
}

fn restarts(bench: &Bench, vcpu: &Vcpu) -> u32 {
    bench.site(vcpu, LOAD).expect("armed").restarts().load(std::sync::atomic::Ordering::Relaxed)
}

#[test]
fn the_same_instruction_again_is_a_restart() {
    let mut bench = Bench::with_text();
    let (_, output) = bench.probe("p:a do_one+0x11");
    let (_, all) = bench.probe("p:b do_one+0x11 do attempts");
    let (vcpu, state) = (bench.vcpu(0, 1 << 16), kernel());
    execute(&bench, &vcpu, &state);
    for _ in 0..2 {
        fault(&bench, &vcpu, &state, LOAD);
        assert_eq!(restarts(&bench, &vcpu), 1);
        execute(&bench, &vcpu, &state);
        assert_eq!(restarts(&bench, &vcpu), 0);
    }
    let totals = bench.totals(output);
    assert_eq!((totals.hits, totals.reexecuted), (1, 2));
    let totals = bench.totals(all);
    assert_eq!((totals.hits, totals.reexecuted), (3, 2));
    // Without an exception it is a new execution, though the old frame still lies there.
    execute(&bench, &vcpu, &state);
    assert_eq!(bench.totals(output).hits, 2);
    assert_eq!(
        bench.events(),
        ["b: (do_one+17)", "a: (do_one+17)", "b: (do_one+17)", "b: (do_one+17)", "b: (do_one+17)", "a: (do_one+17)"]
    );
}

#[test]
fn another_address_in_the_frame_is_a_new_execution() {
    let mut bench = Bench::with_text();
    let (_, output) = bench.probe("p:a do_one+0x11");
    let (vcpu, state) = (bench.vcpu(0, 1 << 16), kernel());
    execute(&bench, &vcpu, &state);
    // The handler changed it: a fix-up.
    fault(&bench, &vcpu, &state, LOAD + 0x30);
    execute(&bench, &vcpu, &state);
    let totals = bench.totals(output);
    assert_eq!((totals.hits, totals.reexecuted), (2, 0));
    assert_eq!(restarts(&bench, &vcpu), 0);
    bench.finish();
}

#[test]
fn what_is_told_twice_counts_once() {
    let mut bench = Bench::with_text();
    let (_, output) = bench.probe("p:a do_one+0x11");
    let (vcpu, state) = (bench.vcpu(0, 1 << 16), kernel());
    execute(&bench, &vcpu, &state);
    fault(&bench, &vcpu, &state, LOAD);
    fault(&bench, &vcpu, &state, LOAD);
    assert_eq!((restarts(&bench, &vcpu), bench.awaited()), (1, 1));
    execute(&bench, &vcpu, &state);
    let totals = bench.totals(output);
    assert_eq!((totals.hits, totals.reexecuted), (1, 1));
    assert_eq!((restarts(&bench, &vcpu), bench.awaited()), (0, 0));
    bench.finish();
}

#[test]
fn exceptions_from_elsewhere_are_nobodys() {
    let mut bench = Bench::with_text();
    bench.probe("p:a do_one+0x11");
    let (vcpu, state) = (bench.vcpu(0, 1 << 16), kernel());
    // Before any hit, and from another block.
    fault(&bench, &vcpu, &state, LOAD);
    execute(&bench, &vcpu, &state);
    exception(&bench.env(), &vcpu, &state, GuestAddr(BLOCK - 0x40));
    assert_eq!((restarts(&bench, &vcpu), bench.awaited()), (0, 0));
    bench.finish();
}

#[test]
fn another_task_at_the_same_place_is_no_restart() {
    let mut bench = Bench::with_text();
    let (_, output) = bench.probe("p:a do_one+0x11");
    let (vcpu, state, other) = (bench.vcpu(0, 1 << 16), kernel(), kernel());
    other.set("sp", SP + 0x4000);
    execute(&bench, &vcpu, &state);
    fault(&bench, &vcpu, &state, LOAD);
    // The handler sleeps; another task runs the same code, and then the first goes on.
    execute(&bench, &vcpu, &other);
    assert_eq!(bench.totals(output).hits, 2);
    execute(&bench, &vcpu, &state);
    let totals = bench.totals(output);
    assert_eq!((totals.hits, totals.reexecuted), (2, 1));
    bench.finish();
}

#[test]
fn a_restart_that_never_comes_is_over_with_its_frame() {
    let mut bench = Bench::with_text();
    let (_, output) = bench.probe("p:a do_one+0x11");
    bench.handler(DO_ONE, super::kprobe::Access::Read, Handler::Watch(Watch::Stack));
    bench.probe("r:r do_two");
    let (vcpu, state) = (bench.vcpu(0, 1 << 16), kernel());
    execute(&bench, &vcpu, &state);
    fault(&bench, &vcpu, &state, LOAD);
    // The task is killed in the handler.
    bench.execute(&vcpu, DO_ONE, &state, Serving::Plain);
    assert_eq!((restarts(&bench, &vcpu), bench.awaited()), (0, 0));
    execute(&bench, &vcpu, &state);
    // Or the frame goes, and the stack is used for a call further up.
    fault(&bench, &vcpu, &state, LOAD);
    state.set("sp", SP + 0x40);
    state.call(0x1234);
    bench.execute(&vcpu, super::fake::DO_TWO, &state, Serving::Plain);
    assert_eq!((restarts(&bench, &vcpu), bench.awaited()), (0, 1));
    assert_eq!(bench.totals(output).hits, 2);
    bench.finish();
}

/// It waits at the instruction's end, and the exception is told: one restart.
#[test]
fn a_post_probe_counts_a_restart_that_was_told() {
    let mut bench = Bench::with_text();
    let (_, output) = bench.probe("p:a do_one+0x11 do post");
    let (vcpu, state) = (bench.vcpu(0, 1 << 16), kernel());
    bench.execute_last(&vcpu, LOAD, &state);
    fault(&bench, &vcpu, &state, LOAD);
    bench.execute_last(&vcpu, LOAD, &state);
    bench.arrive(&vcpu, LOAD + 3, &state);
    let totals = bench.totals(output);
    assert_eq!((totals.hits, totals.reexecuted), (1, 1));
    bench.finish();
}

/// `Watch::Life` on one vCPU forgets what another one is about to take.
#[test]
fn a_restart_is_given_up_once() {
    let mut bench = Bench::with_text();
    bench.probe("p:a do_one+0x11");
    bench.handler(DO_ONE, super::kprobe::Access::Read, Handler::Watch(Watch::Life));
    let (vcpu, state) = (bench.vcpu(0, 1 << 16), kernel());
    execute(&bench, &vcpu, &state);
    fault(&bench, &vcpu, &state, LOAD);
    bench.execute(&vcpu, DO_ONE, &state, Serving::Plain);
    assert_eq!((restarts(&bench, &vcpu), bench.awaited()), (0, 0));
    execute(&bench, &vcpu, &state);
    assert_eq!(restarts(&bench, &vcpu), 0);
    bench.finish();
}
