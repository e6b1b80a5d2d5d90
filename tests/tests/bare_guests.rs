//! The guests without a kernel for other machines than x86_64: they do what their source says. How often each
//! instruction runs is told by QEMU's own log, one instruction a block, and must be what was counted by hand; so a
//! probe on each instruction, and its counts, can be measured against the same tables.

mod common;

mod bare {
    pub(crate) mod powerpc;
    pub(crate) mod snippet;
    pub(crate) mod sparc64;
}

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};

use bare::snippet::Snippet;
use qkprobe_symbols::KernelImage;
use qkprobe_tests::{Boot, BootResult, GuestKernel, Qemu, Threads};

/// What is known of a guest by hand.
struct Guest {
    kernel: GuestKernel,
    snippets: Vec<Snippet>,
    completed: &'static [(&'static str, &'static str, u64)],
    literals: &'static [(&'static str, &'static [(&'static str, u64)])],
}

fn sparc64() -> Guest {
    use bare::sparc64::{COMPLETED, LITERALS, all};
    Guest { kernel: GuestKernel::Sparc64Bare, snippets: all(), completed: &COMPLETED, literals: &LITERALS }
}

fn powerpc(kernel: GuestKernel) -> Guest {
    use bare::powerpc::{COMPLETED, LITERALS, all};
    Guest { kernel, snippets: all(), completed: &COMPLETED, literals: &LITERALS }
}

fn ppc32() -> Guest {
    use bare::powerpc::{COMPLETED_32, LITERALS_32, all_32};
    Guest { kernel: GuestKernel::Ppc32Bare, snippets: all_32(), completed: &COMPLETED_32, literals: &LITERALS_32 }
}

/// What the snippets printed: name and run, then the state.
#[track_caller]
fn states(boot: &BootResult) -> Vec<String> {
    let lines = boot.console.lines().filter(|line| line.starts_with("QK ") && *line != "QK end");
    let states: Vec<String> = lines.map(str::to_owned).collect();
    let unexpected = states.iter().find(|line| line.starts_with("QK unexpected"));
    assert_eq!(unexpected, None, "{}", boot.console);
    states
}

/// A value of a state.
#[track_caller]
fn value(state: &str, key: &str) -> u64 {
    let text = state.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
    let text = text.unwrap_or_else(|| panic!("no {key} in {state}"));
    u64::from_str_radix(text, 16).unwrap_or_else(|error| panic!("{key}={text}: {error}"))
}

#[track_caller]
fn does_what_its_source_says(guest: &Guest) {
    let Guest { kernel, snippets, literals, .. } = guest;
    let mut first = None;
    for qemu in Qemu::selected() {
        let what = format!("{qemu}, {}", kernel.name());
        let states = states(&Boot::new(qemu, *kernel).memory(256).run_ok());
        // Nothing depends on time, or on the version of QEMU.
        let first = first.get_or_insert_with(|| states.clone());
        let differ = first.iter().zip(&states).find(|(one, other)| one != other);
        assert!(differ.is_none() && first.len() == states.len(), "{what}: {differ:#?}");
        for snippet in snippets {
            let prefix = format!("QK {} run=", snippet.name);
            let mut runs: Vec<&str> = states.iter().filter_map(|state| state.strip_prefix(&prefix)).collect();
            assert_eq!(runs.len() as u64, snippet.runs, "{what}: {}", snippet.name);
            // Each run starts from the same state, so it ends in the same.
            runs.iter_mut().for_each(|run| *run = run.split_once(' ').unwrap().1);
            runs.dedup();
            assert_eq!(runs.len(), 1, "{what}: {}: {runs:#?}", snippet.name);
        }
        for (name, registers) in *literals {
            let prefix = format!("QK {name} run=1 ");
            let state = states.iter().find(|state| state.starts_with(&prefix));
            let state = state.unwrap_or_else(|| panic!("{what}: no {name}"));
            let found: Vec<_> = registers.iter().map(|(register, _)| (*register, value(state, register))).collect();
            assert_eq!(found, *registers, "{what}: {state}");
        }
    }
}

/// How often each instruction of the snippets is attempted in a boot, by address. Words of data do not occur; a prefixed
/// instruction of powerpc is two words, of which the second has the count of none.
fn expected(image: &KernelImage, guest: &Guest) -> BTreeMap<u64, (String, u64)> {
    let mut expected = BTreeMap::new();
    let named: BTreeSet<&str> = guest.snippets.iter().map(|snippet| snippet.name).collect();
    let there: BTreeSet<&str> = image
        .symbols
        .iter()
        .filter_map(|symbol| symbol.name.strip_prefix("snip_").filter(|name| !name.contains('.')))
        .collect();
    assert_eq!(named, there, "{}: the snippets of the table and of the image", guest.kernel.name());
    for Snippet { name, runs, labels } in &guest.snippets {
        let address = |label: &str| common::symbol(image, &format!("snip_{name}.{label}")).0;
        let there = image.symbols.iter().filter(|symbol| symbol.name.starts_with(&format!("snip_{name}."))).count();
        assert_eq!(there, labels.len() + 1, "snip_{name}: its labels");
        let mut counts: BTreeMap<u64, u64> = labels.iter().map(|(label, count)| (address(label), *count)).collect();
        assert_eq!(counts.len(), labels.len(), "snip_{name}: two labels at one place");
        let start = common::symbol(image, &format!("snip_{name}")).0;
        counts.entry(start).or_insert(1);
        let (mut count, mut prefixed) = (1, false);
        for addr in (start..address("end")).step_by(4) {
            count = counts.remove(&addr).unwrap_or(count);
            // Power ISA 3.1, 1.6.3: primary opcode 1 is a prefix.
            let word = image.bytes(qkprobe_symbols::GuestAddr(addr), 4).unwrap();
            let opcode = match image.byte_order {
                Some(qkprobe_symbols::ByteOrder::Little) => word[3] >> 2,
                _ => word[0] >> 2,
            };
            let suffix = std::mem::replace(&mut prefixed, false);
            prefixed = guest.kernel != GuestKernel::Sparc64Bare && !suffix && opcode == 1;
            let hits = if suffix { 0 } else { count * runs };
            expected.insert(addr, (format!("snip_{name}+{:#x}", addr - start), hits));
        }
        assert!(counts.is_empty(), "snip_{name}: labels inside of instructions");
    }
    // Completions are a part of the attempts.
    for (snippet, label, completed) in guest.completed {
        let addr = common::symbol(image, &format!("snip_{snippet}.{label}")).0;
        let runs = guest.snippets.iter().find(|known| known.name == *snippet).unwrap().runs;
        assert!(completed * runs < expected[&addr].1, "{snippet}.{label} completes as often as it is attempted");
    }
    expected
}

#[track_caller]
fn counts_are_qemus(guest: &Guest) {
    let image = common::image(guest.kernel);
    let expected = expected(&image, guest);
    let (first, last) = (*expected.keys().next().unwrap(), *expected.keys().next_back().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("exec");
    let boot = Boot::new(Qemu::V11_1, guest.kernel)
        .memory(256)
        .threads(Threads::Single)
        .one_insn_per_block()
        .extra_args(["-d", "exec,nochain"])
        .extra_args(["-D", &log.display().to_string(), "-dfilter", &format!("{first:#x}..{last:#x}")])
        .run_ok();
    assert!(boot.console.contains("QK end"));
    // Trace 0: 0x7f01543f06c0 [00410604/0000000000410600/00000052/ff000201] symbol
    let mut found: BTreeMap<u64, u64> = BTreeMap::new();
    for line in BufReader::new(std::fs::File::open(&log).unwrap()).lines() {
        let line = line.unwrap();
        let Some(addr) = line.strip_prefix("Trace ").and_then(|line| line.split('/').nth(1)) else { continue };
        *found.entry(u64::from_str_radix(addr, 16).unwrap()).or_default() += 1;
    }
    let wrong: Vec<String> = expected
        .iter()
        .map(|(addr, (place, hits))| (place, *hits, found.get(addr).copied().unwrap_or(0)))
        .filter(|(_, hits, found)| hits != found)
        .map(|(place, hits, found)| format!("{place}: {found}, not {hits}"))
        .collect();
    assert!(wrong.is_empty(), "{}: {} of {}: {wrong:#?}", guest.kernel.name(), wrong.len(), expected.len());
}

#[test]
fn sparc64_does_what_its_source_says() {
    does_what_its_source_says(&sparc64());
}

#[test]
fn sparc64_runs_each_instruction_as_often_as_counted() {
    counts_are_qemus(&sparc64());
}

#[test]
fn ppc64_does_what_its_source_says() {
    does_what_its_source_says(&powerpc(GuestKernel::Ppc64Bare));
}

#[test]
fn ppc64_runs_each_instruction_as_often_as_counted() {
    counts_are_qemus(&powerpc(GuestKernel::Ppc64Bare));
}

#[test]
fn ppc64le_does_what_its_source_says() {
    does_what_its_source_says(&powerpc(GuestKernel::Ppc64leBare));
}

#[test]
fn ppc64le_runs_each_instruction_as_often_as_counted() {
    counts_are_qemus(&powerpc(GuestKernel::Ppc64leBare));
}

#[test]
fn ppc32_does_what_its_source_says() {
    does_what_its_source_says(&ppc32());
}

#[test]
fn ppc32_runs_each_instruction_as_often_as_counted() {
    counts_are_qemus(&ppc32());
}
