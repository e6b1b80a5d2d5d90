//! Every instruction of a guest without a kernel, with and without a probe on it: the guest must not be able to tell,
//! and the counts must be what the source says. The guest is `guest-images/bare`: it calls snippets from a known state
//! and prints the state that they leave. [`rows`] asks the same of single kinds of instructions: those that the kernel's own
//! kprobes refuse or get wrong.

mod common;

mod bare {
    pub(crate) mod i386;
    mod rows;
    pub(crate) mod snippets;
}

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, OnceLock};

use bare::i386;
use bare::snippets::{self, FRAGMENTS, LEAVES, LITERALS, RESTARTED, Snippet};
use qkprobe_arch::{Flow, GuestAddr};
use qkprobe_symbols::KernelImage;
use qkprobe_tests::{Boot, BootResult, GuestKernel, Qemu, Threads};

/// What is known of a guest by hand.
struct Guest {
    kernel: GuestKernel,
    snippets: Vec<Snippet>,
    leaves: &'static [(&'static str, &'static str)],
    restarted: &'static [(&'static str, &'static str)],
    literals: &'static [(&'static str, &'static [(&'static str, u64)])],
    /// The stack pointer.
    sp: &'static str,
}

fn x86_64() -> Guest {
    Guest {
        kernel: GuestKernel::X86_64Bare,
        snippets: snippets::all(),
        leaves: &LEAVES,
        restarted: &RESTARTED,
        literals: &LITERALS,
        sp: "rsp",
    }
}

fn i386() -> Guest {
    Guest {
        kernel: GuestKernel::I386Bare,
        snippets: i386::all(),
        leaves: &i386::LEAVES,
        restarted: &i386::RESTARTED,
        literals: &i386::LITERALS,
        sp: "esp",
    }
}

/// One instruction.
#[derive(Debug)]
struct Site {
    /// `SNIPPET_OFFSET`.
    name: String,
    /// `snip_SNIPPET+OFFSET`.
    place: String,
    /// The instruction.
    bytes: Vec<u8>,
    /// How often it is attempted, or at least that often where QEMU decides (`rep`).
    hits: u64,
    repeats: bool,
    /// How often it completes and goes on at the next instruction or at a destination of its own; none where it leaves.
    completed: Option<u64>,
    /// It faults and is restarted, and QEMU tells of that where it can.
    told: bool,
    user: bool,
}

/// The address of each label of a snippet, without the prefix.
fn labels<'a>(image: &'a KernelImage, snippet: &str) -> BTreeMap<&'a str, u64> {
    let prefix = format!("snip_{snippet}.");
    let label = |name: &'a str| name.strip_prefix(&prefix);
    image.symbols.iter().filter_map(|symbol| Some((label(symbol.name)?, symbol.addr.0))).collect()
}

/// Every instruction of the snippets, with what `snippets` says of it.
fn sites(image: &KernelImage, guest: &Guest) -> Vec<Site> {
    let snippets = &guest.snippets;
    let named: BTreeSet<&str> = snippets.iter().map(|snippet| snippet.name).collect();
    let there: BTreeSet<&str> = image
        .symbols
        .iter()
        .filter_map(|symbol| symbol.name.strip_prefix("snip_").filter(|name| !name.contains('.')))
        .collect();
    assert_eq!(named, there, "the snippets of the table and of the image");
    snippets.iter().flat_map(|snippet| sites_of(image, guest, snippet)).collect()
}

fn sites_of(image: &KernelImage, guest: &Guest, snippet: &Snippet) -> Vec<Site> {
    let arch = qkprobe_arch::by_name(guest.kernel.arch().name()).unwrap();
    let name = snippet.name;
    let labels = labels(image, name);
    let (start, _) = common::symbol(image, &format!("snip_{name}"));
    let len = usize::try_from(labels["end"] - start).unwrap();
    let text = image.bytes(GuestAddr(start), len).unwrap();
    let mut expected: BTreeMap<u64, (&str, u64)> = BTreeMap::new();
    for (label, count) in &snippet.labels {
        let at = labels.get(label.as_str()).unwrap_or_else(|| panic!("snip_{name} has no label {label}"));
        let other = expected.insert(at - start, (label, *count));
        assert!(other.is_none(), "snip_{name}: {label} and {other:?} are one place");
    }
    assert_eq!(expected.len() + 1, labels.len(), "snip_{name}: its labels are {labels:?}");
    let (mut sites, mut offset, mut count) = (Vec::new(), 0, 1);
    while offset < len {
        let bytes = &text[offset..];
        let insn = arch
            .decode(GuestAddr(start + offset as u64), bytes)
            .unwrap_or_else(|error| panic!("snip_{name}+{offset}: {error}"));
        let label = expected.remove(&(offset as u64));
        if let Some((_, this)) = label {
            count = this;
        }
        let is_in = |list: &[(&str, &str)]| label.is_some_and(|(label, _)| list.contains(&(name, label)));
        let completed = if is_in(guest.restarted) { count / 2 } else { count } * snippet.runs;
        sites.push(Site {
            name: format!("{name}_{offset}"),
            place: format!("snip_{name}+{offset}"),
            bytes: bytes[..usize::from(insn.len)].to_vec(),
            hits: count * snippet.runs,
            repeats: insn.flow == Flow::Next && is_repeated(guest, &bytes[..usize::from(insn.len)]),
            // Filler that nobody reaches.
            completed: (!is_in(guest.leaves) && !bytes.starts_with(&[0x0f, 0x0b])).then_some(completed),
            told: label.is_some_and(|(label, _)| name == "pf_map" && guest.restarted.contains(&(name, label))),
            user: snippet.user,
        });
        offset += usize::from(insn.len);
    }
    assert!(expected.is_empty(), "snip_{name}: inside of instructions: {expected:?}");
    sites
}

/// `rep`, `repe` or `repne` with a string instruction.
fn is_repeated(guest: &Guest, bytes: &[u8]) -> bool {
    // 0x40 to 0x4f are REX, with 64 bits.
    let is_rex = |byte: u8| guest.kernel == GuestKernel::X86_64Bare && byte & 0xf0 == 0x40;
    let opcode = bytes.iter().position(|byte| !matches!(byte, 0xf2 | 0xf3 | 0x66 | 0x67) && !is_rex(*byte));
    let opcode = opcode.expect("an opcode");
    bytes[..opcode].iter().any(|byte| matches!(byte, 0xf2 | 0xf3)) && matches!(bytes[opcode], 0xa4..=0xa7 | 0xaa..=0xaf)
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

/// A value of a state.
#[track_caller]
fn value(state: &str, key: &str) -> u64 {
    let text = state.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
    let text = text.unwrap_or_else(|| panic!("no {key} in {state}"));
    u64::from_str_radix(text, 16).unwrap_or_else(|error| panic!("{key}={text}: {error}"))
}

fn boot(qemu: Qemu, guest: &Guest) -> Boot {
    Boot::new(qemu, guest.kernel).memory(128)
}

/// The states of a boot without the plugin.
fn untouched(qemu: Qemu, guest: &Guest) -> Vec<String> {
    states(&boot(qemu, guest).run_ok())
}

/// Lines that differ, not two walls of text.
#[track_caller]
fn assert_same_states(what: &str, found: &[String], expected: &[String]) {
    let differ: Vec<_> = found.iter().zip(expected).filter(|(found, expected)| found != expected).take(5).collect();
    assert!(differ.is_empty(), "{what}: with probes, and without:\n{differ:#?}");
    assert_eq!(found.len(), expected.len(), "{what}: the number of states");
}

#[track_caller]
fn does_what_its_source_says(guest: &Guest) {
    for qemu in Qemu::selected() {
        let states = untouched(qemu, guest);
        assert_same_states(&format!("{qemu}, again"), &untouched(qemu, guest), &states);
        for snippet in guest.snippets.iter().filter(|snippet| !FRAGMENTS.contains(&snippet.name)) {
            let prefix = format!("QK {} run=", snippet.name);
            let mut runs: Vec<&str> = states.iter().filter_map(|state| state.strip_prefix(&prefix)).collect();
            assert_eq!(runs.len() as u64, snippet.runs, "{qemu}: {}", snippet.name);
            // Each run starts from the same state, so it ends in the same.
            runs.iter_mut().for_each(|run| *run = run.split_once(' ').unwrap().1);
            runs.dedup();
            assert_eq!(runs.len(), 1, "{qemu}: {}: {runs:#?}", snippet.name);
        }
        let first = |name: &str| {
            let prefix = format!("QK {name} run=1 ");
            states.iter().find(|state| state.starts_with(&prefix)).unwrap_or_else(|| panic!("{qemu}: no {name}"))
        };
        let sp = value(first("nops"), guest.sp);
        for state in &states {
            let left = state.starts_with("QK left_for_good ");
            assert_eq!(value(state, guest.sp) == sp, !left, "{qemu}: {state}");
        }
        assert_literals(&qemu.to_string(), guest, &states, &[]);
    }
}

/// What the source alone says of the states of these snippets, or of all.
#[track_caller]
fn assert_literals(what: &str, guest: &Guest, states: &[String], snippets: &[&str]) {
    for (name, registers) in guest.literals.iter().filter(|(name, _)| snippets.is_empty() || snippets.contains(name)) {
        let prefix = format!("QK {name} run=1 ");
        let state = states.iter().find(|state| state.starts_with(&prefix));
        let state = state.unwrap_or_else(|| panic!("{what}: no {name}"));
        let found: Vec<_> = registers.iter().map(|(register, _)| (*register, value(state, register))).collect();
        assert_eq!(found, *registers, "{what}: {state}");
    }
}

#[test]
fn the_guest_does_what_its_source_says() {
    does_what_its_source_says(&x86_64());
}

#[test]
fn the_i386_guest_does_what_its_source_says() {
    does_what_its_source_says(&i386());
}

/// How a machine runs, and what is asked of each instruction.
#[derive(Clone, Copy, Debug)]
struct Case {
    smp: u32,
    threads: Threads,
    /// QEMU's clock counts instructions: it ends blocks where it must, and repeats what does input or output.
    icount: bool,
    /// The action, and what follows the place: a counter, or a callback that reads registers and memory.
    probe: (&'static str, &'static str),
}

const COUNT: (&str, &str) = ("count", "");
const EVENT: (&str, &str) = ("trace", " a=%ax s=%sp f=%flags m=+0(%sp)");

const fn case(smp: u32, threads: Threads, icount: bool, probe: (&'static str, &'static str)) -> Case {
    Case { smp, threads, icount, probe }
}

const CASES: [Case; 8] = [
    case(1, Threads::Multi, false, COUNT),
    // Two vCPUs: QEMU makes other code for what must be atomic. The second one never leaves the firmware.
    case(2, Threads::Multi, false, COUNT),
    case(2, Threads::Single, false, COUNT),
    case(1, Threads::Single, true, COUNT),
    case(1, Threads::Multi, false, EVENT),
    case(2, Threads::Multi, false, EVENT),
    case(2, Threads::Single, false, EVENT),
    case(1, Threads::Single, true, EVENT),
];

/// Probes on every instruction, as a file: so many do not fit into one argument (128 KB), and none there says `user`.
fn probes(sites: &[Site], probe: (&str, &str)) -> String {
    let (action, fetch) = probe;
    let entry = |name: &str, place: &str, privilege: &str| {
        format!("[[probe]]\ndef = 'p:{name} {place}{fetch}'\naction = '{action}'\nprivilege = '{privilege}'\n")
    };
    let mut text = String::new();
    for Site { name, place, user, .. } in sites {
        text += &entry(name, place, "kernel");
        if *user {
            text += &entry(&format!("{name}_u"), place, "user");
            text += &entry(&format!("{name}_any"), place, "any");
        }
    }
    text
}

/// Probes behind every instruction that has a behind.
fn post_probes(sites: &[Site]) -> String {
    let with_post = sites.iter().filter(|site| !site.user && site.completed.is_some());
    with_post
        .map(|Site { name, place, .. }| format!("[[probe]]\ndef = 'p:{name}_post {place} do post'\naction = 'count'\n"))
        .collect()
}

/// How often each probe has to fire: exactly, or at least.
fn expectations(qemu: Qemu, sites: &[&Site]) -> Vec<(String, u64, bool)> {
    let mut all = Vec::new();
    for site in sites {
        // QEMU 10.2 and later tell of exceptions: an instruction that is restarted is one execution.
        let hits = site.completed.filter(|_| site.told && qemu == Qemu::V11_1).unwrap_or(site.hits);
        if site.user {
            all.push((site.name.clone(), 0, true));
            all.push((format!("{}_u", site.name), site.hits, !site.repeats));
            all.push((format!("{}_any", site.name), site.hits, !site.repeats));
        } else {
            all.push((site.name.clone(), hits, !site.repeats));
            if let Some(completed) = site.completed {
                all.push((format!("{}_post", site.name), completed, !site.repeats));
            }
        }
    }
    all
}

/// What a boot with probes before and behind every instruction left.
struct Probed {
    what: String,
    states: Vec<String>,
    /// What the same machine leaves without the plugin.
    expected: Vec<String>,
    hits: BTreeMap<String, u64>,
    /// Probes that missed something, or whose records were dropped.
    lossy: Vec<String>,
    said: Vec<String>,
}

/// The boot of a case: made once, whoever asks.
fn probed(qemu: Qemu, guest: &Guest, case: Case) -> Arc<Probed> {
    type Boots = Mutex<BTreeMap<String, Arc<OnceLock<Arc<Probed>>>>>;
    static BOOTS: Boots = Mutex::new(BTreeMap::new());
    let what = format!("{}, {qemu}, {case:?}", guest.kernel.name());
    let boot = Arc::clone(BOOTS.lock().unwrap().entry(what.clone()).or_default());
    Arc::clone(boot.get_or_init(|| Arc::new(boot_with_probes(what, qemu, guest, case))))
}

fn boot_with_probes(what: String, qemu: Qemu, guest: &Guest, case: Case) -> Probed {
    let sites = sites(&common::image(guest.kernel), guest);
    assert!(sites.len() > 900, "{}", sites.len());
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("probes.toml");
    std::fs::write(&config, probes(&sites, case.probe) + &post_probes(&sites)).unwrap();
    let boot = boot(qemu, guest)
        .smp(case.smp)
        .threads(case.threads)
        .extra_args(if case.icount { &["-icount", "shift=0,sleep=off"][..] } else { &[] }.iter().copied())
        .plugin_arg("out=/dev/null")
        .plugin_arg(format!("config={}", config.display()))
        .run_ok();
    let summary = boot.summary();
    let lossy = summary.probes.iter().filter(|probe| (probe.missed, probe.dropped) != (0, 0));
    Probed {
        what,
        states: states(&boot),
        expected: untouched(qemu, guest),
        hits: summary.probes.iter().map(|probe| (probe.name.clone(), probe.hits)).collect(),
        lossy: lossy.map(|probe| format!("{probe:?}")).collect(),
        said: boot.stderr.lines().filter(|line| line.starts_with("qkprobe")).map(str::to_owned).collect(),
    }
}

impl Probed {
    /// Asserts the states of these snippets, or of all, and the hits at these instructions.
    #[track_caller]
    fn assert_right(&self, qemu: Qemu, guest: &Guest, sites: &[&Site], snippets: &[&str]) {
        let of = |states: &[String]| -> Vec<String> {
            let is_one = |state: &&String| {
                snippets.is_empty() || snippets.iter().any(|name| state.starts_with(&format!("QK {name} run=")))
            };
            states.iter().filter(is_one).cloned().collect()
        };
        let what = format!("{}, {} instructions", self.what, sites.len());
        assert_same_states(&what, &of(&self.states), &of(&self.expected));
        assert_literals(&what, guest, &self.states, snippets);
        let wrong: Vec<String> = expectations(qemu, sites)
            .into_iter()
            .filter_map(|(name, count, exact)| {
                let found = *self.hits.get(&name).unwrap_or_else(|| panic!("{what}: no probe {name}"));
                let right = if exact { found == count } else { found >= count };
                (!right).then(|| format!("{name}: {found}, not {count}"))
            })
            .collect();
        assert!(wrong.is_empty(), "{what}: {} counts: {wrong:#?}\n{:#?}", wrong.len(), self.said);
        assert!(self.lossy.is_empty(), "{what}: {:#?}", self.lossy);
    }
}

#[track_caller]
fn changes_nothing_and_counts_exactly(guest: &Guest, cases: &[Case]) {
    let sites = sites(&common::image(guest.kernel), guest);
    let sites: Vec<&Site> = sites.iter().collect();
    for qemu in Qemu::selected() {
        for case in cases {
            probed(qemu, guest, *case).assert_right(qemu, guest, &sites, &[]);
        }
    }
}

#[test]
fn a_probe_on_every_instruction_changes_nothing_and_counts_exactly() {
    changes_nothing_and_counts_exactly(&x86_64(), &CASES);
}

/// With QEMU's own ways to run, which are the same as for x86_64, less often.
#[test]
fn a_probe_on_every_instruction_of_i386_changes_nothing_and_counts_exactly() {
    changes_nothing_and_counts_exactly(&i386(), &[CASES[0], CASES[3], CASES[5]]);
}
