//! The ring under a model checker: a vCPU's thread and the writer's, in every order of their steps.
//!
//! Records are so long that the smallest ring wraps after a few: some leave a gap for a filler at the end, some one that is too small
//! for a filler's header, some none.

use std::sync::Arc;

use shuttle::thread;

use super::ring::{Reservation, Ring};
use crate::primitive::{AtomicBool, AtomicU64, Ordering, check, preemption_point};

/// What `Ring::new` makes of less.
const SIZE: usize = 4096;

/// Lengths of records. Each takes 16 bytes more, and is rounded up to 8. None needs more than half of the ring, or it might wait for ever.
const LENGTHS: [[usize; 6]; 5] = [
    // End exactly at the ring's end.
    [1344, 1344, 1360, 1344, 1344, 1360],
    // Leave 8 bytes, which hold no header.
    [1344, 1344, 1352, 1344, 1344, 1352],
    // The third is one word too long for what is left.
    [1344, 1344, 1368, 1344, 1344, 1368],
    // Leave room for a filler of 1,072 bytes.
    [1496, 1492, 1400, 1390, 1496, 1300],
    // Short ones between long ones.
    [3, 1900, 0, 1000, 1950, 64],
];

fn fill(reservation: &mut Reservation<'_>, number: u64, len: usize) {
    for half in reservation.data()[..len].chunks_mut(len / 2 + 1) {
        half.fill(number as u8);
        preemption_point();
    }
}

/// Every record comes out once, whole and in order; what is looked at is not overwritten before it is given back.
#[test]
fn records_come_whole_and_in_order() {
    for lengths in LENGTHS {
        // A probe reserves what it may need, and commits what it has used.
        for spare in [0, 40] {
            check(move || {
                let ring = Arc::new(Ring::new(SIZE));
                let producer = {
                    let ring = Arc::clone(&ring);
                    thread::spawn(move || {
                        for (number, len) in (0..).zip(lengths) {
                            let mut reservation = loop {
                                match ring.reserve(len + spare) {
                                    Some(reservation) => break reservation,
                                    None => thread::yield_now(),
                                }
                            };
                            fill(&mut reservation, number, len);
                            reservation.commit(number, 7, len);
                        }
                    })
                };
                let mut next = 0;
                while let Some(len) = lengths.get(next as usize) {
                    let Some(record) = ring.peek() else {
                        ring.release();
                        thread::yield_now();
                        continue;
                    };
                    assert_eq!((record.header.time, record.header.output, record.data.len()), (next, 7, *len));
                    // In batches, as the writer does: until then the bytes are the consumer's.
                    ring.consume(record.header);
                    preemption_point();
                    assert!(record.data.iter().all(|byte| u64::from(*byte) == next), "record {next} was overwritten");
                    if next % 2 == 1 {
                        ring.release();
                    }
                    next += 1;
                }
                producer.join().unwrap();
                assert!(ring.peek().is_none());
            });
        }
    }
}

/// A full ring refuses, and every record is either refused or comes out.
#[test]
fn what_is_not_refused_comes_out() {
    check(|| {
        let ring = Arc::new(Ring::new(SIZE));
        let done = Arc::new(AtomicBool::new(false));
        let producer = {
            let (ring, done) = (Arc::clone(&ring), Arc::clone(&done));
            thread::spawn(move || {
                let mut taken = Vec::new();
                for (number, len) in (0..).zip([1400, 2000, 1500, 900, 1400]) {
                    if let Some(mut reservation) = ring.reserve(len) {
                        fill(&mut reservation, number, len);
                        reservation.commit(number, 1, len);
                        taken.push(number);
                    }
                }
                done.store(true, Ordering::SeqCst);
                taken
            })
        };
        let mut seen = Vec::new();
        loop {
            let last = done.load(Ordering::SeqCst);
            while let Some(record) = ring.peek() {
                assert!(record.data.iter().all(|byte| u64::from(*byte) == record.header.time));
                seen.push(record.header.time);
                ring.consume(record.header);
            }
            ring.release();
            if last {
                break;
            }
            thread::yield_now();
        }
        let taken = producer.join().unwrap();
        assert_eq!(seen, taken);
        assert_eq!(taken[..2], [0, 1], "an empty ring refuses nothing");
    });
}

/// The records of two vCPUs come out in the order of their times.
#[test]
fn two_rings_are_merged_by_time() {
    const EACH: usize = 3;
    check(|| {
        let clock = Arc::new(AtomicU64::new(1));
        let rings = [Arc::new(Ring::new(SIZE)), Arc::new(Ring::new(SIZE))];
        let vcpus = rings.clone().map(|ring| {
            let clock = Arc::clone(&clock);
            thread::spawn(move || {
                for hit in 0..EACH {
                    ring.begin_hit();
                    // A hit may record twice, with times of its own.
                    for _ in 0..=hit % 2 {
                        let time = clock.fetch_add(1, Ordering::SeqCst);
                        ring.reserve(8).expect("room for all").commit(time, 0, 8);
                    }
                    ring.end_hit();
                }
            })
        });
        let mut seen = Vec::new();
        while seen.len() < 2 * (EACH + EACH / 2) {
            // As `Writer::limit` and `Writer::drain` do it.
            let now = clock.load(Ordering::SeqCst);
            let limit = rings.iter().fold(now, |limit, ring| {
                loop {
                    match ring.complete_up_to(limit) {
                        Some(complete) => break complete,
                        None => thread::yield_now(),
                    }
                }
            });
            loop {
                let oldest = rings.iter().filter_map(|ring| ring.peek().map(|record| (record.header, ring)));
                let oldest = oldest.filter(|(header, _)| header.time <= limit).min_by_key(|(header, _)| header.time);
                let Some((header, ring)) = oldest else { break };
                seen.push(header.time);
                ring.consume(header);
            }
            rings.iter().for_each(|ring| ring.release());
            thread::yield_now();
        }
        vcpus.into_iter().for_each(|vcpu| vcpu.join().unwrap());
        assert!(seen.is_sorted_by(|earlier, later| earlier < later), "{seen:?}");
    });
}
