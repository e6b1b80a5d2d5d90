//! What a hit does to the guest.

use qkprobe_arch::GuestAddr;
use qkprobe_lang::Halt;

use super::Serving;
use super::fake::{Bench, CALLER, DO_ONE, DO_TWO, FakeBlock, FakeState, count};
use super::fake_state::STACKS;
use super::hit::{After, Halted};
use super::kprobe::{Access, Handler};
use super::vcpu::Vcpu;
use crate::api::handlers::{Pre, StepHandlers};
use crate::counters::Totals;
use crate::qemu::inline_count::InlineCounter;
use crate::registry::Place;

const SP: u64 = STACKS + 0x3e80;

fn kernel() -> FakeState {
    let state = FakeState::kernel();
    state.set("sp", SP);
    state
}

fn execute(bench: &Bench, vcpu: &Vcpu, addr: u64, state: &FakeState) -> After {
    bench.execute(vcpu, addr, state, Serving::Plain)
}

fn jump(addr: u64) -> After {
    After { jump: Some(GuestAddr(addr)), halt: None }
}

#[test]
fn registers_and_memory_are_set_in_order() {
    let mut bench = Bench::with_text();
    let line = "p:a do_one ax=%ax di=%di do set:%ax=5 set:%di=0xffffc90000003000 set:+8(%di):u16=0x1234 set:%bx=-1";
    let (_, output) = bench.probe(line);
    let (vcpu, state) = (bench.vcpu(0, 1 << 16), kernel());
    state.poke(STACKS + 0x3008, u64::MAX);
    assert_eq!(execute(&bench, &vcpu, DO_ONE, &state), After::default());
    assert_eq!((state.get("ax"), state.get("di"), state.get("bx")), (5, STACKS + 0x3000, u64::MAX));
    assert_eq!(state.peek(STACKS + 0x3008), 0xffff_ffff_ffff_1234);
    assert_eq!(bench.totals(output).effects, 1);
    // The record shows what was there before.
    assert_eq!(bench.events(), ["a: (do_one) ax=0xa7000 di=0xe7000"]);
}

#[test]
fn what_cannot_be_set_is_missed() {
    let mut bench = Bench::with_text();
    let (_, output) = bench.probe("p:a do_one do set:+0(%di):u64=1 set:%ax=5");
    let (vcpu, state) = (bench.vcpu(0, 1 << 16), kernel());
    execute(&bench, &vcpu, DO_ONE, &state);
    let totals = bench.totals(output);
    assert_eq!((totals.hits, totals.missed, totals.effects), (1, 1, 0));
    assert_eq!(state.get("ax"), 5, "the others are set");
    bench.finish();
}

#[test]
fn a_post_effect_sees_the_state_behind_the_instruction() {
    let mut bench = Bench::with_text();
    let (_, output) = bench.probe("p:a do_one+5 do post set:%ax=7");
    let (vcpu, state) = (bench.vcpu(0, 1 << 16), kernel());
    execute(&bench, &vcpu, DO_ONE + 5, &state);
    assert_eq!(state.get("ax"), 0xa_7000);
    bench.behind(&vcpu, DO_ONE + 5, &state);
    assert_eq!((state.get("ax"), bench.totals(output).effects), (7, 1));
    bench.finish();
}

#[test]
fn a_return_probe_sets_the_result() {
    let mut bench = Bench::with_text();
    let (_, output) = bench.probe("r:a do_one r=$retval:s64 if r == 0 do set:$retval=-ENOENT");
    let (vcpu, state) = (bench.vcpu(0, 1 << 16), kernel());
    for (result, seen) in [(0, -2), (5, 5)] {
        state.call(CALLER);
        execute(&bench, &vcpu, DO_ONE, &state);
        state.set("ax", result);
        let back = state.ret();
        bench.arrive(&vcpu, back, &state);
        assert_eq!(state.get("ax").cast_signed(), seen);
    }
    let totals = bench.totals(output);
    assert_eq!((totals.hits, totals.filtered, totals.effects), (1, 1, 1));
    bench.finish();
}

#[test]
fn an_override_returns_at_once() {
    let mut bench = Bench::with_text();
    let (_, output) = bench.probe("p:a do_one do override=-ENOENT");
    let (vcpu, state) = (bench.vcpu(0, 1 << 16), kernel());
    state.call(CALLER + 0x10);
    assert_eq!(execute(&bench, &vcpu, DO_ONE, &state), jump(CALLER + 0x10));
    assert_eq!((state.get("ax").cast_signed(), state.get("sp")), (-2, SP));
    assert_eq!(bench.totals(output).effects, 1);
    // The stack is not there: the call goes on.
    state.set("sp", 0x800);
    assert_eq!(execute(&bench, &vcpu, DO_ONE, &state), After::default());
    let totals = bench.totals(output);
    assert_eq!((totals.hits, totals.effects, totals.missed), (2, 1, 1));
    bench.finish();
}

#[test]
fn an_override_of_a_probed_return_is_no_call() {
    let mut bench = Bench::with_text();
    let (_, returns) = bench.probe("r1:a do_one");
    bench.probe("p:b do_one do override=0");
    let (vcpu, state) = (bench.vcpu(0, 1 << 16), kernel());
    for _ in 0..3 {
        state.call(CALLER);
        execute(&bench, &vcpu, DO_ONE, &state);
    }
    // The newer probe hides the older one, as in the kernel.
    assert_eq!(bench.totals(returns), Totals::default());
    bench.finish();
}

#[test]
fn skip_goes_behind_the_instruction() {
    let mut bench = Bench::with_text();
    let (_, output) = bench.probe("p:a do_one do skip");
    let (vcpu, state) = (bench.vcpu(0, 1 << 16), kernel());
    assert_eq!(execute(&bench, &vcpu, DO_ONE, &state), jump(DO_ONE + 5));
    assert_eq!(bench.totals(output).effects, 1);
    bench.finish();
}

#[test]
fn a_replacement_is_executed_instead() {
    let mut bench = Bench::with_text();
    // add $5,%rax: shorter than the nop in whose place it runs.
    bench.probe("p:a do_one do replace=4883c005");
    // jmp +0x10, counted from behind itself.
    bench.probe("p:b do_two+4 do replace=eb10");
    // push %rdi
    bench.probe("p:c do_two do replace=57");
    let (vcpu, state) = (bench.vcpu(0, 1 << 16), kernel());
    state.set("ax", 10);
    assert_eq!(execute(&bench, &vcpu, DO_ONE, &state), jump(DO_ONE + 5));
    assert_eq!(state.get("ax"), 15);
    assert_eq!(execute(&bench, &vcpu, DO_TWO + 4, &state), jump(DO_TWO + 0x16));
    state.set("di", 0x77);
    assert_eq!(execute(&bench, &vcpu, DO_TWO, &state), jump(DO_TWO + 1));
    assert_eq!((state.get("sp"), state.peek(SP - 8)), (SP - 8, 0x77));
    bench.finish();
}

#[test]
fn a_replacement_that_faults_changes_nothing() {
    let mut bench = Bench::with_text();
    // mov (%rdi),%rax
    let (_, output) = bench.probe("p:a do_one do replace=488b07");
    let (vcpu, state) = (bench.vcpu(0, 1 << 16), kernel());
    state.set("di", 0x10);
    assert_eq!(execute(&bench, &vcpu, DO_ONE, &state), After::default());
    let totals = bench.totals(output);
    assert_eq!((totals.effects, totals.missed, state.get("ax")), (0, 1, 0xa_7000));
    bench.finish();
}

/// The hits of ten at which the effect came; every second hit passes the filter.
fn chosen(options: &str) -> Vec<u64> {
    let mut bench = Bench::with_text();
    let (_, output) = bench.probe(&format!("p:a do_one ax=%ax:u64 if ax & 1 do set:%bx=1 {options}"));
    let (vcpu, state) = (bench.vcpu(0, 1 << 16), kernel());
    let hits = (1..=20).filter(|hit| {
        state.set("ax", *hit);
        state.set("bx", 0);
        execute(&bench, &vcpu, DO_ONE, &state);
        state.get("bx") == 1
    });
    let chosen: Vec<u64> = hits.collect();
    let totals = bench.totals(output);
    assert_eq!((totals.hits, totals.filtered, totals.effects), (10, 10, chosen.len() as u64));
    bench.finish();
    chosen
}

#[test]
fn the_attributes_of_fault_injection_count_what_passed_the_filter() {
    assert_eq!(chosen(""), [1, 3, 5, 7, 9, 11, 13, 15, 17, 19]);
    assert_eq!(chosen("nth=3"), [5]);
    assert_eq!(chosen("times=2"), [1, 3]);
    assert_eq!(chosen("interval=4"), [7, 15]);
    assert_eq!(chosen("space=8"), [17, 19]);
    assert_eq!(chosen("probability=0"), [0_u64; 0]);
    let some = chosen("probability=50 seed=1");
    assert!((1..10).contains(&some.len()), "{some:?}");
    assert_eq!(some, chosen("probability=50 seed=1"));
}

fn counting(
    pre: impl Fn() -> Pre + Send + Sync + 'static,
    counter: &std::sync::Arc<std::sync::atomic::AtomicU64>,
) -> Handler {
    let counter = std::sync::Arc::clone(counter);
    Handler::Step(StepHandlers {
        pre: Some(Box::new(move |_| pre())),
        post: Some(Box::new(move |_| {
            counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        })),
    })
}

#[test]
fn the_first_that_changes_the_flow_ends_the_walk() {
    for lands in [false, true] {
        let addr = if lands { DO_ONE + 9 } else { DO_ONE };
        let mut bench = Bench::with_text();
        let posts = std::sync::Arc::default();
        let (_, oldest) = bench.handler(addr, Access::Read, counting(|| Pre::GoOn, &posts));
        bench.handler(addr, Access::Pc, counting(|| Pre::JumpTo(GuestAddr(DO_TWO)), &posts));
        let (_, newest) = bench.handler(addr, Access::Read, counting(|| Pre::GoOn, &posts));
        let (vcpu, state) = (bench.vcpu(0, 1 << 16), kernel());
        let after = if lands { bench.execute_last(&vcpu, addr, &state) } else { execute(&bench, &vcpu, addr, &state) };
        assert_eq!(after, jump(DO_TWO));
        assert_eq!((bench.totals(newest).hits, bench.totals(oldest).hits), (1, 0));
        assert_eq!(bench.awaited(), 0, "nobody waits for the end of what does not run");
        assert_eq!(posts.load(std::sync::atomic::Ordering::Relaxed), 0);
        bench.finish();
    }
}

#[test]
fn a_jump_needs_the_right_to_it() {
    let mut bench = Bench::with_text();
    let posts = std::sync::Arc::default();
    bench.handler(DO_ONE, Access::Write, counting(|| Pre::JumpTo(GuestAddr(DO_TWO)), &posts));
    let (vcpu, state) = (bench.vcpu(0, 1 << 16), kernel());
    assert_eq!(execute(&bench, &vcpu, DO_ONE, &state), After::default());
    bench.finish();
}

#[test]
fn a_halt_is_told_with_its_probe() {
    let mut bench = Bench::with_text();
    let (_, quits) = bench.probe("p:a do_one do quit=3 nth=2");
    let (_, stops) = bench.probe("p:b do_two do stop");
    let (vcpu, state) = (bench.vcpu(0, 1 << 16), kernel());
    let halt = |addr, halt, output| {
        let addr = GuestAddr(addr);
        After { jump: None, halt: Some(Halted { halt, output, addr, may_leave: true }) }
    };
    assert_eq!(execute(&bench, &vcpu, DO_ONE, &state), After::default());
    assert_eq!(execute(&bench, &vcpu, DO_ONE, &state), halt(DO_ONE, Halt::Quit(3), quits));
    assert_eq!(execute(&bench, &vcpu, DO_TWO, &state), halt(DO_TWO, Halt::Stop, stops));
    // The machine was stopped before the instruction: when it goes on, that is the same execution.
    vcpu.will_resume_at(Place::Image(GuestAddr(DO_TWO)), GuestAddr(DO_TWO), Some(SP));
    // An interrupt meanwhile has a hit elsewhere, and one of its own at the same place; both are over before.
    assert_eq!(execute(&bench, &vcpu, DO_ONE, &state), After::default());
    let deeper = kernel();
    deeper.set("sp", SP - 256);
    assert_eq!(execute(&bench, &vcpu, DO_TWO, &deeper), halt(DO_TWO, Halt::Stop, stops));
    assert_eq!(execute(&bench, &vcpu, DO_TWO, &state), After::default());
    assert_eq!(bench.totals(stops).hits, 2);
    assert_eq!(execute(&bench, &vcpu, DO_TWO, &state), halt(DO_TWO, Halt::Stop, stops));
    assert_eq!(bench.totals(stops).hits, 3);
    bench.finish();
}

#[test]
fn a_site_gets_the_highest_access_of_its_enabled_probes() {
    let mut bench = Bench::with_text();
    let vcpu = bench.vcpu(0, 4096);
    let access = |bench: &Bench| {
        let insns = vec![vec![0x0f, 0x1f, 0x44, 0x00, 0x00], vec![0x48, 0x83, 0xc0, 0x05]];
        let (block, _) = bench.translate(&vcpu, FakeBlock { vaddr: DO_ONE, insns, ..FakeBlock::default() });
        block.planted.iter().map(|(_, _, access)| *access).collect::<Vec<_>>()
    };
    assert_eq!(access(&bench), []);
    bench.probe("p:a do_one ax=%ax");
    assert_eq!(access(&bench), [Access::Read]);
    bench.probe("p:b do_one do set:%ax=1");
    assert_eq!(access(&bench), [Access::Write]);
    let (skips, _) = bench.probe("p:c do_one do skip disabled");
    assert_eq!(access(&bench), [Access::Write]);
    bench.registry.set_enabled(skips, true).expect("registered");
    assert_eq!(access(&bench), [Access::Pc]);
    bench.registry.set_enabled(skips, false).expect("registered");
    assert_eq!(access(&bench), [Access::Write]);
    bench.finish();
}

/// A vCPU that is held comes round again and again, which translated code would count.
#[test]
fn nothing_is_counted_inline_where_a_vcpu_is_held() {
    let mut bench = Bench::with_text();
    let vcpu = bench.vcpu(0, 4096);
    let counts = |bench: &Bench| {
        let insns = vec![vec![0x48, 0x83, 0xc0, 0x05]; 2];
        let (block, _) = bench.translate(&vcpu, FakeBlock { vaddr: DO_ONE, insns, ..FakeBlock::default() });
        (block.counts.len(), block.callbacks.iter().map(|(index, _, serving)| (*index, *serving)).collect::<Vec<_>>())
    };
    bench.probe_with("p:counts do_one", |probe| {
        count(probe);
        probe.inline = Some(InlineCounter::for_tests());
    });
    assert_eq!(counts(&bench), (1, vec![]));
    let (stops, _) = bench.probe("p:stops do_one do stop disabled");
    assert_eq!(counts(&bench), (1, vec![]));
    bench.registry.set_enabled(stops, true).expect("registered");
    assert_eq!(counts(&bench), (0, vec![(0, Serving::CountAll)]));
    bench.finish();
}

#[test]
fn what_this_qemu_lacks_is_refused_with_the_version_that_has_it() {
    let mut bench = Bench::with_text();
    bench.api.set_pc = None;
    let refused = bench.prepare("p:a do_one do skip").expect_err("no way to skip");
    assert_eq!(refused.errno, libc::EOPNOTSUPP);
    assert_eq!(
        refused.message,
        "test\nthis changes the guest: QEMU test does not let a plugin set the program counter: that came with QEMU 11.0"
    );
    bench.api.write_register = None;
    let refused = bench.prepare("p:a do_one do set:%ax=1").expect_err("no way to set");
    assert_eq!(
        refused.message,
        "test\nthis changes the guest: QEMU test does not let a plugin set registers and memory: that came with QEMU 10.1"
    );
    // What only reads is possible everywhere.
    bench.prepare("p:a do_one+5 to=$nextpc do post").expect("possible");
    bench.finish();
}

#[test]
fn what_has_no_end_or_no_room_is_refused() {
    let mut bench = Bench::with_text();
    let refused = bench.prepare("p:a do_one+0x14 do post").expect_err("ud2 has no end");
    assert_eq!(refused.errno, libc::EOPNOTSUPP);
    let refused = bench.prepare("p:a do_one+0x10 do replace=75f0").expect_err("a conditional jump");
    assert_eq!(refused.errno, libc::EOPNOTSUPP);
    let arguments: String = (1..=11).map(|n| format!(" a{n}=$arg{n}")).collect();
    let refused = bench.prepare(&format!("r:a do_one{arguments}")).expect_err("too many");
    assert_eq!(
        (refused.errno, refused.message.as_str()),
        (libc::E2BIG, "test\ntoo many different $argN at a return: at most 10")
    );
    bench.finish();
}
