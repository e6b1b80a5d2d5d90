//! M1, M2, M5, M6, M8 and M10 under a model checker.

use std::sync::Arc;

use shuttle::thread;

use super::fake::FakeGuest;
use crate::primitive::{AtomicBool, Ordering, check};

#[test]
fn m1_two_writers_lose_no_update() {
    check(|| {
        let guest = Arc::new(FakeGuest::new(2));
        let writers: Vec<_> = (0..2)
            .map(|_| {
                let guest = Arc::clone(&guest);
                thread::spawn(move || {
                    let (gone, payload) = guest.probe(0);
                    let stays = guest.probe(0);
                    guest.remove(gone, &payload);
                    stays
                })
            })
            .collect();
        let stay: Vec<_> = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
        assert_eq!(guest.execute(&guest.registry.reader(), 0), 2);
        assert!(stay.iter().all(|(_, payload)| payload.count() == 1));
    });
}

#[test]
fn m2_a_hit_goes_through_while_the_mutex_is_held() {
    check(|| {
        let guest = Arc::new(FakeGuest::new(2));
        let (_, hot) = guest.probe(0);
        let hit_done = Arc::new(AtomicBool::new(false));
        let writer = {
            let (guest, hit_done) = (Arc::clone(&guest), Arc::clone(&hit_done));
            thread::spawn(move || {
                let prepare = || {
                    while !hit_done.load(Ordering::SeqCst) {
                        thread::yield_now();
                    }
                    Ok::<_, std::convert::Infallible>(None)
                };
                guest.registry.register(super::fake::place(1), super::fake::tally(), prepare).map(drop).unwrap();
            })
        };
        // If a hit needed the mutex, this would never end and shuttle would report the deadlock.
        assert_eq!(guest.execute(&guest.registry.reader(), 0), 1);
        hit_done.store(true, Ordering::SeqCst);
        writer.join().unwrap();
        assert_eq!(hot.count(), 1);
    });
}

#[test]
fn m5_no_hit_after_unregister_returned() {
    check(|| {
        let guest = Arc::new(FakeGuest::new(1));
        let (id, payload) = guest.probe(0);
        let vcpu = {
            let guest = Arc::clone(&guest);
            thread::spawn(move || {
                let reader = guest.registry.reader();
                for _ in 0..3 {
                    guest.execute(&reader, 0);
                }
            })
        };
        // `remove` clears the flag that a hit asserts.
        guest.remove(id, &payload);
        vcpu.join().unwrap();
    });
}

#[test]
fn m6_a_stayer_sees_every_execution() {
    check(|| {
        let guest = Arc::new(FakeGuest::new(1));
        let (_, stayer) = guest.probe(0);
        let vcpu = {
            let guest = Arc::clone(&guest);
            thread::spawn(move || {
                let reader = guest.registry.reader();
                for _ in 0..3 {
                    assert!(guest.execute(&reader, 0) >= 1);
                }
            })
        };
        let (id, payload) = guest.probe(0);
        guest.remove(id, &payload);
        vcpu.join().unwrap();
        assert_eq!(stayer.count(), 3);
    });
}

#[test]
fn m8_members_removed_by_different_threads() {
    check(|| {
        let guest = Arc::new(FakeGuest::new(1));
        let probes: Vec<_> = (0..3).map(|_| guest.probe(0)).collect();
        let threads: Vec<_> = probes
            .into_iter()
            .map(|(id, payload)| {
                let guest = Arc::clone(&guest);
                thread::spawn(move || guest.remove(id, &payload))
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(guest.execute(&guest.registry.reader(), 0), 0);
        assert_eq!(guest.registry.counts().armed, 0);
        assert!(!guest.cache.hook.load(Ordering::SeqCst));
    });
}

#[test]
fn m10_again_at_once_under_load_and_flushes() {
    check(|| {
        let guest = Arc::new(FakeGuest::new(1));
        let (id, payload) = guest.probe(0);
        let vcpu = {
            let guest = Arc::clone(&guest);
            thread::spawn(move || {
                let reader = guest.registry.reader();
                assert!(guest.execute(&reader, 0) <= 1);
                guest.flush();
                assert!(guest.execute(&reader, 0) <= 1);
            })
        };
        guest.remove(id, &payload);
        let (id, payload) = guest.probe(0);
        assert_eq!(guest.execute(&guest.registry.reader(), 0), 1);
        guest.remove(id, &payload);
        vcpu.join().unwrap();
        assert_eq!(guest.execute(&guest.registry.reader(), 0), 0);
    });
}
