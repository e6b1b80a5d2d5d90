//! The table of what is awaited: order, what is over, and that every cell comes back, whatever the guest does.
#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests panic with messages")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::*;

const SHIFT: u32 = 14;
const STACK: u64 = 0xffff_c900_0000_0000;
const SP: u64 = STACK + 0x3e80;
const BACK: u64 = 0xffff_ffff_8100_0310;

/// No tokens.
const NONE: [usize; 0] = [];

fn table() -> Pending {
    let pending = Pending::new(qkprobe_arch::by_name("x86_64").expect("an ISA"));
    assert_eq!(pending.stack_shift, SHIFT);
    pending
}

fn instance(kind: Kind, token: usize, sp: u64, first: u64) -> Instance {
    Instance { kind, token, sp, first, second: first, time: 0, data: [0; DATA_BYTES] }
}

fn returns(token: usize, sp: u64) -> Instance {
    instance(Kind::Return, token, sp, BACK)
}

/// Pushes at the stack pointer where a call is about to begin: below what it returns to.
fn push(pending: &Pending, instance: &Instance) {
    push_at(pending, instance, instance.sp - 8);
}

fn push_at(pending: &Pending, instance: &Instance, sp: u64) {
    let mut over = Vec::new();
    pending.push_at(instance, 0, sp, &mut |instance| over.push(instance.token)).expect("room");
    assert_eq!(over, NONE);
}

fn arrive(pending: &Pending, sp: u64, addr: u64) -> Vec<usize> {
    let mut tokens = Vec::new();
    pending.arrive(sp, addr, &mut |instance| tokens.push(instance.token));
    tokens
}

fn end(pending: &Pending, sp: u64) -> Vec<usize> {
    let mut tokens = Vec::new();
    pending.end_stack(sp, &mut |instance| tokens.push(instance.token));
    tokens
}

/// How many cells were ever used, and how many of them are free to be used again.
fn cells(pending: &Pending) -> (usize, usize) {
    let fresh = (pending.fresh.load(Ordering::SeqCst) as usize).min(INSTANCES);
    let mut free = 0;
    let mut link = pending.free.load(Ordering::SeqCst) as u32;
    while let Some(cell) = pending.cell(link) {
        free += 1;
        assert!(free <= INSTANCES, "the list of free cells goes round");
        assert_eq!(cell.state.load(Ordering::SeqCst) & KIND, FREE, "a free cell is in use");
        link = cell.next_free.load(Ordering::SeqCst);
    }
    (fresh, free)
}

fn assert_all_free(pending: &Pending) {
    let (fresh, free) = cells(pending);
    assert_eq!(free, fresh, "free cells of those ever used");
    let stacks = pending.stacks.iter().flatten().filter(|word| word.load(Ordering::SeqCst) != 0).count();
    assert_eq!(stacks, 0, "stacks that are still listed");
}

#[test]
fn what_was_pushed_last_arrives_first() {
    let pending = table();
    for token in 1..=5 {
        push(&pending, &returns(token, SP));
    }
    assert_eq!(arrive(&pending, SP, BACK), [5, 4, 3, 2, 1]);
    assert_eq!(arrive(&pending, SP, BACK), NONE);
    assert_all_free(&pending);
}

#[test]
fn only_the_same_stack_pointer_and_address_arrive() {
    let pending = table();
    push(&pending, &returns(1, SP));
    push(&pending, &instance(Kind::Return, 2, SP, BACK + 5));
    push(&pending, &returns(3, SP - 0x40));
    assert_eq!(arrive(&pending, SP - 8, BACK), NONE);
    assert_eq!(arrive(&pending, SP, BACK + 1), NONE);
    // Another stack, at the same offset.
    assert_eq!(arrive(&pending, SP + (1 << SHIFT), BACK), NONE);
    assert_eq!(arrive(&pending, SP - 0x40, BACK), [3]);
    assert_eq!(arrive(&pending, SP, BACK + 5), [2]);
    assert_eq!(arrive(&pending, SP, BACK), [1]);
    assert_all_free(&pending);
}

#[test]
fn recursion_is_told_apart_by_the_stack_pointer() {
    let pending = table();
    for depth in 0..5 {
        push(&pending, &returns(7 + depth, SP - 0x30 * depth as u64));
    }
    for depth in (0..5).rev() {
        assert_eq!(arrive(&pending, SP - 0x30 * depth as u64, BACK), [7 + depth]);
    }
    assert_all_free(&pending);
}

#[test]
fn a_branch_arrives_at_either_address() {
    let pending = table();
    let branch = |token| Instance { second: BACK + 0x20, ..instance(Kind::Post, token, SP, BACK) };
    push_at(&pending, &branch(1), SP);
    assert_eq!(arrive(&pending, SP, BACK + 0x20), [1]);
    push_at(&pending, &branch(2), SP);
    assert_eq!(arrive(&pending, SP, BACK + 0x1f), NONE);
    assert_eq!(arrive(&pending, SP, BACK), [2]);
    assert_all_free(&pending);
}

#[test]
fn what_is_put_aside_comes_back() {
    let pending = table();
    let mut one = Instance { time: 1234, ..returns(9, SP) };
    one.data = std::array::from_fn(|index| index as u8 + 1);
    pending.push_at(&one, DATA_BYTES, SP - 8, &mut |_| panic!("nothing is over")).expect("room");
    let mut found = None;
    pending.arrive(SP, BACK, &mut |instance| found = Some(*instance));
    let found = found.expect("it waited");
    assert_eq!((found.kind, found.token, found.time), (Kind::Return, 9, 1234));
    assert_eq!((found.data[0], found.data[41], found.data[87]), (1, 42, 88));
}

#[test]
fn each_kind_is_over_at_its_own_stack_pointer() {
    let over = |kind, own: u64, now: u64| instance(kind, 1, own, BACK).is_over(now, true);
    // The return address lies below the stack pointer that the return leaves.
    assert!(!over(Kind::Return, SP, SP - 8));
    assert!(over(Kind::Return, SP, SP));
    assert!(over(Kind::Return, SP, SP + 8));
    // An instruction that is interrupted leaves the stack pointer as it is.
    for kind in [Kind::Post, Kind::Restart] {
        assert!(!over(kind, SP, SP - 8));
        assert!(!over(kind, SP, SP));
        assert!(over(kind, SP, SP + 8));
    }
    // On another page nothing is said: it may be another stack.
    assert!(!over(Kind::Return, SP, SP + 0x1000));
    assert!(!over(Kind::Post, SP - 0x1000, SP));
    // A function whose return address is in a register begins with the stack pointer that its return leaves.
    let over = |own: u64, now: u64| instance(Kind::Return, 1, own, BACK).is_over(now, false);
    assert!(!over(SP, SP - 8) && !over(SP, SP) && over(SP, SP + 8));
}

#[test]
fn several_wait_for_one_call_wherever_the_return_address_is() {
    for arch in ["x86_64", "i386", "ppc64le", "ppc64", "ppc", "sparc64"] {
        let arch = qkprobe_arch::by_name(arch).expect("an ISA");
        let pending = Pending::new(arch);
        let after = arch.sp_after_return(SP);
        for token in 1..4 {
            pending.push_at(&returns(token, after), 0, SP, &mut |over| panic!("{arch:?}: {over:?}")).expect("room");
        }
        assert_eq!(arrive(&pending, after, BACK), [3, 2, 1], "{arch:?}");
    }
}

#[test]
fn frames_below_the_stack_pointer_are_dropped_at_the_next_push() {
    let pending = table();
    for depth in 0..4 {
        push(&pending, &returns(depth + 1, SP - 0x20 * depth as u64));
    }
    // Unwound to the outermost frame, which calls again.
    let mut over = Vec::new();
    pending.push_at(&returns(9, SP - 0x10), 0, SP - 0x18, &mut |gone| over.push(gone.token)).expect("room");
    assert_eq!(over, [4, 3, 2]);
    assert_eq!(arrive(&pending, SP - 0x10, BACK), [9]);
    assert_eq!(arrive(&pending, SP, BACK), [1]);
    assert_all_free(&pending);
}

#[test]
fn the_end_of_a_stack_ends_what_lies_on_it() {
    let pending = table();
    push(&pending, &returns(1, SP));
    push(&pending, &returns(2, STACK + 0x40));
    push(&pending, &instance(Kind::Restart, 3, SP - 0x100, BACK));
    push(&pending, &returns(4, SP + (1 << SHIFT)));
    assert_eq!(end(&pending, STACK + 0x2000), [3, 2, 1]);
    assert_eq!(end(&pending, STACK), NONE);
    assert_eq!(arrive(&pending, SP + (1 << SHIFT), BACK), [4]);
    assert_all_free(&pending);
}

#[test]
fn cancel_takes_exactly_one_kind_of_waiter() {
    let pending = table();
    push_at(&pending, &instance(Kind::Post, 1, SP, BACK), SP);
    push_at(&pending, &instance(Kind::Restart, 1, SP, BACK), SP);
    assert!(!pending.cancel(Kind::Post, 2, SP, BACK));
    assert!(!pending.cancel(Kind::Post, 1, SP, BACK + 1));
    assert!(!pending.cancel(Kind::Return, 1, SP, BACK));
    assert!(pending.cancel(Kind::Post, 1, SP, BACK));
    assert!(!pending.cancel(Kind::Post, 1, SP, BACK));
    // Restarts do not arrive: they are taken by those who know the frame.
    assert_eq!(arrive(&pending, SP, BACK), NONE);
    let mut taken = 0;
    pending.take_restarts(SP, &mut |restart| restart.token == 1, &mut |_| taken += 1);
    assert_eq!(taken, 1);
    assert_all_free(&pending);
}

#[test]
fn a_line_holds_eight_stacks() {
    let pending = table();
    let home = pending.line(pending.stack_of(SP)).as_ptr();
    let mut stacks = (0..).map(|n| SP + (n << SHIFT)).filter(|sp| pending.line(pending.stack_of(*sp)).as_ptr() == home);
    let eight: Vec<u64> = stacks.by_ref().take(8).collect();
    let ninth = stacks.next().expect("there are more");
    for (token, sp) in eight.iter().enumerate() {
        push(&pending, &returns(token, *sp));
    }
    assert_eq!(pending.push_at(&returns(99, ninth), 0, ninth - 8, &mut |_| {}), Err(Full));
    // A second instance on a stack that is there needs no new place.
    push(&pending, &returns(8, eight[3] - 0x20));
    assert_eq!(end(&pending, eight[5]), [5]);
    push(&pending, &returns(99, ninth));
    assert_eq!(arrive(&pending, ninth, BACK), [99]);
    for sp in eight {
        end(&pending, sp);
    }
    assert_all_free(&pending);
}

#[test]
fn a_full_table_refuses_and_recovers() {
    let pending = table();
    // 64 stacks of 1024 instances.
    let sp = |n: u64| SP - 8 * (n % 1024 % 64) + ((n / 1024) << SHIFT);
    for n in 0..INSTANCES as u64 {
        push_at(&pending, &instance(Kind::Restart, n as usize, sp(n), BACK), STACK);
    }
    for _ in 0..3 {
        assert_eq!(pending.push_at(&returns(1, SP), 0, STACK, &mut |_| {}), Err(Full));
    }
    assert_eq!(end(&pending, sp(2048)).len(), 1024);
    push_at(&pending, &returns(1, sp(2048)), STACK);
    assert_eq!(arrive(&pending, sp(2048), BACK), [1]);
    for stack in 0..64 {
        end(&pending, sp(stack * 1024));
    }
    assert_eq!(cells(&pending), (65536, 65536));
    assert_all_free(&pending);
}

#[test]
fn the_forgotten_do_not_arrive_and_their_cells_come_back() {
    let pending = table();
    for token in [1, 2, 1, 3, 1] {
        push(&pending, &returns(token, SP));
    }
    let mut gone = Vec::new();
    pending.forget(|instance| instance.token == 1, |instance| gone.push(instance.token));
    assert_eq!(gone, [1, 1, 1]);
    let mut left = Vec::new();
    pending.each(|instance| left.push(instance.token));
    assert_eq!(left, [2, 3]);
    assert_eq!(arrive(&pending, SP, BACK), [3, 2]);
    assert_all_free(&pending);
}

/// A walk finds it, and before the walk takes it, somebody forgets it: it is told to one of them.
#[test]
fn what_is_forgotten_during_a_walk_is_told_once() {
    let pending = table();
    push_at(&pending, &instance(Kind::Restart, 1, SP, BACK), SP);
    let (mut gone, mut taken) = (0, 0);
    let mut wanted = |_: &Instance| {
        pending.forget(|_| true, |_| gone += 1);
        true
    };
    pending.take_restarts(SP, &mut wanted, &mut |_| taken += 1);
    assert_eq!((gone, taken), (1, 0));
    assert_all_free(&pending);
}

/// Somebody forgets one, and before it is marked, it has arrived and its cell waits for another.
#[test]
fn forgetting_one_does_not_hit_the_next_in_its_cell() {
    let pending = table();
    push(&pending, &returns(1, SP));
    let wanted = |instance: &Instance| {
        if instance.token == 1 {
            assert_eq!(arrive(&pending, SP, BACK), [1]);
            push(&pending, &returns(2, SP));
        }
        instance.token == 1
    };
    let mut gone = 0;
    pending.forget(wanted, |_| gone += 1);
    assert_eq!(gone, 0, "it had arrived");
    assert_eq!(arrive(&pending, SP, BACK), [2], "the other one still waits");
}

/// A small generator: cheap and reproducible.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// One thread with stacks of its own equals a plain list.
#[test]
fn random_operations_equal_a_model() {
    let pending = table();
    let mut random = Random(0x1234_5678);
    // Newest last.
    let mut model: Vec<Instance> = Vec::new();
    for step in 0..200_000 {
        let sp = SP - 0x40 * random.below(8) + (random.below(3) << SHIFT);
        let same_stack = |other: u64| other >> SHIFT == sp >> SHIFT;
        let mut told = Vec::new();
        let mut expected = Vec::new();
        let mut take = |model: &mut Vec<Instance>, wanted: &dyn Fn(&Instance) -> bool| {
            expected.extend(model.iter().rev().filter(|i| wanted(i)).map(|i| i.token));
            model.retain(|i| !wanted(i));
        };
        match random.below(8) {
            0..4 => {
                let new = instance(if random.below(2) == 0 { Kind::Return } else { Kind::Post }, step, sp, BACK);
                let now = sp - 8;
                pending.push_at(&new, 0, now, &mut |over| told.push(over.token)).expect("room");
                take(&mut model, &|i| {
                    same_stack(i.sp) && i.sp >> 12 == now >> 12 && i.sp <= now - u64::from(i.kind == Kind::Post)
                });
                model.push(new);
            }
            4..6 => {
                pending.arrive(sp, BACK, &mut |arrived| told.push(arrived.token));
                take(&mut model, &|i| i.sp == sp);
            }
            6 => {
                pending.end_stack(sp, &mut |over| told.push(over.token));
                take(&mut model, &|i| same_stack(i.sp));
            }
            _ => {
                let bit = random.below(7) as usize;
                pending.forget(|i| i.token % 7 == bit, |over| told.push(over.token));
                take(&mut model, &|i| i.token % 7 == bit);
                told.sort_unstable();
                expected.sort_unstable();
            }
        }
        assert_eq!(told, expected, "step {step}");
    }
    for stack in 0..3 {
        end(&pending, SP + (stack << SHIFT));
    }
    assert_all_free(&pending);
}

#[test]
fn nothing_leaks_over_four_vcpus_with_their_own_stacks() {
    let pending = table();
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let pending = &pending;
            scope.spawn(move || {
                let mut random = Random(thread + 1);
                for step in 0..250_000 {
                    let sp = SP - 0x10 * random.below(64) + ((thread * 8 + random.below(8)) << SHIFT);
                    match random.below(16) {
                        0..8 => pending.push_at(&returns(step, sp), 16, sp - 8, &mut |_| {}).expect("room"),
                        8..15 => pending.arrive(sp, BACK, &mut |_| {}),
                        _ if step % 64 == 0 => {
                            let bit = random.below(2) as usize;
                            pending.forget(|instance| instance.token % 2 == bit, |_| {});
                        }
                        _ => pending.end_stack(sp, &mut |_| {}),
                    }
                }
            });
        }
    });
    for stack in 0..32 {
        end(&pending, SP + (stack << SHIFT));
    }
    assert_all_free(&pending);
}

/// Several vCPUs on one stack: no kernel does that. Counts are wrong then, and nothing worse.
#[test]
fn a_guest_with_two_vcpus_on_one_stack_harms_only_its_counts() {
    const THREADS: u64 = 4;
    let pending = table();
    let stop = AtomicBool::new(false);
    let mut longest = Duration::ZERO;
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (pending, stop) = (&pending, &stop);
                scope.spawn(move || {
                    let mut random = Random(thread + 1);
                    let mut longest = Duration::ZERO;
                    while !stop.load(Ordering::Relaxed) {
                        let sp = SP - 0x10 * random.below(32) + (random.below(2) << SHIFT);
                        let start = Instant::now();
                        match random.below(32) {
                            0..16 => {
                                let new = returns(1 + random.below(8) as usize, sp);
                                let _ = pending.push_at(&new, 16, sp - 8, &mut |_| {});
                            }
                            16..28 => pending.arrive(sp, BACK, &mut |_| {}),
                            28 => {
                                pending.cancel(Kind::Return, 3, sp, BACK);
                            }
                            29 => pending.forget(|instance| instance.token == 5, |_| {}),
                            _ => pending.end_stack(sp, &mut |_| {}),
                        }
                        longest = longest.max(start.elapsed());
                    }
                    longest
                })
            })
            .collect();
        std::thread::sleep(Duration::from_secs(2));
        stop.store(true, Ordering::Relaxed);
        for thread in threads {
            longest = longest.max(thread.join().expect("no panic"));
        }
    });
    assert!(longest < Duration::from_secs(1), "one operation took {longest:?}");
    // Afterwards.
    pending.forget(|_| true, |_| {});
    for round in 0..2 {
        end(&pending, SP + (round << SHIFT));
        end(&pending, SP + (round << SHIFT));
    }
    let mut left = 0;
    pending.each(|_| left += 1);
    assert_eq!(left, 0, "nobody waits");
    // What was pushed now is found again.
    push(&pending, &returns(7, SP));
    assert_eq!(arrive(&pending, SP, BACK), [7]);
    let (fresh, free) = cells(&pending);
    assert_eq!(fresh - free, 0, "cells lost of {fresh}");
}
