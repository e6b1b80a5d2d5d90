//! A hit allocates nothing: program and filter.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use qkprobe_lang::{Common, FaultState, Filter, ProbeConfig};

use crate::fake::{BANNER, FakeGuest, FakeKernel, VFS_READ, define};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every request goes to the system's allocator unchanged; the count is a plain cell that never allocates.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the pointer came from `System`, through `alloc` above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_hit_allocates_nothing() {
    let page = 0xffff_8880_0000_1000;
    let definition = define(
        "p vfs_read %di $arg7 +0(%si):string a=+0(%si):u8[8] +0(%si):string[2] %di:symstr %di:symbol @linux_proc_banner",
    );
    let filter =
        "sy ~ \"x*\" || arg3 ~ \"*a?\" || arg6 ~ \"vfs*\" && __probe_ip.function == vfs_read && CPU & CPUS{0-3}";
    let filter = filter.replacen("sy", "arg6", 1);
    let filter = Filter::compile(&filter, &definition, &FakeKernel).expect("good");
    let mut guest = FakeGuest::new().set("di", VFS_READ + 4).set("si", page).set("sp", page).poke(page, b"some text\0");
    let mut out = vec![0; definition.program.max_len()];
    let common = Common { ip: VFS_READ + 4, cpu: 1 };
    let before = ALLOCATIONS.with(Cell::get);
    let len = definition.program.run(&mut guest, &mut out);
    let matched = filter.matches(&out[..len], &common, &FakeKernel);
    let allocated = ALLOCATIONS.with(Cell::get) - before;
    assert!(matched);
    assert_eq!(allocated, 0);
}

#[test]
fn an_effect_allocates_nothing() {
    let page = 0xffff_8880_0000_1000;
    let line = "p vfs_read do set:%ax=5 set:+8(+0(%di)):u32=7 set:@linux_proc_banner:u8=1 probability=50 times=3";
    let probe = ProbeConfig::from_line(line, String::new()).expect("good");
    let effects = probe.compile_effects(&define(&probe.def), &FakeKernel).expect("good").expect("an effect");
    let state = FaultState::default();
    let mut guest = FakeGuest::new().set("di", page).set("ax", 0).poke(page, &page.to_le_bytes()).poke(BANNER, &[0]);
    let before = ALLOCATIONS.with(Cell::get);
    let chosen = (0..100).filter(|_| effects.fault.should_fail(&state)).count();
    let done = effects.sets.iter().filter(|set| set.apply(&mut guest)).count();
    let allocated = ALLOCATIONS.with(Cell::get) - before;
    assert_eq!((chosen, done), (3, 3));
    assert_eq!(allocated, 0);
}
