//! Every instruction of the guests without a kernel, with and without probes on it: the guest must not be able to tell, and the
//! counts must be what was counted by hand. With reservations, prefixed instructions, traps, `sc`, `mtmsrd` and `rfid`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use qkprobe_symbols::KernelImage;
use qkprobe_tests::{Boot, BootResult, GuestKernel, Qemu};

use crate::common::{assert_hits, image, symbol, trace_lines};
use crate::table::powerpc::{COMPLETED, COMPLETED_32, LITERALS, LITERALS_32, all, all_32};
use crate::word;

const GUESTS: [GuestKernel; 3] = [GuestKernel::Ppc64Bare, GuestKernel::Ppc64leBare, GuestKernel::Ppc32Bare];

/// One instruction.
#[derive(Debug)]
struct Site {
    /// `SNIPPET_OFFSET`, and the place.
    name: String,
    place: String,
    /// How often it is attempted, and how often it completes.
    attempts: u64,
    completed: u64,
    /// It traps on purpose, always, or returns from an interrupt: nothing runs after it.
    refused: bool,
}

/// Every instruction of the snippets.
fn sites(image: &KernelImage, kernel: GuestKernel) -> Vec<Site> {
    let mut sites = Vec::new();
    let (snippets, completions) = match kernel {
        GuestKernel::Ppc32Bare => (all_32(), &COMPLETED_32[..]),
        _ => (all(), &COMPLETED[..]),
    };
    for snippet in snippets {
        let (name, runs) = (snippet.name, snippet.runs);
        let address = |label: &str| symbol(image, &format!("snip_{name}.{label}")).0;
        let start = symbol(image, &format!("snip_{name}")).0;
        let labels: BTreeMap<u64, (&str, u64)> =
            snippet.labels.iter().map(|(label, count)| (address(label), (label.as_str(), *count))).collect();
        let (mut count, mut addr) = (1, start);
        while addr < address("end") {
            let label = labels.get(&addr).copied();
            count = label.map_or(count, |(_, count)| count);
            let code = word(image, addr);
            let completed = label
                .and_then(|(label, _)| completions.iter().find(|known| (known.0, known.1) == (name, label)))
                .map_or(count, |known| known.2);
            // Power ISA 3.1: sc is primary opcode 17; tdi and twi 2 and 3, td and tw 31 with 68 and 4; rfid and rfi 19 with 18 and 50; lmw and
            // stmw 46 and 47, which are an alignment interrupt in little endian.
            let extended = code >> 1 & 0x3ff;
            let refused = match code >> 26 {
                2 | 3 | 17 => true,
                46 | 47 => kernel == GuestKernel::Ppc64leBare,
                31 => matches!(extended, 4 | 68),
                19 => matches!(extended, 18 | 50),
                _ => false,
            };
            // Where no instruction is there is no probe.
            if code != 0 {
                sites.push(Site {
                    name: format!("{name}_{}", addr - start),
                    place: format!("snip_{name}+{}", addr - start),
                    attempts: count * runs,
                    completed: completed * runs,
                    refused,
                });
            }
            // 1.6.3: primary opcode 1 is the prefix of eight bytes.
            addr += if code >> 26 == 1 { 8 } else { 4 };
        }
    }
    sites
}

/// What the snippets printed: name and run, then the state.
#[track_caller]
fn states(boot: &BootResult) -> Vec<String> {
    let lines = boot.console.lines().filter(|line| line.starts_with("QK ") && *line != "QK end");
    let states: Vec<String> = lines.map(str::to_owned).collect();
    assert!(states.iter().all(|line| !line.starts_with("QK unexpected")), "{}", boot.console);
    states
}

/// Some states are known without QEMU.
#[track_caller]
fn assert_literals(what: &str, kernel: GuestKernel, states: &[String]) {
    let literals = if kernel == GuestKernel::Ppc32Bare { &LITERALS_32[..] } else { &LITERALS };
    for (name, registers) in literals {
        let prefix = format!("QK {name} run=1 ");
        let state =
            states.iter().find(|state| state.starts_with(&prefix)).unwrap_or_else(|| panic!("{what}: no {name}"));
        for (register, value) in *registers {
            let word = format!(" {register}={value:x} ");
            assert!(format!("{state} ").contains(&word), "{what}:{word}in {state}");
        }
    }
}

fn boot(qemu: Qemu, kernel: GuestKernel) -> Boot {
    Boot::new(qemu, kernel).memory(256)
}

#[test]
fn a_probe_on_every_instruction_changes_nothing_and_counts_exactly() {
    for kernel in GUESTS {
        let sites = sites(&image(kernel), kernel);
        assert!(sites.len() > 300, "{}", sites.len());
        for qemu in Qemu::selected() {
            let expected = states(&boot(qemu, kernel).run_ok());
            assert!(expected.len() > 600, "{}", expected.len());
            for fetch in ["", " r3=%r3 r1=%r1 cr=%ccr xer=%xer link=%link ctr=%ctr m=+0(%r2):x64"] {
                let what = format!("{qemu}, {},{fetch}", kernel.name());
                let mut probes = String::new();
                let action = if fetch.is_empty() { "count" } else { "trace" };
                for Site { name, place, refused, .. } in &sites {
                    let mut probe = |def: String| writeln!(probes, "[[probe]]\ndef = '{def}'\naction = '{action}'");
                    probe(format!("p:{name} {place}{fetch}")).unwrap();
                    if !refused {
                        probe(format!("p:{name}_post {place}{fetch} do post")).unwrap();
                    }
                }
                let folder = tempfile::tempdir().unwrap();
                let config = folder.path().join("probes.toml");
                std::fs::write(&config, probes).unwrap();
                let boot = boot(qemu, kernel)
                    .plugin_arg("out=/dev/null")
                    .plugin_arg(format!("config={}", config.display()))
                    .run_ok();
                let found = states(&boot);
                let differ = found.iter().zip(&expected).find(|(found, expected)| found != expected);
                assert!(differ.is_none() && found.len() == expected.len(), "{what}: {differ:#?}");
                assert_literals(&what, kernel, &found);
                let summary = boot.summary();
                let hits: BTreeMap<&str, u64> =
                    summary.probes.iter().map(|probe| (probe.name.as_str(), probe.hits)).collect();
                let mut wrong = Vec::new();
                for Site { name, attempts, completed, refused, .. } in &sites {
                    let mut check = |name: &str, expected: u64| {
                        if hits[name] != expected {
                            wrong.push(format!("{name}: {}, not {expected}", hits[name]));
                        }
                    };
                    check(name, *attempts);
                    if !refused {
                        check(&format!("{name}_post"), *completed);
                    }
                }
                assert!(wrong.is_empty(), "{what}: {} counts: {wrong:#?}", wrong.len());
                assert!(summary.probes.iter().all(|probe| (probe.missed, probe.dropped) == (0, 0)), "{what}");
            }
        }
    }
}

/// Eight calls deep, tail calls, calls by register: the return address is nowhere but in registers and the caller's frame.
#[test]
fn calls_return_without_a_kernel() {
    for kernel in GUESTS {
        for qemu in Qemu::selected() {
            let boot = boot(qemu, kernel)
                .plugin_arg("count=p:entries snip_recursion.enter")
                .plugin_arg("probe=r:deep snip_recursion.enter ret=$retval:s32")
                .plugin_arg("count=r3:three snip_recursion.enter")
                .plugin_arg("count=r:tail_caller snip_tail_call")
                .plugin_arg("count=r:tail_callee snip_tail_call.callee")
                .plugin_arg("count=r:direct snip_call_direct.callee")
                .plugin_arg("count=r:register snip_call_register.callee")
                .plugin_arg("count=r:outer snip_recursion")
                .run_ok();
            let what = format!("{qemu}, {}", kernel.name());
            let expected = [("entries", 40), ("deep", 40), ("three", 15), ("tail_caller", 20), ("tail_callee", 20)];
            assert_hits(&boot, &what, &expected);
            assert_hits(&boot, &what, &[("direct", 40), ("register", 60), ("outer", 5)]);
            for probe in &boot.summary().probes {
                let missed = if probe.name == "three" { 25 } else { 0 };
                assert_eq!((probe.missed, probe.abandoned, probe.pending), (missed, 0, 0), "{what}: {probe:?}");
            }
            let lines = trace_lines(&boot.trace);
            // 0 + 0 + 1 + ... on the way back.
            let results = [0, 1, 3, 6, 10, 15, 21, 28].map(|result| format!(" ret={result}"));
            let found: Vec<&str> = lines.iter().map(|line| line.args).collect();
            assert_eq!(found.len(), 40, "{what}");
            assert!(found.chunks(8).all(|run| run == results), "{what}: {found:?}");
            let callers: BTreeSet<&str> = lines.iter().map(|line| line.place.split('+').next().unwrap()).collect();
            assert_eq!(callers.len(), 2, "the snippet, and itself: {what}: {callers:?}");
        }
    }
}

/// A breakpoint shows the registers of its trap's moment; of the fields that only a trap fills it is asked the same: no soft mask,
/// a program check. `subfc` has taken r4 from r3, which is below it but for the lower halves: CA32 without CA. `subfe r19,r5,r6`
/// takes r5 from r6, which is above it: both.
#[test]
fn p3_xer_is_that_of_the_instruction() {
    for kernel in [GuestKernel::Ppc64Bare, GuestKernel::Ppc64leBare] {
        assert_eq!(word(&image(kernel), symbol(&image(kernel), "snip_arithmetic").0 + 20), 0x7e65_3110);
        for qemu in Qemu::selected() {
            let boot = boot(qemu, kernel)
                .plugin_arg("probe=p:before snip_arithmetic+20 xer=%xer trap=%trap softe=%softe")
                .plugin_arg("probe=p:ended snip_arithmetic+20 xer=%xer do post")
                .plugin_arg("probe=p:next snip_arithmetic+24 xer=%xer")
                .run_ok();
            let lines = trace_lines(&boot.trace);
            let args = |event: &str| -> Vec<&str> {
                lines.iter().filter(|line| line.event == event).map(|line| line.args).collect()
            };
            let what = format!("{qemu}, {}", kernel.name());
            assert_eq!(args("before"), [" xer=0x40000 trap=0x700 softe=0x0"; 20], "{what}");
            assert_eq!(
                (args("ended"), args("next")),
                (vec![" xer=0x20040000"; 20], vec![" xer=0x20040000"; 20]),
                "{what}"
            );
        }
    }
}
