//! The hit without QEMU: nothing allocated, no lock taken, every count exact.

use std::sync::atomic::{AtomicBool, Ordering};

use qkprobe_lang::{Action, Backpressure, Privilege};

use super::Serving;
use super::fake::{Bench, FakeBlock, FakeState, allocations};
use super::translate::TextChange;
use crate::counters::Totals;

const MAP: &str = "\
ffffffff81000000 T _text
ffffffff81000000 T _stext
ffffffff81000100 T do_one
ffffffff81000200 T do_two
ffffffff81001000 T _etext
ffffffff81002000 D some_data
";
const DO_ONE: u64 = 0xffff_ffff_8100_0100;
const DO_TWO: u64 = 0xffff_ffff_8100_0200;
const KERNEL: FakeState = FakeState { privileged: true };
const USER: FakeState = FakeState { privileged: false };

/// What stands before the time, the time, and what stands behind it.
fn split(line: &str) -> (&str, f64, &str) {
    let (head, rest) = line.split_at(37);
    let (time, event) = rest.split_once(": ").expect("a colon behind the time");
    (head, time.trim().parse().expect("a time"), event)
}

#[test]
fn a_hit_allocates_nothing_and_takes_no_lock() {
    let mut bench = Bench::new(MAP);
    let (_, output) = bench.probe(
        "p:all do_one a=%ax s=+0(%si):string us=+0(%si):ustring f=+0(%si):u8[4] st=$stack1 sym=%bx:symbol",
        |_| {},
    );
    let (_, filtered) = bench.probe_filtered("p:some do_one s=+0(%si):string", Some("s == \"other\""), |_| {});
    let (_, counted) = bench.probe("p:count do_one", |event| event.action = Action::Count);
    let vcpu = bench.vcpu(0, 1 << 22);
    bench.execute(&vcpu, DO_ONE, &KERNEL, Serving::Plain);
    let registering = AtomicBool::new(true);
    let before = std::thread::scope(|scope| {
        let (inside_sender, inside) = std::sync::mpsc::channel();
        let (registry, registering) = (&bench.registry, &registering);
        let far = crate::registry::Place::Image(qkprobe_arch::GuestAddr(DO_TWO));
        let template =
            bench.site(&vcpu, DO_ONE).expect("armed").snapshot(&vcpu.reader.pin())[0].payload.definition.clone();
        scope.spawn(move || {
            // Holds the registry's mutex all the while.
            let event = super::Event {
                output: 0,
                definition: template,
                filter: None,
                action: Action::Count,
                privilege: Privilege::Kernel,
                inline: None,
            };
            let prepare = || {
                inside_sender.send(()).expect("the other side waits");
                while registering.load(Ordering::Acquire) {
                    std::thread::yield_now();
                }
                Ok::<_, std::convert::Infallible>(None)
            };
            registry.register(far, event, prepare).expect("nothing refuses");
        });
        inside.recv().expect("inside the registration");
        let site = bench.site(&vcpu, DO_ONE).expect("armed");
        let env = bench.env();
        let mut allocated = 0;
        bench.writer.while_locked(|| {
            let start = allocations();
            for _ in 0..10_000 {
                super::hit::hit(&env, &vcpu, &site, &KERNEL, Serving::AskPrivilege);
            }
            allocated = allocations() - start;
        });
        registering.store(false, Ordering::Release);
        allocated
    });
    assert_eq!(before, 0, "allocations in 10,000 hits of three probes");
    let lines = bench.finish();
    assert_eq!(lines.len(), 10_001);
    assert_eq!(bench.totals(output), Totals { hits: 10_001, filtered: 0, dropped: 0, written: 10_001 });
    assert_eq!(bench.totals(filtered), Totals { hits: 0, filtered: 10_001, dropped: 0, written: 0 });
    assert_eq!(bench.totals(counted).hits, 10_001);
    let line = " all: (do_one) a=0xa7000 s=\"hello\" us=\"hello\" f={104,101,108,108} st=0x0 sym=0x57000";
    assert!(lines.iter().all(|text| text.ends_with(line)), "{}", lines[0]);
}

#[test]
fn the_newest_probe_of_an_address_comes_first() {
    let mut bench = Bench::new(MAP);
    for name in ["a", "b", "c"] {
        bench.probe(&format!("p:{name} do_one"), |_| {});
    }
    let vcpu = bench.vcpu(3, 1 << 16);
    bench.execute(&vcpu, DO_ONE, &KERNEL, Serving::Plain);
    let lines = bench.finish();
    let shown: Vec<_> = lines.iter().map(|line| split(line)).map(|(head, _, event)| (head, event)).collect();
    let head = "           <...>-0       [003] ..... ";
    assert_eq!(shown, [(head, "c: (do_one)"), (head, "b: (do_one)"), (head, "a: (do_one)")]);
}

#[test]
fn privilege_decides_where_the_address_does_not() {
    let mut bench = Bench::new(MAP);
    let mut output =
        |name: &str, privilege| bench.probe(&format!("p:{name} do_one"), |event| event.privilege = privilege).1;
    let kernel = output("k", Privilege::Kernel);
    let user = output("u", Privilege::User);
    let any = output("x", Privilege::Any);
    let vcpu = bench.vcpu(0, 1 << 16);
    bench.execute(&vcpu, DO_ONE, &KERNEL, Serving::AskPrivilege);
    bench.execute(&vcpu, DO_ONE, &USER, Serving::AskPrivilege);
    bench.execute(&vcpu, DO_ONE, &USER, Serving::AskPrivilege);
    // In the kernel's half nothing is asked.
    bench.execute(&vcpu, DO_ONE, &USER, Serving::Plain);
    let hits = [kernel, user, any].map(|output| bench.totals(output).hits);
    assert_eq!(hits, [2, 2, 4]);
    bench.finish();
}

#[test]
fn drop_counts_what_it_drops_and_lossless_waits() {
    let mut bench = Bench::new(MAP);
    bench.backpressure = Backpressure::Drop;
    let (_, output) = bench.probe("p:e do_one a=%ax", |_| {});
    let vcpu = bench.vcpu(0, 4096);
    bench.writer.while_locked(|| {
        let site = bench.site(&vcpu, DO_ONE).expect("armed");
        for _ in 0..1000 {
            super::hit::hit(&bench.env(), &vcpu, &site, &KERNEL, Serving::Plain);
        }
    });
    let totals = bench.totals(output);
    assert_eq!(totals.hits, 1000);
    assert!(totals.dropped > 500, "a ring of 4096 bytes holds far fewer: {}", totals.dropped);
    bench.backpressure = Backpressure::Lossless;
    for _ in 0..5000 {
        bench.execute(&vcpu, DO_ONE, &KERNEL, Serving::Plain);
    }
    let dropped = bench.totals(output).dropped;
    assert_eq!(dropped, totals.dropped, "lossless drops nothing");
    assert_eq!(bench.finish().len() as u64, 6000 - dropped);
}

#[test]
fn two_vcpus_come_out_in_the_order_of_time() {
    let mut bench = Bench::new(MAP);
    bench.probe("p:e do_one cpu=%ax", |_| {});
    const HITS: usize = 100_000;
    std::thread::scope(|scope| {
        for index in 0..2 {
            let bench = &bench;
            scope.spawn(move || {
                let vcpu = bench.vcpu(index, 1 << 16);
                let site = bench.site(&vcpu, DO_ONE).expect("armed");
                for _ in 0..HITS {
                    super::hit::hit(&bench.env(), &vcpu, &site, &KERNEL, Serving::Plain);
                }
            });
        }
    });
    let lines = bench.finish();
    assert_eq!(lines.len(), 2 * HITS);
    let times: Vec<f64> = lines.iter().map(|line| split(line).1).collect();
    assert!(times.is_sorted());
}

fn block(vaddr: u64, lens: &[usize]) -> FakeBlock {
    FakeBlock { vaddr, insns: lens.iter().map(|len| vec![0x90; *len]).collect(), ..FakeBlock::default() }
}

#[test]
fn translation_plants_exactly_the_sites_of_the_block() {
    let mut bench = Bench::new(MAP);
    bench.probe("p do_one", |_| {});
    bench.probe("p do_one+3", |_| {});
    bench.probe("p do_two", |_| {});
    let vcpu = bench.vcpu(0, 4096);
    let (planted, found) = bench.translate(&vcpu, block(DO_ONE, &[3, 2, 5]));
    assert_eq!(planted.callbacks, [(0, DO_ONE, Serving::Plain), (1, DO_ONE + 3, Serving::Plain)]);
    assert_eq!(found.changes, []);
    // A block that begins later, and one that ends before the next site.
    let (planted, _) = bench.translate(&vcpu, block(DO_ONE + 3, &[2]));
    assert_eq!(planted.callbacks, [(0, DO_ONE + 3, Serving::Plain)]);
    let (planted, _) = bench.translate(&vcpu, block(DO_ONE + 5, &[2, 9]));
    assert_eq!(planted.callbacks, []);
    let (planted, _) = bench.translate(&vcpu, FakeBlock::default());
    assert_eq!(planted.callbacks, []);
    // Text that was patched over a site.
    let (planted, found) = bench.translate(&vcpu, block(DO_ONE, &[5, 5]));
    assert_eq!(planted.callbacks, [(0, DO_ONE, Serving::Plain)]);
    assert_eq!(found.changes, [(DO_ONE + 3, TextChange::NoBoundary)]);
    bench.finish();
}

#[test]
fn a_place_by_number_asks_for_privilege_in_the_user_half() {
    let mut bench = Bench::new(MAP);
    bench.probe("p:low 0x401000", |_| {});
    let vcpu = bench.vcpu(0, 4096);
    let (planted, _) = bench.translate(&vcpu, block(0x40_1000, &[1, 1]));
    assert_eq!(planted.callbacks, [(0, 0x40_1000, Serving::AskPrivilege)]);
    bench.finish();
}

#[test]
fn inline_counters_are_planted_once_and_only_where_they_can_be_trusted() {
    let mut bench = Bench::new(MAP);
    let counter = crate::qemu::inline_count::InlineCounter::for_tests();
    let count = |event: &mut super::Event| {
        event.action = Action::Count;
        event.inline = Some(counter);
    };
    let (_, first) = bench.probe("p:a do_one", count);
    bench.probe("p:b do_one", count);
    let vcpu = bench.vcpu(0, 4096);
    let (planted, _) = bench.translate(&vcpu, block(DO_ONE, &[3, 2]));
    assert_eq!((planted.counts, planted.callbacks), (vec![0], vec![]));
    // Beside a probe that records, both are needed; the callback leaves the counting to the counter.
    bench.probe("p:c do_one", |_| {});
    let (planted, _) = bench.translate(&vcpu, block(DO_ONE, &[3, 2]));
    assert_eq!((planted.counts, planted.callbacks), (vec![0], vec![(0, DO_ONE, Serving::Plain)]));
    bench.execute(&vcpu, DO_ONE, &KERNEL, Serving::Plain);
    assert_eq!(bench.totals(first).hits, 0);
    // One thread for several vCPUs: the callback counts for all.
    let untrusted = FakeBlock { no_counters: true, ..block(DO_ONE, &[3, 2]) };
    let (planted, _) = bench.translate(&vcpu, untrusted);
    assert_eq!((planted.counts, planted.callbacks), (vec![], vec![(0, DO_ONE, Serving::CountAll)]));
    bench.execute(&vcpu, DO_ONE, &KERNEL, Serving::CountAll);
    assert_eq!(bench.totals(first).hits, 1);
    bench.finish();
}

#[test]
fn a_user_access_does_not_reach_the_kernels_half() {
    let mut bench = Bench::new(MAP);
    // %bx holds 0x57000; the constant lies in the kernel's half.
    bench.probe("p:e do_one k=+0(%si):ustring n=+0(\\0xffffffff81000000):ustring", |_| {});
    let vcpu = bench.vcpu(0, 1 << 16);
    bench.execute(&vcpu, DO_ONE, &KERNEL, Serving::Plain);
    let lines = bench.finish();
    assert!(lines[0].ends_with(" k=\"hello\" n=(fault)"), "{}", lines[0]);
}
