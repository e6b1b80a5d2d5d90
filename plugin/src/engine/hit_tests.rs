//! The hit without QEMU: nothing allocated, no lock taken, every count exact.

use std::sync::atomic::{AtomicBool, Ordering};

use qkprobe_lang::{Action, Backpressure, Privilege};

use super::Serving;
use super::fake::{Bench, DO_ONE, DO_TWO, FakeBlock, FakeState, MAP, allocations, count, split};
use super::hit::{Planted, Spot};
use super::kprobe::{Access, Event, Handler, Kprobe};
use super::translate::TextChange;
use crate::counters::Totals;

/// Hits as translated code makes them where the block goes on.
fn planted(serving: Serving) -> Planted {
    Planted { serving, lands: false, restarts: true, spot: Spot::Any }
}

#[test]
fn a_hit_allocates_nothing_and_takes_no_lock() {
    let mut bench = Bench::new(MAP);
    let (_, output) =
        bench.probe("p:all do_one a=%ax s=+0(%si):string us=+0(%si):ustring f=+0(%si):u8[4] st=$stack1 sym=%bx:symbol");
    let (_, filtered) = bench.probe("p:some do_one s=+0(%si):string if s == \"other\"");
    let (_, counted) = bench.probe("p:count do_one do count");
    let vcpu = bench.vcpu(0, 1 << 22);
    bench.execute(&vcpu, DO_ONE, &FakeState::kernel(), Serving::Plain);
    let registering = AtomicBool::new(true);
    let before = std::thread::scope(|scope| {
        let (inside_sender, inside) = std::sync::mpsc::channel();
        let (registry, registering) = (&bench.registry, &registering);
        let far = crate::registry::Place::Image(qkprobe_arch::GuestAddr(DO_TWO));
        let newest = bench.site(&vcpu, DO_ONE).expect("armed").snapshot(&vcpu.reader.pin())[0].clone();
        let Handler::Pre(Event { definition, .. }) = &newest.payload.handler else { panic!("a definition") };
        let template = definition.clone();
        scope.spawn(move || {
            // Holds the registry's mutex all the while.
            let event = Event { definition: template, filter: None, action: Action::Count, effects: None };
            let kprobe = Kprobe {
                output: 0,
                privilege: Privilege::Kernel,
                access: Access::Read,
                inline: None,
                attempts: false,
                handler: Handler::Pre(event),
            };
            let prepare = || {
                inside_sender.send(()).expect("the other side waits");
                while registering.load(Ordering::Acquire) {
                    std::thread::yield_now();
                }
                Ok::<_, std::convert::Infallible>(None)
            };
            registry.register(far, kprobe, prepare).expect("nothing refuses");
        });
        inside.recv().expect("inside the registration");
        let site = bench.site(&vcpu, DO_ONE).expect("armed");
        let env = bench.env();
        let kernel = FakeState::kernel();
        let mut allocated = 0;
        bench.writer.while_locked(|| {
            let start = allocations();
            for _ in 0..10_000 {
                super::hit::hit(&env, &vcpu, &site, &kernel, planted(Serving::AskPrivilege));
            }
            allocated = allocations() - start;
        });
        registering.store(false, Ordering::Release);
        allocated
    });
    assert_eq!(before, 0, "allocations in 10,000 hits of three probes");
    let lines = bench.finish();
    assert_eq!(lines.len(), 10_001);
    assert_eq!(bench.totals(output), Totals { hits: 10_001, written: 10_001, ..Totals::default() });
    assert_eq!(bench.totals(filtered), Totals { filtered: 10_001, ..Totals::default() });
    assert_eq!(bench.totals(counted).hits, 10_001);
    let line = " all: (do_one) a=0xa7000 s=\"hello\" us=\"hello\" f={104,101,108,108} st=0x0 sym=0x57000";
    assert!(lines.iter().all(|text| text.ends_with(line)), "{}", lines[0]);
}

#[test]
fn the_newest_probe_of_an_address_comes_first() {
    let mut bench = Bench::new(MAP);
    for name in ["a", "b", "c"] {
        bench.probe(&format!("p:{name} do_one"));
    }
    let vcpu = bench.vcpu(3, 1 << 16);
    bench.execute(&vcpu, DO_ONE, &FakeState::kernel(), Serving::Plain);
    let lines = bench.finish();
    let shown: Vec<_> = lines.iter().map(|line| split(line)).map(|(head, _, event)| (head, event)).collect();
    let head = "           <...>-0       [003] ..... ";
    assert_eq!(shown, [(head, "c: (do_one)"), (head, "b: (do_one)"), (head, "a: (do_one)")]);
}

#[test]
fn privilege_decides_where_the_address_does_not() {
    let mut bench = Bench::new(MAP);
    let mut output =
        |name: &str, privilege| bench.probe_with(&format!("p:{name} do_one"), |probe| probe.privilege = privilege).1;
    let kernel = output("k", Privilege::Kernel);
    let user = output("u", Privilege::User);
    let any = output("x", Privilege::Any);
    let vcpu = bench.vcpu(0, 1 << 16);
    bench.execute(&vcpu, DO_ONE, &FakeState::kernel(), Serving::AskPrivilege);
    bench.execute(&vcpu, DO_ONE, &FakeState::user(), Serving::AskPrivilege);
    bench.execute(&vcpu, DO_ONE, &FakeState::user(), Serving::AskPrivilege);
    // In the kernel's half nothing is asked.
    bench.execute(&vcpu, DO_ONE, &FakeState::user(), Serving::Plain);
    let hits = [kernel, user, any].map(|output| bench.totals(output).hits);
    assert_eq!(hits, [2, 2, 4]);
    bench.finish();
}

#[test]
fn drop_counts_what_it_drops_and_lossless_waits() {
    let mut bench = Bench::new(MAP);
    bench.backpressure = Backpressure::Drop;
    let (_, output) = bench.probe("p:e do_one a=%ax");
    let vcpu = bench.vcpu(0, 4096);
    bench.writer.while_locked(|| {
        let site = bench.site(&vcpu, DO_ONE).expect("armed");
        let kernel = FakeState::kernel();
        for _ in 0..1000 {
            super::hit::hit(&bench.env(), &vcpu, &site, &kernel, planted(Serving::Plain));
        }
    });
    let totals = bench.totals(output);
    assert_eq!(totals.hits, 1000);
    assert!(totals.dropped > 500, "a ring of 4096 bytes holds far fewer: {}", totals.dropped);
    bench.backpressure = Backpressure::Lossless;
    let kernel = FakeState::kernel();
    for _ in 0..5000 {
        bench.execute(&vcpu, DO_ONE, &kernel, Serving::Plain);
    }
    let dropped = bench.totals(output).dropped;
    assert_eq!(dropped, totals.dropped, "lossless drops nothing");
    assert_eq!(bench.finish().len() as u64, 6000 - dropped);
}

#[test]
fn two_vcpus_come_out_in_the_order_of_time() {
    let mut bench = Bench::new(MAP);
    bench.probe("p:e do_one cpu=%ax");
    const HITS: usize = 100_000;
    std::thread::scope(|scope| {
        for index in 0..2 {
            let bench = &bench;
            scope.spawn(move || {
                let vcpu = bench.vcpu(index, 1 << 16);
                let site = bench.site(&vcpu, DO_ONE).expect("armed");
                let kernel = FakeState::kernel();
                for _ in 0..HITS {
                    super::hit::hit(&bench.env(), &vcpu, &site, &kernel, planted(Serving::Plain));
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
    // Intel SDM volume 2B, "NOP": the recommended forms.
    let nop = |len: &usize| match len {
        1 => vec![0x90],
        2 => vec![0x66, 0x90],
        3 => vec![0x0f, 0x1f, 0x00],
        5 => vec![0x0f, 0x1f, 0x44, 0x00, 0x00],
        9 => vec![0x66, 0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00],
        len => panic!("a nop of {len} bytes"),
    };
    FakeBlock { vaddr, insns: lens.iter().map(nop).collect(), ..FakeBlock::default() }
}

#[test]
fn translation_plants_exactly_the_sites_of_the_block() {
    let mut bench = Bench::new(MAP);
    bench.probe("p do_one");
    bench.probe("p do_one+3");
    bench.probe("p do_two");
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
    // A block that goes over a site: another way to read the same bytes.
    let (planted, found) = bench.translate(&vcpu, block(DO_ONE - 2, &[5, 2]));
    assert_eq!(planted.callbacks, [(1, DO_ONE + 3, Serving::Plain)]);
    assert_eq!(found.changes, []);
    bench.finish();
}

/// A block in host memory: instructions of these bytes.
fn host_block(vaddr: u64, insns: &[&[u8]], memory: &mut Vec<u8>) -> FakeBlock {
    *memory = insns.concat();
    memory.resize(32, 0x90);
    let insns = insns.iter().map(|insn| insn.to_vec()).collect();
    FakeBlock { vaddr, host: Some(memory.as_ptr() as usize), insns, ..FakeBlock::default() }
}

#[test]
fn text_changes_under_a_probe_are_told_once_each() {
    let mut bench = Bench::new(MAP);
    bench.probe("p do_one+1");
    let vcpu = bench.vcpu(0, 4096);
    let mut memory = Vec::new();
    let mut changes = |insns: &[&[u8]]| {
        let (planted, found) = bench.translate(&vcpu, host_block(DO_ONE, insns, &mut memory));
        let changes = found.changes.into_iter().map(|(addr, change)| match change {
            TextChange::Changed(slot) => (addr, "changed", slot.bytes().to_vec()),
            TextChange::Back(slot) => (addr, "back", slot.bytes().to_vec()),
            TextChange::Gone => (addr, "gone", vec![]),
        });
        (planted.callbacks.len(), changes.collect::<Vec<_>>())
    };
    let at = DO_ONE + 1;
    // push %rax; push %rbx: the first sight of the text is no change.
    assert_eq!(changes(&[&[0x50], &[0x53]]), (1, vec![]));
    assert_eq!(changes(&[&[0x50], &[0x53]]), (1, vec![]));
    // A breakpoint, and the instruction again.
    assert_eq!(changes(&[&[0x50], &[0xcc]]), (1, vec![(at, "changed", vec![0xcc])]));
    assert_eq!(changes(&[&[0x50], &[0xcc]]), (1, vec![]));
    assert_eq!(changes(&[&[0x50], &[0x53]]), (1, vec![(at, "changed", vec![0x53])]));
    // A long nop over both.
    let nop: &[u8] = &[0x0f, 0x1f, 0x44, 0x00, 0x00];
    assert_eq!(changes(&[nop, &[0x90]]), (0, vec![(at, "gone", vec![])]));
    assert_eq!(changes(&[nop, &[0x90]]), (0, vec![]));
    assert_eq!(changes(&[&[0x50], &[0x53]]), (1, vec![(at, "back", vec![0x53])]));
    assert_eq!(changes(&[&[0x50], &[0x53]]), (1, vec![]));
    bench.finish();
}

/// What the guest's ftrace and its jump labels write over a probe ends the block.
#[test]
fn a_call_over_a_probe_is_told_although_it_ends_the_block() {
    let mut bench = Bench::new(MAP);
    bench.probe("p do_one+1");
    let vcpu = bench.vcpu(0, 4096);
    let mut memory = Vec::new();
    bench.translate(&vcpu, host_block(DO_ONE, &[&[0x50], &[0x53]], &mut memory));
    let call: &[u8] = &[0xe8, 0x10, 0x00, 0x00, 0x00];
    let (_, found) = bench.translate(&vcpu, host_block(DO_ONE, &[call], &mut memory));
    assert_eq!(found.changes, [(DO_ONE + 1, TextChange::Gone)]);
    bench.finish();
}

#[test]
fn a_place_by_number_asks_for_privilege_in_the_user_half() {
    let mut bench = Bench::new(MAP);
    bench.probe("p:low 0x401000");
    let vcpu = bench.vcpu(0, 4096);
    let (planted, _) = bench.translate(&vcpu, block(0x40_1000, &[1, 1]));
    assert_eq!(planted.callbacks, [(0, 0x40_1000, Serving::AskPrivilege)]);
    bench.finish();
}

/// A delay slot begins a block where QEMU has ended one behind the transfer, or where two transfers follow one another.
#[test]
fn a_block_tells_where_its_first_instruction_goes() {
    let mut bench = Bench::new(MAP);
    bench.probe("p:first 0x401000");
    bench.probe("p:second 0x401004");
    let vcpu = bench.vcpu(0, 4096);
    let sparc = qkprobe_arch::by_name("sparc64").expect("sparc64 is always there");
    let npc = sparc.npc_register().expect("it has one");
    let nop = || vec![0x01, 0, 0, 0];
    let spots = |count: usize, registers: &[(qkprobe_arch::RegisterId, u64)]| {
        let insns = vec![nop(); count];
        let block = FakeBlock { vaddr: 0x40_1000, insns, registers: registers.to_vec(), ..FakeBlock::default() };
        bench.translate_for(sparc, &vcpu, block).0.spots
    };
    assert_eq!(spots(2, &[(npc, 0x40_1004)]), [(0, Spot::First), (1, Spot::Behind)]);
    // By itself at the end of a page, or before what ends a block.
    assert_eq!(spots(1, &[(npc, 0x40_1004)]), [(0, Spot::First)]);
    assert_eq!(spots(1, &[(npc, 0x52_0000)]), [(0, Spot::Slot(qkprobe_arch::GuestAddr(0x52_0000)))]);
    assert_eq!(spots(1, &[]), [(0, Spot::Any)]);
    bench.finish();
}

/// What the block was translated for is in the registers of the vCPU that translates it.
#[test]
fn a_block_is_served_by_the_privilege_that_it_was_translated_for() {
    let mut bench = Bench::new(MAP);
    let counter = crate::qemu::inline_count::InlineCounter::for_tests();
    let counts = |privilege| {
        move |probe: &mut Kprobe| {
            count(probe);
            (probe.privilege, probe.inline) = (privilege, Some(counter));
        }
    };
    bench.probe_with("p:kernel 0x401000", counts(Privilege::Kernel));
    bench.probe_with("p:any 0x401000", counts(Privilege::Any));
    let (_, recorded) = bench.probe("p:recorded 0x401001");
    let vcpu = bench.vcpu(0, 4096);
    let cs = super::fake::arch().privilege_register();
    let translated = |selector| FakeBlock { registers: vec![(cs, selector)], ..block(0x40_1000, &[1, 1]) };
    let (kernel, _) = bench.translate(&vcpu, translated(0x10));
    assert_eq!((kernel.counts, kernel.callbacks), (vec![0], vec![(1, 0x40_1001, Serving::Plain)]));
    // In a user program only one of them is meant, and its counter is that of the others.
    let (user, _) = bench.translate(&vcpu, translated(0x33));
    assert_eq!((user.counts, user.callbacks), (vec![], vec![(0, 0x40_1000, Serving::User)]));
    let (untrusted, _) = bench.translate(&vcpu, FakeBlock { no_counters: true, ..translated(0x10) });
    let all = vec![(0, 0x40_1000, Serving::CountAll), (1, 0x40_1001, Serving::CountAll)];
    assert_eq!((untrusted.counts, untrusted.callbacks), (vec![], all));
    // The registers at the hit say nothing more.
    bench.execute(&vcpu, 0x40_1001, &FakeState::user(), Serving::Plain);
    assert_eq!(bench.totals(recorded).hits, 1);
    bench.execute(&vcpu, 0x40_1001, &FakeState::kernel(), Serving::User);
    assert_eq!(bench.totals(recorded).hits, 1);
    bench.finish();
}

#[test]
fn inline_counters_are_planted_once_and_only_where_they_can_be_trusted() {
    let mut bench = Bench::new(MAP);
    let counter = crate::qemu::inline_count::InlineCounter::for_tests();
    let inline = |probe: &mut Kprobe| {
        count(probe);
        probe.inline = Some(counter);
    };
    let (_, first) = bench.probe_with("p:a do_one", inline);
    bench.probe_with("p:b do_one", inline);
    let vcpu = bench.vcpu(0, 4096);
    let (planted, _) = bench.translate(&vcpu, block(DO_ONE, &[3, 2]));
    assert_eq!((planted.counts, planted.callbacks), (vec![0], vec![]));
    // Beside a probe that records, both are needed; the callback leaves the counting to the counter.
    bench.probe("p:c do_one");
    let (planted, _) = bench.translate(&vcpu, block(DO_ONE, &[3, 2]));
    assert_eq!((planted.counts, planted.callbacks), (vec![0], vec![(0, DO_ONE, Serving::Plain)]));
    bench.execute(&vcpu, DO_ONE, &FakeState::kernel(), Serving::Plain);
    assert_eq!(bench.totals(first).hits, 0);
    // One thread for several vCPUs: the callback counts for all.
    let untrusted = FakeBlock { no_counters: true, ..block(DO_ONE, &[3, 2]) };
    let (planted, _) = bench.translate(&vcpu, untrusted);
    assert_eq!((planted.counts, planted.callbacks), (vec![], vec![(0, DO_ONE, Serving::CountAll)]));
    bench.execute(&vcpu, DO_ONE, &FakeState::kernel(), Serving::CountAll);
    assert_eq!(bench.totals(first).hits, 1);
    bench.finish();
}

#[test]
fn a_user_access_does_not_reach_the_kernels_half() {
    let mut bench = Bench::new(MAP);
    // %bx holds 0x57000; the constant lies in the kernel's half.
    bench.probe("p:e do_one k=+0(%si):ustring n=+0(\\0xffffffff81000000):ustring");
    let vcpu = bench.vcpu(0, 1 << 16);
    bench.execute(&vcpu, DO_ONE, &FakeState::kernel(), Serving::Plain);
    let lines = bench.finish();
    assert!(lines[0].ends_with(" k=\"hello\" n=(fault)"), "{}", lines[0]);
}
