//! A return probe goes while calls are pending: no handler afterwards, nothing used after it is freed, and the others lose
//! nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::Serving;
use super::fake::{Bench, CALLER, DO_ONE, FakeState};
use super::fake_state::STACKS;
use super::hit::arrive;
use super::kprobe::{Access, Handler, Kretprobe, ReturnWork};
use super::pending::DATA_BYTES;
use crate::api::handlers::ReturnHandlers;

const SP: u64 = STACKS + 0x3e80;
const BACK: u64 = CALLER + 0x10;

/// What a probe's handlers own: says when it goes, and is asked whether it is still there.
struct Owned {
    alive: Arc<AtomicBool>,
    returns: Arc<AtomicU64>,
}

impl Drop for Owned {
    fn drop(&mut self) {
        self.alive.store(false, Ordering::SeqCst);
    }
}

struct Probe {
    alive: Arc<AtomicBool>,
    returns: Arc<AtomicU64>,
}

fn handler(maxactive: Option<u32>) -> (Handler, Probe) {
    let probe = Probe { alive: Arc::new(AtomicBool::new(true)), returns: Arc::new(AtomicU64::new(0)) };
    let owned = Owned { alive: Arc::clone(&probe.alive), returns: Arc::clone(&probe.returns) };
    let work = ReturnWork::Handlers(ReturnHandlers {
        entry: Some(Box::new(|_, data: &mut [u8; DATA_BYTES]| {
            data.fill(0x5a);
            true
        })),
        handler: Box::new(move |_, data| {
            assert!(owned.alive.load(Ordering::SeqCst), "a handler runs after its probe was freed");
            assert_eq!(*data, [0x5a; DATA_BYTES]);
            owned.returns.fetch_add(1, Ordering::SeqCst);
        }),
    });
    (Handler::Return(Kretprobe::new(work, maxactive)), probe)
}

#[test]
fn pending_calls_of_a_probe_that_went_return_in_silence() {
    let mut bench = Bench::with_text();
    let (gone, probe) = handler(Some(4));
    let (id, _) = bench.handler(DO_ONE, Access::Read, gone);
    let (stays, other) = handler(None);
    bench.handler(DO_ONE, Access::Read, stays);
    let (vcpu, state) = (bench.vcpu(0, 4096), FakeState::kernel());
    state.set("sp", SP);
    for _ in 0..3 {
        state.call(BACK);
        bench.execute(&vcpu, DO_ONE, &state, Serving::Plain);
    }
    bench.remove(id);
    assert!(!probe.alive.load(Ordering::SeqCst), "nothing holds it any more");
    assert_eq!(bench.awaited(), 3);
    for _ in 0..3 {
        let back = state.ret();
        assert!(bench.arrive(&vcpu, back, &state), "the landing stays for the other probe");
    }
    assert_eq!((probe.returns.load(Ordering::SeqCst), other.returns.load(Ordering::SeqCst)), (0, 3));
    assert_eq!(bench.awaited(), 0);
    bench.finish();
}

#[test]
fn landings_go_with_the_last_who_waits_there() {
    let mut bench = Bench::with_text();
    let (first, _) = handler(None);
    let (first, _) = bench.handler(DO_ONE, Access::Read, first);
    let (second, _) = handler(None);
    let (second, _) = bench.handler(DO_ONE, Access::Read, second);
    let (vcpu, state) = (bench.vcpu(0, 4096), FakeState::kernel());
    state.set("sp", SP);
    state.call(BACK);
    bench.execute(&vcpu, DO_ONE, &state, Serving::Plain);
    bench.remove(first);
    assert_eq!(bench.landings.all(), [qkprobe_arch::GuestAddr(BACK)]);
    bench.remove(second);
    assert_eq!(bench.landings.all(), []);
    bench.finish();
}

/// A failed assertion must still end the vCPUs.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Probes come and go while two vCPUs call and return; a probe that stays sees every call.
#[test]
fn no_handler_runs_after_unregister_and_the_others_miss_nothing() {
    const ROUNDS: usize = 1000;
    let mut bench = Bench::with_text();
    let (stays, stayer) = handler(None);
    let (_, output) = bench.handler(DO_ONE, Access::Read, stays);
    let calls = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    // The probes that come and go share the output of the one that stays.
    std::thread::scope(|scope| {
        for index in 0..2 {
            let (bench, calls, stop) = (&bench, &calls, &stop);
            scope.spawn(move || {
                let (vcpu, state) = (bench.vcpu(index, 4096), FakeState::kernel());
                // As translated code: it keeps the landing that it was planted with.
                let mut planted = None;
                let mut depth = 0_u64;
                let mut number = u64::from(index);
                while !stop.load(Ordering::Relaxed) || depth != 0 {
                    number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    if depth == 0 {
                        state.set("sp", SP + u64::from(index) * 0x4000);
                    }
                    if !stop.load(Ordering::Relaxed) && depth < 8 && (depth == 0 || number >> 63 == 0) {
                        state.call(BACK);
                        bench.execute(&vcpu, DO_ONE, &state, Serving::Plain);
                        calls.fetch_add(1, Ordering::Relaxed);
                        depth += 1;
                    } else {
                        let back = state.ret();
                        while planted.is_none() {
                            planted = bench.landings.get(qkprobe_arch::GuestAddr(back));
                        }
                        arrive(&bench.env(), &vcpu, planted.expect("just found"), &state);
                        depth -= 1;
                    }
                }
            });
        }
        let _stop = Stop(&stop);
        for round in 0..ROUNDS {
            let (handler, probe) = handler((round % 2 == 0).then_some(3));
            let id = bench.add_like(DO_ONE, output, handler);
            let start = Instant::now();
            while round % 8 == 0 && probe.returns.load(Ordering::SeqCst) == 0 {
                assert!(start.elapsed() < Duration::from_secs(120), "no call returns");
                std::thread::yield_now();
            }
            bench.remove(id);
            assert!(!probe.alive.load(Ordering::SeqCst), "nothing holds it any more");
        }
    });
    assert_eq!(stayer.returns.load(Ordering::SeqCst), calls.into_inner(), "every call of the probe that stays");
    assert_eq!(bench.awaited(), 0);
    bench.finish();
}
