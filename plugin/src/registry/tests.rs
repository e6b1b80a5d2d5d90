//! The properties M1 to M14 that the kernel's kprobes promise (or should), under real threads.
//! M15 and M16 speak of guest memory: the tests that boot QEMU show them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use proptest::prelude::*;

use super::fake::{FakeGuest, Payload, place, tally};
use super::{New, ProbeId, RegistryError};

const OPERATIONS: usize = 1_000_000;

/// A small generator: the tests want cheap, reproducible randomness, not quality.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}

fn removed(guest: &FakeGuest, ids: &[ProbeId]) -> usize {
    guest.registry.unregister_all(ids).expect("no handler asks").len()
}

/// Runs `vcpu` on two threads until the body ends; each call gets a thread number and a random source.
fn beside_vcpus(
    guest: &FakeGuest,
    vcpu: impl Fn(&FakeGuest, &super::Reader, &mut Random) + Sync,
    body: impl FnOnce(&AtomicU64),
) {
    let stop = AtomicBool::new(false);
    let executed = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for seed in 1..=2 {
            let (stop, executed, vcpu) = (&stop, &executed, &vcpu);
            scope.spawn(move || {
                let reader = guest.registry.reader();
                let mut random = Random(seed * 0x9e37_79b9);
                while !stop.load(Ordering::Relaxed) {
                    vcpu(guest, &reader, &mut random);
                    executed.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        // A failed assertion in the body must still end the vCPUs.
        struct Stop<'a>(&'a AtomicBool);
        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let _stop = Stop(&stop);
        body(&executed);
    });
}

#[test]
fn m1_concurrent_changes_equal_the_sequential_result() {
    const ADDRESSES: usize = 64;
    const THREADS: u64 = 4;
    let guest = FakeGuest::new(ADDRESSES);
    // Unregistering waits for a grace period, so most operations are registrations, taken back in batches.
    let left: Vec<Vec<(usize, ProbeId)>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (1..=THREADS)
            .map(|seed| {
                let guest = &guest;
                scope.spawn(move || {
                    let mut random = Random(seed * 0x1234_5677);
                    let mut mine = Vec::new();
                    let mut operations = 0;
                    while operations < OPERATIONS / THREADS as usize {
                        let batch: Vec<_> = (0..200).map(|_| random.below(ADDRESSES)).collect();
                        let probes = batch.iter().map(|n| New::enabled(place(*n), tally()));
                        let ids = guest
                            .registry
                            .register_all(probes, |_, _| Ok::<_, std::convert::Infallible>(None))
                            .expect("nothing refuses");
                        mine.extend(batch.into_iter().zip(ids));
                        let gone: Vec<_> = (0..199)
                            .map(|_| {
                                let at = random.below(mine.len());
                                mine.swap_remove(at).1
                            })
                            .collect();
                        assert_eq!(removed(guest, &gone), 199);
                        operations += 399;
                    }
                    mine
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    let reader = guest.registry.reader();
    for n in 0..ADDRESSES {
        let expected = left.iter().flatten().filter(|(at, _)| *at == n).count();
        assert_eq!(guest.execute(&reader, n), expected, "address {n}");
    }
    assert_eq!(guest.registry.counts().probes, left.iter().map(Vec::len).sum::<usize>());
}

#[test]
fn m2_a_hit_never_waits_for_a_registration() {
    let guest = FakeGuest::new(2);
    let (_, hot) = guest.probe(0);
    let reader_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (inside_sender, inside) = std::sync::mpsc::channel();
        let (guest, reader_done, hot) = (&guest, &reader_done, &hot);
        scope.spawn(move || {
            // Holds the registry's mutex until the other thread has had all its hits.
            let prepare = || {
                inside_sender.send(()).expect("the other side waits");
                while !reader_done.load(Ordering::Acquire) {
                    std::thread::yield_now();
                }
                Ok::<_, std::convert::Infallible>(None)
            };
            guest.registry.register(place(1), tally(), prepare).expect("nothing refuses");
        });
        inside.recv().expect("the registration has begun");
        let reader = guest.registry.reader();
        for _ in 0..OPERATIONS {
            assert_eq!(guest.execute(&reader, 0), 1);
        }
        assert_eq!(hot.count(), OPERATIONS as u64);
        reader_done.store(true, Ordering::Release);
    });
}

#[test]
fn m3_resources_belong_to_addresses_not_to_probes() {
    let guest = FakeGuest::new(1);
    let prepared = AtomicUsize::new(0);
    let ids: Vec<_> = (0..1000)
        .map(|_| {
            let prepare = || {
                prepared.fetch_add(1, Ordering::Relaxed);
                Ok::<_, std::convert::Infallible>(None)
            };
            guest.registry.register(place(0), tally(), prepare).expect("nothing refuses")
        })
        .collect();
    assert_eq!(prepared.into_inner(), 1);
    let counts = guest.registry.counts();
    assert_eq!((counts.sites, counts.armed, counts.probes), (1, 1, 1000));
    assert_eq!(guest.execute(&guest.registry.reader(), 0), 1000);
    assert_eq!(removed(&guest, &ids), 1000);
    guest.flush();
    let counts = guest.registry.counts();
    assert_eq!((counts.sites, counts.armed, counts.probes), (0, 0, 0));
}

#[test]
fn m4_and_m11_a_failing_registration_leaves_no_trace() {
    let guest = FakeGuest::new(4);
    let reader = guest.registry.reader();
    let (_, first) = guest.probe(0);
    assert_eq!(guest.execute(&reader, 0), 1);
    let before = guest.registry.counts();
    for round in 0..1000 {
        // The second and third addresses are new; the third refuses: none of the batch may stay.
        let probes = [0, 1, 2].map(|n| New::enabled(place(n), tally()));
        let refuse = |at, _: &Payload| if at == place(2) { Err("not an instruction") } else { Ok(None) };
        let error = guest.registry.register_all(probes, refuse).expect_err("one refuses");
        assert_eq!(error, RegistryError::Prepare("not an instruction"));
        assert_eq!(guest.registry.counts(), before, "round {round}");
        assert_eq!(guest.execute(&reader, 0), 1);
        assert_eq!(guest.execute(&reader, 1), 0);
    }
    assert_eq!(first.count(), 1001);
}

#[test]
fn m5_unregister_is_a_barrier() {
    const ADDRESSES: usize = 4;
    let guest = FakeGuest::new(ADDRESSES);
    let mut random = Random(77);
    let mut operations = 0;
    // `remove` clears a flag that every hit asserts: a hit that begins or goes on after it fails the test.
    let vcpu = |guest: &FakeGuest, reader: &super::Reader, random: &mut Random| {
        guest.execute(reader, random.below(ADDRESSES));
    };
    beside_vcpus(&guest, vcpu, |executed| {
        while executed.load(Ordering::Relaxed) < OPERATIONS as u64 || operations < 4000 {
            let probes: Vec<_> = (0..8).map(|_| guest.probe(random.below(ADDRESSES))).collect();
            for (id, payload) in &probes {
                guest.remove(*id, payload);
            }
            if random.below(16) == 0 {
                guest.flush();
            }
            operations += 16;
        }
    });
}

#[test]
fn m6_members_that_come_and_go_cost_the_others_no_hit() {
    let guest = FakeGuest::new(1);
    let (_, stayer) = guest.probe(0);
    let executed = AtomicU64::new(0);
    let vcpu = |guest: &FakeGuest, reader: &super::Reader, _: &mut Random| {
        assert!(guest.execute(reader, 0) >= 1);
        executed.fetch_add(1, Ordering::Relaxed);
    };
    beside_vcpus(&guest, vcpu, |_| {
        let mut changes = 0;
        while executed.load(Ordering::Relaxed) < OPERATIONS as u64 || changes < 1000 {
            let (a, pa) = guest.probe(0);
            let (b, pb) = guest.probe(0);
            guest.remove(a, &pa);
            guest.remove(b, &pb);
            changes += 4;
        }
    });
    assert_eq!(stayer.count(), executed.into_inner(), "every execution hit the probe that stayed, once");
}

#[test]
fn m7_and_m8_any_order_of_removal_leaves_the_rest_working() {
    const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    for order in ORDERS {
        let guest = FakeGuest::new(1);
        let reader = guest.registry.reader();
        let probes: Vec<_> = (0..3).map(|_| guest.probe(0)).collect();
        for (step, member) in order.into_iter().enumerate() {
            let mut fired = Vec::new();
            guest.execute_with(&reader, 0, |probe| fired.push(probe.id()));
            assert_eq!(fired.len(), 3 - step);
            assert!(fired.is_sorted_by(|a, b| a > b), "newest first");
            guest.remove(probes[member].0, &probes[member].1);
        }
        assert_eq!(guest.execute(&reader, 0), 0);
        assert!(!guest.cache.hook.load(Ordering::SeqCst), "the last removal turns the translation hook off");
        let hits: Vec<_> = order.iter().map(|member| probes[*member].1.count()).collect();
        assert_eq!(hits, [1, 2, 3]);
    }
}

#[test]
fn m9_unregistering_what_is_not_registered_changes_nothing() {
    let guest = FakeGuest::new(2);
    let reader = guest.registry.reader();
    let (id, payload) = guest.probe(0);
    let (gone, gone_payload) = guest.probe(0);
    guest.remove(gone, &gone_payload);
    assert_eq!(guest.registry.unregister(gone).expect_err("refused"), RegistryError::NotRegistered);
    assert_eq!(guest.registry.unregister(ProbeId(u64::MAX)).expect_err("refused"), RegistryError::NotRegistered);
    assert_eq!(removed(&guest, &[gone, ProbeId(0)]), 0);
    assert_eq!(guest.registry.set_enabled(gone, true), Err(RegistryError::NotRegistered));
    assert_eq!(guest.execute(&reader, 0), 1);
    assert_eq!(payload.count(), 1);
    guest.remove(id, &payload);
}

#[test]
fn m10_registering_again_at_once_is_never_twice_and_never_missing() {
    let guest = FakeGuest::new(1);
    let vcpu = |guest: &FakeGuest, reader: &super::Reader, _: &mut Random| {
        assert!(guest.execute(reader, 0) <= 1, "never two");
    };
    beside_vcpus(&guest, vcpu, |_| {
        let reader = guest.registry.reader();
        for round in 0..2000 {
            let (id, payload) = guest.probe(0);
            for _ in 0..500 {
                assert_eq!(guest.execute(&reader, 0), 1, "never zero after the registration returned");
            }
            guest.remove(id, &payload);
            assert_eq!(guest.execute(&reader, 0), 0);
            if round % 64 == 0 {
                guest.flush();
            }
        }
    });
    assert!(guest.registry.counts().sites <= 1);
}

#[test]
fn m12_a_handler_may_not_register_or_unregister() {
    let guest = FakeGuest::new(2);
    let reader = guest.registry.reader();
    let (id, _) = guest.probe(0);
    let mut asked = 0;
    guest.execute_with(&reader, 0, |probe| {
        let registered = guest.registry.register(place(1), tally(), || Ok::<_, ()>(None));
        assert_eq!(registered, Err(RegistryError::FromHandler));
        assert_eq!(guest.registry.unregister(probe.id()).expect_err("refused"), RegistryError::FromHandler);
        assert_eq!(guest.registry.unregister_all(&[id]).expect_err("refused"), RegistryError::FromHandler);
        asked += 1;
    });
    assert_eq!(asked, 1);
    assert_eq!(guest.registry.counts().probes, 1);
}

#[test]
fn m13_a_batch_costs_one_grace_period() {
    let guest = FakeGuest::new(1000);
    let probes = (0..1000).map(|n| New::enabled(place(n), tally()));
    let ids = guest.registry.register_all(probes, |_, _| Ok::<_, ()>(None)).expect("nothing refuses");
    let before = guest.registry.counts().grace_periods;
    assert_eq!(removed(&guest, &ids), 1000);
    assert_eq!(guest.registry.counts().grace_periods - before, 1);
}

#[test]
fn m14_a_hit_sees_one_snapshot() {
    let guest = FakeGuest::new(1);
    let reader = guest.registry.reader();
    let (_, first) = guest.probe(0);
    let late = tally();
    std::thread::scope(|scope| {
        let mut joined = false;
        let fired = guest.execute_with(&reader, 0, |_| {
            if !joined {
                let (guest, late) = (&guest, Arc::clone(&late));
                let join = move || guest.registry.register(place(0), late, || Ok::<_, ()>(None)).map(drop);
                // Another thread registers to its end while this hit is under way.
                scope.spawn(join).join().expect("no panic").expect("nothing refuses");
                joined = true;
            }
        });
        assert_eq!(fired, 1, "a probe that comes during a hit is not part of it");
    });
    assert_eq!((first.count(), late.count()), (1, 0));
    assert_eq!(guest.execute(&reader, 0), 2);
}

#[test]
fn disabled_probes_are_silent_and_come_back() {
    let guest = FakeGuest::new(1);
    let reader = guest.registry.reader();
    let (id, payload) = guest.probe(0);
    let (_, other) = guest.probe(0);
    guest.registry.set_enabled(id, false).expect("registered");
    assert_eq!(guest.execute(&reader, 0), 1);
    guest.registry.set_enabled(id, true).expect("registered");
    assert_eq!(guest.execute(&reader, 0), 2);
    assert_eq!((payload.count(), other.count()), (1, 2));
}

#[test]
fn the_hook_is_on_only_while_a_probe_is_armed() {
    let guest = FakeGuest::new(2);
    assert!(!guest.cache.hook.load(Ordering::SeqCst));
    let (a, pa) = guest.probe(0);
    let (b, pb) = guest.probe(1);
    assert!(guest.cache.hook.load(Ordering::SeqCst));
    guest.remove(a, &pa);
    assert!(guest.cache.hook.load(Ordering::SeqCst));
    guest.remove(b, &pb);
    assert!(!guest.cache.hook.load(Ordering::SeqCst));
}

#[test]
fn a_site_stays_until_the_flush_and_goes_with_it() {
    let guest = FakeGuest::new(1);
    let reader = guest.registry.reader();
    let (id, payload) = guest.probe(0);
    guest.execute(&reader, 0);
    guest.remove(id, &payload);
    assert_eq!(guest.registry.counts().sites, 1);
    guest.flush();
    assert_eq!(guest.registry.counts().sites, 0);
}

proptest! {
    /// Any sequence of operations on one thread equals a plain list of probes.
    #[test]
    fn sequences_equal_a_model(operations in proptest::collection::vec((0..5_u8, 0..4_usize, any::<prop::sample::Index>()), 1..80)) {
        let guest = FakeGuest::new(4);
        let reader = guest.registry.reader();
        let mut model: Vec<(usize, ProbeId, Payload)> = Vec::new();
        for (operation, n, pick) in operations {
            match operation {
                0 | 1 => {
                    let (id, payload) = guest.probe(n);
                    model.push((n, id, payload));
                }
                2 if !model.is_empty() => {
                    let (_, id, payload) = model.remove(pick.index(model.len()));
                    guest.remove(id, &payload);
                }
                3 => guest.flush(),
                _ => {
                    let mut fired = Vec::new();
                    guest.execute_with(&reader, n, |probe| fired.push(probe.id()));
                    let expected: Vec<_> =
                        model.iter().rev().filter(|(at, ..)| *at == n).map(|(_, id, _)| *id).collect();
                    prop_assert_eq!(fired, expected);
                }
            }
        }
    }
}
