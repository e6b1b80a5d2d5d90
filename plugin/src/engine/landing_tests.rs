//! The set of addresses where somebody may arrive: nobody who waits is left without a landing.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use qkprobe_arch::GuestAddr;

use super::pending::landing::Landings;
use super::pending::{DATA_BYTES, Instance, Kind, Pending};

const BACK: GuestAddr = GuestAddr(0xffff_ffff_8100_0310);
const SP: u64 = 0xffff_c900_0000_3e80;

fn at(n: u64) -> GuestAddr {
    BACK.wrapping_add(n)
}

fn ensure(landings: &Landings, addr: GuestAddr) -> usize {
    let mut called = 0;
    let ensured = landings.ensure(addr, || {
        called += 1;
        true
    });
    assert!(ensured);
    called
}

#[test]
fn code_is_dropped_once_for_each_address() {
    let landings = Landings::new(false);
    assert!(landings.get(BACK).is_none());
    assert_eq!(ensure(&landings, BACK), 1);
    assert_eq!(ensure(&landings, BACK), 0);
    assert_eq!(ensure(&landings, at(1)), 1);
    assert_eq!(landings.get(BACK).map(|landing| landing.addr()), Some(BACK));
    assert!(landings.get(at(2)).is_none());
    assert!(landings.may_be_on_page(at(0x20)));
    let mut all = landings.all();
    all.sort();
    assert_eq!(all, [BACK, at(1)]);
}

#[test]
fn code_that_could_not_be_dropped_is_tried_again() {
    let landings = Landings::new(false);
    assert!(!landings.ensure(BACK, || false));
    // Translated from now on it has the callback, but nobody knows what was translated before.
    assert!(landings.get(BACK).is_some());
    assert_eq!(ensure(&landings, BACK), 1);
    assert_eq!(ensure(&landings, BACK), 0);
    assert!(!landings.ensure(GuestAddr(0), || true), "no code is there");
}

#[test]
fn retired_landings_are_told_and_come_back() {
    let landings = Landings::new(false);
    for n in 0..4 {
        ensure(&landings, at(n));
    }
    let mut gone = landings.retire(|keep| keep(at(2)));
    gone.sort();
    assert_eq!(gone, [at(0), at(1), at(3)]);
    assert!(landings.get(at(1)).is_none());
    assert!(landings.get(at(2)).is_some());
    assert_eq!(landings.all(), [at(2)]);
    assert_eq!(landings.retire(|keep| keep(at(2))), []);
    assert_eq!(ensure(&landings, at(2)), 0);
    assert_eq!(ensure(&landings, at(1)), 1, "its code was translated without it meanwhile");
    assert!(landings.get(at(1)).is_some());
}

#[test]
fn a_flush_gives_the_slots_of_those_that_are_gone_back() {
    let landings = Landings::new(false);
    // More than there are slots, over time.
    for round in 0..4 {
        for n in 0..30_000 {
            ensure(&landings, at(16 * (n + 30_000 * round) + 1));
        }
        ensure(&landings, BACK);
        let gone = landings.retire(|keep| keep(BACK));
        assert_eq!(gone.len(), 30_000);
        landings.flushed();
        assert_eq!(landings.all(), [BACK]);
        assert_eq!(ensure(&landings, BACK), 0, "it stays armed");
    }
    assert!(!landings.may_be_on_page(at(0x1000_0000)));
}

#[test]
fn a_full_set_refuses() {
    let landings = Landings::new(false);
    let room = (0..80_000).filter(|n| landings.ensure(at(16 * n), || true)).count();
    assert!((30_000..=65_536).contains(&room), "{room}");
    assert_eq!(landings.all().len(), room);
}

/// Both may go on only into code that was translated with the landing.
#[test]
fn of_two_vcpus_at_a_new_address_both_drop_its_code_or_see_it_armed() {
    const ROUNDS: u64 = 10_000;
    let landings = Landings::new(false);
    // What the vCPUs last executed there: translated without the landing, or with it.
    let translated_with: Vec<AtomicU64> = (0..ROUNDS).map(|_| AtomicU64::new(0)).collect();
    let barrier = std::sync::Barrier::new(2);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let (landings, translated_with, barrier) = (&landings, &translated_with, &barrier);
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    let addr = at(8 * round);
                    let translate = || {
                        let with = landings.get(addr).is_some();
                        translated_with[round as usize].store(with.into(), Ordering::SeqCst);
                        true
                    };
                    barrier.wait();
                    assert!(landings.ensure(addr, translate));
                    assert_eq!(translated_with[round as usize].load(Ordering::SeqCst), 1, "round {round}");
                }
            });
        }
    });
}

/// A translation that comes between `retire`'s two steps must plant what will be kept.
#[test]
fn a_landing_that_is_kept_is_never_out_of_the_set() {
    let landings = Landings::new(false);
    ensure(&landings, BACK);
    let mut seen = false;
    landings.retire(|keep| {
        seen = landings.get(BACK).is_some();
        keep(BACK);
    });
    assert!(landings.get(BACK).is_some());
    assert!(seen, "a block translated at that moment would have no callback, and nobody translates it again");
}

#[test]
fn who_was_pushed_is_never_left_without_a_landing() {
    const ROUNDS: u64 = 100_000;
    let (landings, pending) = (Landings::new(false), Pending::new(qkprobe_arch::by_name("x86_64").expect("an ISA")));
    let retired = AtomicUsize::new(0);
    let done = AtomicU64::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let instance = Instance {
                kind: Kind::Return,
                token: 1,
                sp: SP,
                first: BACK.0,
                second: BACK.0,
                time: 0,
                data: [0; DATA_BYTES],
            };
            for round in 0..ROUNDS {
                pending.push_at(&instance, 0, SP - 8, &mut |_| panic!("nothing is over")).expect("room");
                assert!(landings.ensure(BACK, || true));
                // While it waits, whoever retires must keep it: give them time now and then.
                if round % 64 == 0 {
                    std::thread::yield_now();
                }
                let mut arrived = 0;
                pending.arrive(SP, BACK.0, &mut |_| arrived += 1);
                assert_eq!(arrived, 1);
                if round % 256 == 0 {
                    // Nobody waits for a while.
                    std::thread::sleep(std::time::Duration::from_micros(200));
                }
                done.store(round + 1, Ordering::Release);
            }
        });
        while done.load(Ordering::Acquire) < ROUNDS {
            let gone = landings.retire(|keep| pending.each(|instance| keep(GuestAddr(instance.first))));
            // What is returned has its code translated again; who waits since then has put it into the set again.
            retired.fetch_add(gone.len(), Ordering::Relaxed);
            let mut waits = false;
            pending.each(|_| waits = true);
            let before = done.load(Ordering::Acquire);
            if waits && landings.get(BACK).is_none() {
                // It may be about to ensure its landing, or have arrived: but not wait on.
                let start = std::time::Instant::now();
                while done.load(Ordering::Acquire) == before && landings.get(BACK).is_none() {
                    assert!(start.elapsed().as_secs() < 120, "it waits without a landing");
                    std::thread::yield_now();
                }
            }
        }
    });
    assert!(retired.into_inner() > 0, "the two did meet");
}

/// Where code is only dropped by a flush, everybody who comes before it asks, and nobody after it.
#[test]
fn a_flush_arms_what_it_was_asked_for() {
    let landings = Landings::new(true);
    let asked = std::cell::Cell::new(0);
    let ensure = || {
        assert!(landings.ensure(GuestAddr(0x1000), || {
            asked.set(asked.get() + 1);
            true
        }));
    };
    ensure();
    ensure();
    assert_eq!(asked.get(), 2);
    landings.flushed();
    ensure();
    assert_eq!(asked.get(), 2);
    assert_eq!(landings.retire(|_| {}), [GuestAddr(0x1000)]);
    ensure();
    assert_eq!(asked.get(), 3);
}
