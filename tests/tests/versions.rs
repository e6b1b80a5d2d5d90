//! Every plugin API version, also those whose QEMU nobody packages: the plugin in `fake-host/host.c`, built for each.
//!
//! The fake guest is told in that file. Its instructions are nops; symbols are in [`SYSTEM_MAP`].

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use qkprobe_tests::{Summary, plugin_path};
use tempfile::TempDir;

/// The fake guest's text has 12 instructions of 4 bytes; `end` lies behind it and is never executed. Of several names
/// of one address (`_text`, `_stext`, `first`) a record shows the first, as the kernel does.
const SYSTEM_MAP: &str = "\
ffffffff81000000 T _text
ffffffff81000000 T _stext
ffffffff81000000 T first
ffffffff81000010 T second
ffffffff81000020 T third
ffffffff81000030 T end
ffffffff81000040 T _etext
ffffffff82000000 D linux_banner
";

/// How the host is built, which QEMU it then says it is, and which API that is.
struct Version {
    flags: &'static [&'static str],
    qemu: &'static str,
    api: u32,
}

const SUPPORTED: [Version; 5] = [
    Version { flags: &["-DAPI=4"], qemu: "9.2.0", api: 4 },
    Version { flags: &["-DAPI=5", "-DDISCON=0"], qemu: "10.1.0", api: 5 },
    Version { flags: &["-DAPI=5"], qemu: "10.2.0", api: 5 },
    Version { flags: &["-DAPI=6"], qemu: "11.0.1", api: 6 },
    Version { flags: &["-DAPI=7"], qemu: "11.1.3", api: 7 },
];

const TOO_OLD: [Version; 3] = [
    Version { flags: &["-DAPI=1"], qemu: "8.2.0", api: 1 },
    Version { flags: &["-DAPI=2"], qemu: "9.0.0", api: 2 },
    Version { flags: &["-DAPI=3"], qemu: "9.1.0", api: 3 },
];

/// A fake host, built; its folder also takes what the plugin writes.
struct Host {
    folder: TempDir,
}

/// What a run of it left.
struct Run {
    output: Output,
    stdout: String,
    stderr: String,
    folder: TempDir,
}

impl Host {
    fn build(flags: &[&str]) -> Self {
        let folder = tempfile::Builder::new().prefix("qkprobe-host-").tempdir().unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("fake-host/host.c");
        let gcc = Command::new("gcc")
            .args(["-std=gnu11", "-Wall", "-Wextra", "-Wno-unused-function", "-Werror", "-O1"])
            .args(flags)
            .args(["-rdynamic", "-pthread", "-o"])
            .arg(folder.path().join("host"))
            .arg(source)
            .arg("-ldl")
            .output()
            .expect("gcc runs");
        assert!(gcc.status.success(), "{}", String::from_utf8_lossy(&gcc.stderr));
        fs::write(folder.path().join("System.map"), SYSTEM_MAP).unwrap();
        Self { folder }
    }

    fn run(self, mode: &str, target: &str, executions: u32, installs: u32, plugin_args: &[&str]) -> Run {
        let output = Command::new(self.folder.path().join("host"))
            .arg(plugin_path().unwrap())
            .args([mode, target, &executions.to_string()])
            .args(plugin_args)
            .env("HOST_INSTALLS", installs.to_string())
            .current_dir(self.folder.path())
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Run { stdout: text(&output.stdout), stderr: text(&output.stderr), output, folder: self.folder }
    }
}

impl Run {
    #[track_caller]
    fn assert_ok(&self) {
        assert!(self.output.status.success(), "{}\n{}{}", self.output.status, self.stdout, self.stderr);
        assert!(self.stdout.contains("host: the guest ended\n"), "{}", self.stdout);
        assert!(!self.stderr.contains("panicked") && !self.stderr.contains("internal error"), "{}", self.stderr);
    }

    /// The plugin refused, with this message and nothing else, and nothing of the guest ran.
    #[track_caller]
    fn assert_refused(&self, message: &str) {
        assert_eq!(self.output.status.code(), Some(1), "{}{}", self.stdout, self.stderr);
        assert!(self.stdout.contains("host: install refused with 1\n"), "{}", self.stdout);
        assert!(!self.stdout.contains("the guest ended"), "{}", self.stdout);
        assert_eq!(self.stderr, message);
    }

    fn file(&self, name: &str) -> String {
        fs::read_to_string(self.folder.path().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    fn summary(&self) -> Summary {
        serde_json::from_str(&self.file("summary")).unwrap()
    }
}

/// A record's time, vCPU and text.
fn records(trace: &str) -> Vec<(f64, u32, &str)> {
    trace
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let (head, text) = line.split_once(": ").unwrap_or_else(|| panic!("no record: {line:?}"));
            let words: Vec<&str> = head.split_whitespace().collect();
            let cpu = words[1].trim_start_matches('[').trim_end_matches(']').parse().unwrap();
            (words[3].parse().unwrap(), cpu, text)
        })
        .collect()
}

fn count(records: &[(f64, u32, &str)], cpu: u32, text: &str) -> usize {
    records.iter().filter(|record| record.1 == cpu && record.2 == text).count()
}

/// 101 executions on vCPU 0 and 202 on vCPU 1, with a flush in the middle of both.
#[test]
fn every_supported_version_counts_and_records_exactly() {
    for Version { flags, qemu, api } in SUPPORTED {
        let run = Host::build(flags).run(
            "system",
            "x86_64",
            101,
            1,
            &[
                "kernel=System.map",
                "out=trace",
                "summary=summary",
                "count=p:counted first",
                "count=p:inside first+4",
                "count=p:never end",
                "probe=p:registers second di=%di sp=%sp ip=%ip",
                "probe=p:second_probe second ax=%ax:u32",
                "probe=p:memory third t=@0xffffffff81000041:string lo=@0xfff:x8 hi=@0x1000:x32 d=+0(%di):u8",
                "probe=p:filtered third+12 di=%di",
                "filter=di > 0x1000",
            ],
        );
        run.assert_ok();
        assert!(run.stdout.contains(&format!("API {api}, plugin chose {api}\n")), "{}", run.stdout);

        let summary = run.summary();
        assert_eq!((summary.qemu.as_str(), summary.api, summary.target.as_str()), (qemu, api, "x86_64"));
        let hits: Vec<_> = summary
            .probes
            .iter()
            .map(|probe| (probe.name.as_str(), probe.address.unwrap(), probe.hits, probe.missed, probe.dropped))
            .collect();
        let expected = [
            ("counted", 0xffff_ffff_8100_0000, 303, 0, 0),
            ("inside", 0xffff_ffff_8100_0004, 303, 0, 0),
            ("never", 0xffff_ffff_8100_0030, 0, 0, 0),
            ("registers", 0xffff_ffff_8100_0010, 303, 0, 0),
            ("second_probe", 0xffff_ffff_8100_0010, 303, 0, 0),
            ("memory", 0xffff_ffff_8100_0020, 303, 0, 0),
            ("filtered", 0xffff_ffff_8100_002c, 202, 0, 0),
        ];
        assert_eq!(hits, expected, "QEMU {qemu}");

        let trace = run.file("trace");
        assert!(trace.contains(&format!("# QEMU {qemu}, plugin API {api}, target x86_64\n")), "{trace}");
        assert!(trace.ends_with("# end: 1111 records written, 0 lost\n"), "{trace}");
        let records = records(&trace);
        assert_eq!(records.len(), 1111);
        assert!(records.is_sorted_by(|a, b| a.0 <= b.0), "records of both vCPUs are in the order of their times");
        let registers = "registers: (second+0x0/0x10) di=0x5 sp=0x7 ip=0xffffffff81000010";
        assert_eq!(count(&records, 0, registers), 101, "QEMU {qemu}\n{trace}");
        let registers = "registers: (second+0x0/0x10) di=0x1005 sp=0x1007 ip=0xffffffff81000010";
        assert_eq!(count(&records, 1, registers), 202, "QEMU {qemu}\n{trace}");
        assert_eq!(count(&records, 0, "second_probe: (second+0x0/0x10) ax=0"), 101, "QEMU {qemu}\n{trace}");
        assert_eq!(count(&records, 1, "second_probe: (second+0x0/0x10) ax=4096"), 202, "QEMU {qemu}\n{trace}");
        let text: Vec<&str> = records.iter().filter(|r| r.2.starts_with("memory: ")).map(|r| r.2).collect();
        assert_eq!(text.len(), 303);
        for line in &text {
            let start = r#"memory: (third+0x0/0x10) t="ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abc"#;
            assert!(line.starts_with(start), "QEMU {qemu}: {line}");
            // %di is 0x5 on vCPU 0, which faults, and 0x1005 on vCPU 1.
            let end =
                [r#"\xfd\xfe\xff" lo=(fault) hi=0x3020100 d=(fault)"#, r#"\xfd\xfe\xff" lo=(fault) hi=0x3020100 d=5"#];
            assert!(line.ends_with(end[0]) || line.ends_with(end[1]), "QEMU {qemu}: {line}");
        }
        assert_eq!(text.iter().filter(|line| line.ends_with(" d=5")).count(), 202, "QEMU {qemu}");
        assert_eq!(count(&records, 1, "filtered: (third+0xc/0x10) di=0x1005"), 202, "QEMU {qemu}\n{trace}");
    }
}

/// One execution on vCPU 0, before or after the flush, is still one.
#[test]
fn nothing_is_lost_or_doubled_around_a_flush() {
    for Version { flags, qemu, .. } in SUPPORTED {
        let args = ["kernel=System.map", "out=trace", "summary=summary", "count=p:c first", "probe=p:t first di=%di"];
        let run = Host::build(flags).run("system", "x86_64", 1, 1, &args);
        run.assert_ok();
        assert_eq!((run.summary().probe("c").hits, run.summary().probe("t").hits), (3, 3), "QEMU {qemu}");
        let trace = run.file("trace");
        let records = records(&trace);
        assert_eq!(count(&records, 0, "t: (_text+0x0/0x10) di=0x5"), 1, "QEMU {qemu}");
        assert_eq!(count(&records, 1, "t: (_text+0x0/0x10) di=0x1005"), 2, "QEMU {qemu}");
    }
}

/// With which flags callbacks were registered: whether there are some that read, write, and set the program counter.
#[track_caller]
fn flags_used(run: &Run) -> [bool; 3] {
    let line = run.stdout.lines().find_map(|line| line.strip_prefix("host: callbacks by flags: ")).unwrap();
    let counts: Vec<u32> = line.split(' ').map(|count| count.parse().unwrap()).collect();
    [counts[1] != 0, counts[2] != 0, counts[3] != 0]
}

const SET: [&str; 6] = [
    "kernel=System.map",
    "out=trace",
    "summary=summary",
    "count=p:set first do set:%bx=0x1234 set:@linux_banner:u32=0x41424344",
    "count=p:post second do post set:%r8=-2",
    "probe=p:see third bx=%bx r8=%r8 cx=%cx m=@linux_banner:x64",
];

/// The guest's first instruction sets what its ninth shows.
#[test]
fn registers_and_memory_are_set_where_qemu_can() {
    for Version { flags, qemu, api } in SUPPORTED {
        let run = Host::build(flags).run("system", "x86_64", 5, 1, &SET);
        if api < 5 {
            run.assert_refused(&format!(
                "qkprobe: error: {}\nqkprobe:   this changes the guest: QEMU {qemu} does not let a plugin set registers and \
                 memory: that came with QEMU 10.1\n",
                SET[3]
            ));
            continue;
        }
        run.assert_ok();
        assert_eq!(flags_used(&run), [true, true, false], "QEMU {qemu}");
        let hits: Vec<_> = run.summary().probes.iter().map(|probe| (probe.hits, probe.missed)).collect();
        assert_eq!(hits, [(15, 0); 3], "QEMU {qemu}");
        let trace = run.file("trace");
        let records = records(&trace);
        let text = "see: (third+0x0/0x10) bx=0x1234 r8=0xfffffffffffffffe cx=0x2 m=0x41424344";
        assert_eq!(count(&records, 0, text), 5, "QEMU {qemu}\n{trace}");
        let text = text.replace("cx=0x2", "cx=0x1002");
        assert_eq!(count(&records, 1, &text), 10, "QEMU {qemu}\n{trace}");
    }
}

/// The guest's fifth instruction returns to its ninth.
#[test]
fn the_program_counter_is_set_where_qemu_can() {
    let args = [
        "kernel=System.map",
        "out=trace",
        "summary=summary",
        "count=p:first first",
        "count=p:older second",
        "count=p:override second do set:%sp=0xffff888000002000 override=-2",
        "count=p:newer second",
        "count=p:inside second+4",
        "probe=p:see third ax=%ax sp=%sp",
    ];
    for Version { flags, qemu, api } in SUPPORTED {
        let run = Host::build(flags).run("system", "x86_64", 5, 1, &args);
        if api < 6 {
            run.assert_refused(&format!(
                "qkprobe: error: {}\nqkprobe:   this changes the guest: QEMU {qemu} does not let a plugin set the program \
                 counter: that came with QEMU 11.0\n",
                args[5]
            ));
            continue;
        }
        run.assert_ok();
        assert!(flags_used(&run)[2], "QEMU {qemu}: {}", run.stdout);
        let hits: Vec<_> = run.summary().probes.iter().map(|probe| (probe.name.clone(), probe.hits)).collect();
        let expected = [("first", 15), ("older", 0), ("override", 15), ("newer", 15), ("inside", 0), ("see", 15)];
        assert_eq!(hits, expected.map(|(name, hits)| (name.to_owned(), hits)), "QEMU {qemu}");
        let trace = run.file("trace");
        let text = "see: (third+0x0/0x10) ax=0xfffffffffffffffe sp=0xffff888000002008";
        let records = records(&trace);
        assert_eq!((count(&records, 0, text), count(&records, 1, text)), (5, 10), "QEMU {qemu}\n{trace}");
    }
}

/// What needs more than symbols says so, whatever QEMU could do.
#[test]
fn instructions_are_skipped_only_where_their_text_is_known() {
    for option in ["skip", "replace=nop"] {
        let probe = format!("count=p:x first do {option}");
        for Version { flags, .. } in SUPPORTED {
            let run = Host::build(flags).run("system", "x86_64", 5, 1, &["kernel=System.map", &probe]);
            assert_eq!(run.output.status.code(), Some(1), "{}{}", run.stdout, run.stderr);
            let text = "skip and replace need the kernel's text: give the image with kernel=FILE\n";
            assert!(run.stderr.ends_with(text), "{}", run.stderr);
        }
    }
}

#[test]
fn without_a_probe_nothing_happens() {
    for Version { flags, qemu, .. } in SUPPORTED {
        let run = Host::build(flags).run("system", "x86_64", 100, 1, &["out=trace", "summary=summary"]);
        run.assert_ok();
        assert_eq!(run.summary().probes.len(), 0, "QEMU {qemu}");
        assert!(run.file("trace").ends_with("# end: 0 records written, 0 lost\n"), "QEMU {qemu}");
    }
}

#[test]
fn json_has_the_same_values() {
    for Version { flags, qemu, .. } in SUPPORTED {
        let args =
            ["kernel=System.map", "out=trace", "format=json", "probe=p:t second di=%di lo=@0xfff:x8 s=@0x1041:string"];
        let run = Host::build(flags).run("system", "x86_64", 1, 1, &args);
        run.assert_ok();
        let trace = run.file("trace");
        let values: Vec<serde_json::Value> =
            trace.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect();
        let kinds: Vec<_> = values.iter().map(|value| value["type"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["start", "event", "event", "event", "end"], "QEMU {qemu}");
        assert_eq!((&values[0]["qemu"], &values[0]["target"]), (&qemu.into(), &"x86_64".into()));
        assert_eq!((&values[4]["written"], &values[4]["lost"]), (&3.into(), &0.into()));
        for event in &values[1..4] {
            let di = if event["cpu"] == 0 { "0x5" } else { "0x1005" };
            assert_eq!((&event["event"], &event["group"]), (&"t".into(), &"kprobes".into()));
            assert_eq!((&event["args"]["di"], &event["args"]["lo"]), (&di.into(), &serde_json::Value::Null));
            let text = event["args"]["s"].as_str().unwrap();
            assert!(text.starts_with("ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abc"), "{text}");
        }
        assert_eq!(values[1..4].iter().filter(|event| event["cpu"] == 1).count(), 2, "QEMU {qemu}");
    }
}

/// The guest's memory holds commands for a terminal: a title, a cleared screen, colours, C1 bytes.
#[test]
fn what_the_guest_says_cannot_command_the_terminal() {
    let args = ["kernel=System.map", "probe=p:t first s=@0xffff888000001000:string"];
    let run = Host::build(&["-DAPI=7"]).run("system", "x86_64", 1, 1, &args);
    run.assert_ok();
    let line = concat!(
        r#"t: (_text+0x0/0x10) s="\x1b]0;owned\x07\x1b[2J\r\nuser\tname\x1b[31m \"q\" \\ \x9b \xc2\x9b "#,
        "\u{fc}\"\n"
    );
    assert_eq!(run.stderr.matches(line).count(), 3, "{}", run.stderr);
    let control = |byte: &u8| byte.is_ascii_control() && *byte != b'\n';
    assert_eq!(run.output.stderr.iter().find(|byte| control(byte)), None);
    assert!(!run.stderr.contains('\u{9b}') && !run.stderr.contains('\u{fffd}'), "{}", run.stderr);
}

#[test]
fn old_versions_are_refused_with_what_to_install() {
    for Version { flags, qemu, api } in TOO_OLD {
        let run = Host::build(flags).run("system", "x86_64", 1, 1, &["kernel=System.map", "count=p:c first"]);
        run.assert_refused(&format!(
            "qkprobe: error: QEMU {qemu} has plugin API {api}: qkprobe needs 9.2 (API 4) or newer, because older ones \
             cannot read guest memory\n\
             qkprobe:   Install a newer QEMU, for example from Debian's backports.\n"
        ));
    }
}

#[test]
fn user_mode_is_refused() {
    for Version { flags, .. } in SUPPORTED {
        Host::build(flags).run("user", "x86_64", 1, 1, &["kernel=System.map", "count=p:c first"]).assert_refused(
            "qkprobe: error: this is a user-mode QEMU: qkprobe probes guest kernels, which only the qemu-system-* \
             programs run\n",
        );
    }
}

#[test]
fn unknown_targets_are_refused() {
    for target in ["aarch64", "hexagon", "x86_64h", ""] {
        let run = Host::build(&["-DAPI=7"]).run("system", target, 1, 1, &["kernel=System.map", "count=p:c first"]);
        assert_eq!(run.output.status.code(), Some(1), "{}", run.stderr);
        let start = format!("qkprobe: error: target {target}: not supported. This version knows ");
        assert!(run.stderr.starts_with(&start) && run.stderr.contains("x86_64"), "{}", run.stderr);
        assert_eq!(run.stderr.lines().count(), 1, "{}", run.stderr);
    }
}

#[test]
fn a_second_load_is_refused() {
    for Version { flags, .. } in SUPPORTED {
        Host::build(flags)
            .run("system", "x86_64", 1, 2, &["kernel=System.map", "out=trace", "count=p:c first"])
            .assert_refused("qkprobe: error: loaded twice: give all probe= arguments to one -plugin option\n");
    }
}

/// A test of these tests: a host that calls in the shape of another version does not get through them.
#[test]
fn the_wrong_shape_would_be_noticed() {
    for flags in [["-DAPI=7", "-DSHAPE=6"], ["-DAPI=6", "-DSHAPE=7"]] {
        let run = Host::build(&flags).run("system", "x86_64", 10, 1, &["kernel=System.map", "count=p:c first"]);
        assert!(!run.output.status.success(), "{}{}", run.stdout, run.stderr);
    }
}
