//! sparc64 without a kernel: a probe before and behind every instruction of the guest in `guest-images/bare/sparc64`. The guest
//! must not be able to tell, and the counts must be those of the tables: in the slots of taken, untaken and annulled
//! branches, on annulling branches, `rd %pc`, `save`, `restore`, `return`, `done`, `retry` and `flushw`, in the handlers of
//! spills and fills at trap level 1.
//!
//! What the kernel's own kprobes get wrong on sparc64 (`arch/sparc/kernel/kprobes.c`), and the test of each:
//!
//! | | probe on | with a kprobe | test |
//! | --- | --- | --- | --- |
//! | S1 | the delay slot of a taken branch | goes on behind the slot | [`s1_delay_slots_of_taken_branches`] |
//! | S2 | an annulling branch, untaken or `ba,a` | runs off the copy | [`s2_annulling_branches`] |
//! | S3 | `rd %pc` | reads the copy's address | [`s3_rd_pc`] |
//! | S4 | `done`, `retry`, `saved`, `restored`, `flushw`, traps | fatal for the first two | [`s4_done_retry_windows_and_traps`] |
//! | S5 | handlers at trap level 1 | nests | [`s5_handlers_at_trap_level_1`], and `sparc64_traps.rs` under Linux |

mod common;

mod bare {
    pub(crate) mod snippet;
    #[allow(dead_code, reason = "what states must hold is asserted in bare_guests.rs")]
    pub(crate) mod sparc64;
}

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::OnceLock;

use bare::snippet::Snippet;
use bare::sparc64::{COMPLETED, all};
use qkprobe_symbols::{GuestAddr, KernelImage};
use qkprobe_tests::{Boot, BootResult, Cache, GuestKernel, Qemu};

const GUEST: GuestKernel = GuestKernel::Sparc64Bare;

/// One instruction.
#[derive(Debug)]
struct Site {
    /// `SNIPPET_OFFSET`.
    name: String,
    addr: u64,
    /// How often it begins.
    attempts: u64,
    /// How often a probe behind it must fire: as often as it ends, less where it traps; and see [`POST`].
    post: u64,
    /// How often it begins anew, not again after a trap.
    executions: u64,
    /// It can be told where it goes: neither a trap nor the return from one.
    has_post: bool,
}

/// Where a probe behind an instruction fires otherwise than the instruction ends: what traps, and is skipped by its handler,
/// has ended for whoever waits at the place where it goes on.
const POST: [(&str, &str, u64); 2] = [("faults", "divide", 1), ("fault_in_slot", "load", 1)];

/// Handlers at trap level 1, by their offset in the trap table: how many instructions they have, up to `retry`, and how often
/// they run. Six snippets spill 100 windows and fill 100; each of 932 calls of a snippet spills its caller, which the return
/// fills; and the first call spills the window below that, to which nobody returns.
const HANDLERS: [(&str, u64, u64, u64); 3] =
    [("spill", 0x1000, 22, 1033), ("fill", 0x1800, 22, 1032), ("clean_window", 0x480, 24, 5)];

/// Every instruction of the snippets and of the handlers.
fn sites(image: &KernelImage) -> Vec<Site> {
    let mut sites: Vec<Site> = all().iter().flat_map(|snippet| sites_of(image, snippet)).collect();
    let (table, _) = common::symbol(image, "trap_table");
    for (name, offset, insns, runs) in HANDLERS {
        let start = table + offset;
        let last = start + (insns - 1) * 4;
        assert_eq!(word(image, last), RETRY, "{name}");
        sites.extend((start..=last).step_by(4).map(|addr| Site {
            name: format!("{name}_{}", addr - start),
            addr,
            attempts: runs,
            post: runs,
            executions: runs,
            has_post: addr != last,
        }));
    }
    sites
}

const RETRY: u32 = 0x83f0_0000;

fn word(image: &KernelImage, addr: u64) -> u32 {
    u32::from_be_bytes(image.bytes(GuestAddr(addr), 4).unwrap().try_into().unwrap())
}

fn sites_of(image: &KernelImage, Snippet { name, runs, labels }: &Snippet) -> Vec<Site> {
    let address = |label: &str| common::symbol(image, &format!("snip_{name}.{label}")).0;
    let mut counts: BTreeMap<u64, (&str, u64)> =
        labels.iter().map(|(label, count)| (address(label), (label.as_str(), *count))).collect();
    assert_eq!(counts.len(), labels.len(), "snip_{name}: two labels at one place");
    let start = common::symbol(image, &format!("snip_{name}")).0;
    let (mut count, mut sites) = (1, Vec::new());
    for addr in (start..address("end")).step_by(4) {
        let label = counts.remove(&addr);
        count = label.map_or(count, |(_, count)| count);
        let here = |known: &&(&str, &str, u64)| label.is_some_and(|(label, _)| (known.0, known.1) == (*name, label));
        let completed = COMPLETED.iter().find(here).map_or(count, |(_, _, completed)| *completed);
        let word = word(image, addr);
        // SPARC V9 manual, A.63 and A.25: Tcc is op 2, op3 3a; ILLTRAP is op 0, op2 0.
        let traps = word & 0xc1f8_0000 == 0x81d0_0000 || word & 0xc1c0_0000 == 0;
        sites.push(Site {
            name: format!("{name}_{}", addr - start),
            addr,
            attempts: count * runs,
            post: POST.iter().find(here).map_or(completed, |(_, _, post)| *post) * runs,
            // What the handler skips was begun, and not again. A trap on purpose is no fault: each is a hit.
            executions: if completed == 0 || traps { count } else { completed } * runs,
            // A.20: DONE and RETRY are op 2, op3 3e; where they go is in registers that QEMU does not show.
            has_post: !traps && word & 0xc1f8_0000 != 0x81f0_0000,
        });
    }
    assert!(counts.is_empty(), "snip_{name}: {counts:?}");
    sites
}

/// What the snippets printed: name and run, then the state.
#[track_caller]
fn states(boot: &BootResult) -> Vec<String> {
    let states: Vec<String> =
        boot.console.lines().filter(|line| line.starts_with("QK ") && *line != "QK end").map(str::to_owned).collect();
    let unexpected = states.iter().find(|line| line.starts_with("QK unexpected"));
    assert_eq!(unexpected, None, "{}", boot.stderr);
    states
}

/// Lines that differ, not two walls of text.
#[track_caller]
fn assert_same_states(what: &str, boot: &BootResult, expected: &[String]) {
    let found = states(boot);
    let differ: Vec<_> = found.iter().zip(expected).filter(|(found, expected)| found != expected).take(5).collect();
    assert!(differ.is_empty(), "{what}: with probes, and without:\n{differ:#?}");
    assert_eq!(found.len(), expected.len(), "{what}: the number of states");
}

/// Asserts the hits of all probes.
#[track_caller]
fn assert_all(what: &str, boot: &BootResult, expected: &[(String, u64)]) {
    let summary = boot.summary();
    let hits: BTreeMap<&str, u64> = summary.probes.iter().map(|probe| (probe.name.as_str(), probe.hits)).collect();
    let wrong: Vec<String> = expected
        .iter()
        .map(|(name, count)| (name, *count, hits[name.as_str()]))
        .filter(|(_, count, found)| found != count)
        .map(|(name, count, found)| format!("{name}: {found}, not {count}"))
        .collect();
    let said: Vec<&str> = boot.stderr.lines().filter(|line| line.starts_with("qkprobe")).take(20).collect();
    assert!(wrong.is_empty(), "{what}: {} of {}: {wrong:#?}\n{said:#?}", wrong.len(), expected.len());
    assert_eq!(hits.len(), expected.len(), "{what}: the number of probes");
    for probe in &summary.probes {
        assert_eq!((probe.missed, probe.dropped), (0, 0), "{what}: {probe:?}");
    }
}

/// Variables of a Linux kernel, from which its page tables are found: so the guest's memory is, though it is none. They lie
/// behind the image, which is at its own physical address. The other variables are 0: an UltraSPARC.
const LAYOUT: &str = "\
00000000005f0000 D kern_base
00000000005f0010 D tlb_type
00000000005f2000 D swapper_pg_dir
00000000005f4000 D trap_block
";
/// Puts that number there before the guest starts.
const KERN_BASE: [&str; 2] = ["-device", "loader,addr=0x5f0000,data=0x400000,data-len=8,data-be=on"];

fn boot(qemu: Qemu) -> Boot {
    Boot::new(qemu, GUEST).memory(256).extra_args(KERN_BASE)
}

/// A boot with these probes, which must leave the same states as one without the plugin. `layout`: the plugin can find
/// memory.
#[track_caller]
fn with_probes(what: &str, boot: Boot, layout: bool, config: &str, untouched: &[String]) -> BootResult {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("probes.toml");
    std::fs::write(&file, config).unwrap();
    let map = folder.path().join("System.map");
    std::fs::write(&map, LAYOUT).unwrap();
    let image = Cache::open().unwrap().kernel(GUEST).unwrap();
    let mut boot = boot
        .plugin_arg("out=/dev/null")
        .plugin_arg(format!("config={}", file.display()))
        .plugin_arg(format!("kernel={}", image.display()));
    if layout {
        boot = boot.plugin_arg(format!("kernel={}", map.display()));
    }
    let boot = boot.run_ok();
    assert_same_states(what, &boot, untouched);
    boot
}

/// One probe of a TOML file.
fn entry(config: &mut String, name: &str, rest: &str, action: &str) {
    writeln!(config, "[[probe]]\ndef = 'p:{name} {rest}'\naction = '{action}'").unwrap();
}

/// What a callback reads: registers of the window and of the CPU, memory.
const EVENT: &str = "s=%sp a=%o0 i=%i0 l=%l7 g=%g1 p=%tstate n=%npc m=+2047(%sp)";

/// A boot with probes before and behind every instruction, which changed nothing.
struct Probed {
    what: String,
    boot: BootResult,
    sites: Vec<Site>,
    expected: Vec<(String, u64)>,
}

/// With counters, or with callbacks that read: each boot is made once, whoever asks.
fn probed(action: &'static str) -> &'static Probed {
    static BOOTS: [OnceLock<Probed>; 2] = [OnceLock::new(), OnceLock::new()];
    let fetch = if action == "trace" { EVENT } else { "" };
    BOOTS[usize::from(action == "trace")].get_or_init(|| {
        let sites = sites(&common::image(GUEST));
        assert!(sites.len() > 500, "{}", sites.len());
        let (mut config, mut expected) = (String::new(), Vec::new());
        for Site { name, addr, attempts, post: ended, executions, has_post } in &sites {
            entry(&mut config, name, &format!("{addr:#x} {fetch}"), action);
            expected.push((name.clone(), *executions));
            let (tried, post) = (format!("{name}_attempts"), format!("{name}_post"));
            entry(&mut config, &tried, &format!("{addr:#x} {fetch} do attempts"), action);
            expected.push((tried, *attempts));
            if !has_post {
                continue;
            }
            entry(&mut config, &post, &format!("{addr:#x} {fetch} do post"), action);
            expected.push((post, *ended));
        }
        let what = format!("{action}, {} instructions", sites.len());
        let untouched = states(&boot(Qemu::V11_1).run_ok());
        let boot = with_probes(&what, boot(Qemu::V11_1), true, &config, &untouched);
        Probed { what, boot, sites, expected }
    })
}

#[test]
fn a_probe_before_and_behind_every_instruction_changes_nothing_and_counts_exactly() {
    for action in ["count", "trace"] {
        let Probed { what, boot, expected, .. } = probed(action);
        assert_all(what, boot, expected);
    }
}

/// A row of the table above: the instructions of these snippets or handlers, among which each of `words`, under its mask, is
/// executed.
#[track_caller]
fn row(snippets: &[&str], words: &[(u32, u32)]) {
    let image = common::image(GUEST);
    for action in ["count", "trace"] {
        let Probed { what, boot, sites, expected } = probed(action);
        let is_of = |name: &str, snippet: &str| {
            name.strip_prefix(snippet).and_then(|rest| rest.strip_prefix('_')).is_some_and(|rest| {
                rest.split('_').next().is_some_and(|offset| offset.bytes().all(|byte| byte.is_ascii_digit()))
            })
        };
        let is_in = |name: &str| snippets.iter().any(|snippet| is_of(name, snippet));
        for snippet in snippets {
            assert!(sites.iter().any(|site| is_of(&site.name, snippet)), "no {snippet}");
        }
        for (mask, value) in words {
            let is_it =
                |site: &&Site| is_in(&site.name) && site.attempts > 0 && word(&image, site.addr) & mask == *value;
            assert!(sites.iter().any(|site| is_it(&site)), "no {value:08x} is executed in {snippets:?}");
        }
        let summary = boot.summary();
        for (name, count) in expected.iter().filter(|(name, _)| is_in(name)) {
            let probe = summary.probe(name);
            assert_eq!((probe.hits, probe.missed), (*count, 0), "{what}: {name}");
        }
    }
}

#[test]
fn s1_delay_slots_of_taken_branches() {
    row(
        &["taken", "always", "call_direct", "call_register", "couple", "couple_jump", "couple_of_three"],
        &[(!0, 0x0100_0000)],
    );
}

/// Format 2 with the annul bit: untaken, and `ba,a`, whose condition is 8.
#[test]
fn s2_annulling_branches() {
    row(
        &["annulled_taken", "annulled_untaken", "always_annulled", "never_annulled", "loop_annulled"],
        &[(0xe000_0000, 0x2000_0000), (0xfe00_0000, 0x3000_0000)],
    );
}

/// A.44: RDPR and RD are op 2; `rd %pc` has op3 28 and rs1 5.
#[test]
fn s3_rd_pc() {
    row(&["read_pc"], &[(0xc1ff_c000, 0x8141_4000)]);
}

/// `done`, `retry`, `saved`, `restored`, `flushw`, traps.
#[test]
fn s4_done_retry_windows_and_traps() {
    row(
        &["done_away", "retry_away", "retry_in_slot", "deep_flushw", "trap_counted", "trap_in_slot", "spill", "fill"],
        &[
            (!0, 0x81f0_0000),
            (!0, RETRY),
            (!0, 0x8188_0000),
            (!0, 0x8388_0000),
            (!0, 0x8158_0000),
            (0xc1f8_0000, 0x81d0_0000),
        ],
    );
}

#[test]
fn s5_handlers_at_trap_level_1() {
    row(&["spill", "fill", "clean_window"], &[(!0, RETRY)]);
}

/// Before QEMU 10.2 nothing is told of exceptions: each attempt is a hit. Nobody needs to find memory for this.
#[test]
fn inline_counts_and_addresses_on_every_qemu() {
    let sites = sites(&common::image(GUEST));
    for qemu in Qemu::selected() {
        let untouched = states(&boot(qemu).run_ok());
        for action in ["count", "trace"] {
            let (mut config, mut expected) = (String::new(), Vec::new());
            for Site { name, addr, attempts, executions, .. } in &sites {
                entry(&mut config, name, &format!("{addr:#x}"), action);
                expected.push((name.clone(), if qemu == Qemu::V11_1 { *executions } else { *attempts }));
            }
            let what = format!("{qemu}, {action}, {} instructions", sites.len());
            let boot = with_probes(&what, boot(qemu), false, &config, &untouched);
            assert_all(&what, &boot, &expected);
        }
    }
}

/// In an image that is no Linux kernel nobody can find memory, nor the code that something returns or goes on to.
#[test]
fn what_needs_memory_is_refused_without_a_kernel() {
    for definition in ["p:e snip_nops m=+0(%sp)", "p:e snip_nops do post", "r:e snip_nops"] {
        let boot = boot(Qemu::V11_1).plugin_arg(format!("probe={definition}")).run();
        assert!(!boot.status.success(), "{definition}");
        let why = "this needs the guest's memory: the kernel has no symbol kern_base, without which its page tables are \
                   not found";
        assert!(boot.stderr.contains(why), "{definition}: {}", boot.stderr);
    }
}
