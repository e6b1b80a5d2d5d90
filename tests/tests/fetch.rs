//! What a probe reads is what the guest has there: file names of any bytes, registers, the stack, pointers behind pointers, bits; and
//! filters see the same.

mod common;

use common::{assert_hits, image, instructions, symbol, trace_lines};
use qkprobe_arch::Flow;
use qkprobe_tests::{Boot, BootResult, GuestKernel, Qemu};
use serde_json::{Value, json};

const KERNEL: GuestKernel = GuestKernel::X86_64Cloud6_1;

/// A name that the guest opens: where it lies, its bytes, how the trace must show it, and how a reader of JSON must see it.
type Name = (&'static str, &'static [u8], &'static str, &'static str);

const NAMES: [Name; 8] = [
    ("page", b"/plain name", r"/plain name", "/plain name"),
    ("page", b"/\x1b[2J\x07\n\t\r\"\\", r#"/\x1b[2J\x07\n\t\r\"\\"#, "/\u{1b}[2J\u{7}\n\t\r\"\\"),
    ("page", b"/\xff\xfe\xc3(", r"/\xff\xfe\xc3(", "/\u{efff}\u{effe}\u{efc3}("),
    // Two and four bytes of UTF-8.
    ("page", b"/gr\xc3\xbcn \xf0\x9f\xa6\x80", "/gr\u{fc}n \u{1f980}", "/gr\u{fc}n \u{1f980}"),
    // A control character beyond ASCII, which is a command to some terminals, and DEL.
    ("page", b"/\xc2\x9b31m\x7f", r"/\xc2\x9b31m\x7f", "/\u{9b}31m\u{7f}"),
    ("page", b"", "", ""),
    ("across", b"/half of it is on another page", "/half of it is on another page", "/half of it is on another page"),
    // The page ends inside the character.
    ("across", b"/\xf0\x9f\xa6\x80", "/\u{1f980}", "/\u{1f980}"),
];

/// What stands for a name that cannot be read: its command, and the kernel's own answer to it.
const FAULTS: [&str; 4] = ["openhex cut 2f637574", "openptr 0", "openptr 0x1000", "openptr 0x123456789000"];

fn script() -> Vec<String> {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let names = NAMES.iter().map(|(place, bytes, ..)| format!("openhex {place} {}00", hex(bytes)));
    let faults = FAULTS.iter().map(|command| (*command).to_owned());
    ["openclose 1 /begin".to_owned()]
        .into_iter()
        .chain(names)
        .chain(faults)
        .chain(["openclose 1 /end".to_owned()])
        .collect()
}

/// Two ways to each of some values: by argument and by register, by pointer and by the other one.
const OPEN: &str = "p:open do_sys_openat2 dfd=$arg1:s32 file=+0($arg2):ustring flags=+0($arg3):x64 mode=+8($arg3):u64 \
                    di=%di:s32 cs=%cs ss=%ss how=+0(%dx):x32 s0=$stack0:symbol";

/// Where the caller of do_sys_openat2 goes on: `__x64_sys_openat+0x6a/0xa0`.
fn caller() -> String {
    let image = image(KERNEL);
    let (callee, _) = symbol(&image, "do_sys_openat2");
    let calls: Vec<u64> = instructions(&image, "__x64_sys_openat")
        .into_iter()
        .filter(|(_, insn)| matches!(insn.flow, Flow::Call { target } if target.0 == callee))
        .map(|(offset, insn)| offset + u64::from(insn.len))
        .collect();
    assert_eq!(calls.len(), 1);
    format!("__x64_sys_openat+{:#x}/{:#x}", calls[0], symbol(&image, "__x64_sys_openat").1)
}

fn boot(qemu: Qemu) -> Boot {
    Boot::new(qemu, KERNEL).append("quiet nokaslr pti=off").script(script()).plugin_arg(format!("probe={OPEN}"))
}

/// The kernel's answers to the opens: a name that cannot be read cannot be opened either.
#[track_caller]
fn check_answers(boot: &BootResult) {
    let answers: Vec<_> = boot
        .qk
        .iter()
        .filter(|line| matches!(line.command.as_str(), "openhex" | "openptr"))
        .map(|line| line.get("errno").unwrap())
        .collect();
    assert_eq!(answers, [vec!["ENOENT"; NAMES.len()], vec!["EFAULT"; FAULTS.len()]].concat());
}

#[test]
fn names_of_any_bytes_in_the_trace() {
    let caller = caller();
    for qemu in Qemu::selected() {
        let boot = boot(qemu).run_ok();
        check_answers(&boot);
        let args = |name: &str| {
            format!(" dfd=-100 file={name} flags=0x8000 mode=0 di=-100 cs=0x10 ss=0x18 how=0x8000 s0={caller}")
        };
        let (begin, end) = (args("\"/begin\""), args("\"/end\""));
        let lines = trace_lines(&boot.trace);
        assert!(
            lines.iter().all(|line| line.event == "open" && line.place == "do_sys_openat2+0x0/0x170" && line.cpu == 0)
        );
        let found: Vec<_> = lines.iter().map(|line| line.args).skip_while(|args| *args != begin).collect();
        let mut expected = vec![begin.clone()];
        expected.extend(NAMES.iter().map(|(_, _, shown, _)| args(&format!("\"{shown}\""))));
        expected.extend(FAULTS.map(|_| args("(fault)")));
        expected.push(end);
        assert_eq!(found, expected, "{qemu}");
        assert_eq!(boot.trace.lines().last(), Some(format!("# end: {} records written, 0 lost", lines.len()).as_str()));
    }
}

#[test]
fn names_of_any_bytes_in_json() {
    let caller = caller();
    for qemu in Qemu::selected() {
        let boot = boot(qemu).plugin_arg("format=json").run_ok();
        let lines: Vec<Value> = boot.trace.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((&lines[0]["type"], &lines[lines.len() - 1]["type"]), (&json!("start"), &json!("end")));
        let records = &lines[1..lines.len() - 1];
        assert!(records.iter().all(|record| record["type"] == "event" && record["event"] == "open"), "{qemu}");
        assert!(records.iter().all(|record| record["group"] == "kprobes" && record["cpu"] == 0), "{qemu}");
        assert!(records.iter().all(|record| record["time"].is_f64()), "{qemu}");
        let args = |name: Value| {
            json!({"dfd": -100, "file": name, "flags": "0x8000", "mode": 0, "di": -100, "cs": "0x10", "ss": "0x18",
                   "how": "0x8000", "s0": caller})
        };
        let begin = args(json!("/begin"));
        let found: Vec<_> = records.iter().map(|record| &record["args"]).skip_while(|args| **args != begin).collect();
        let mut expected = vec![begin.clone()];
        expected.extend(NAMES.iter().map(|(_, _, _, seen)| args(json!(seen))));
        expected.extend(FAULTS.map(|_| args(Value::Null)));
        expected.push(args(json!("/end")));
        assert_eq!(found, expected.iter().collect::<Vec<_>>(), "{qemu}");
    }
}

/// A program may pass any pointer. Kernel memory is no user string: the kernel's own `ustring` does not read it either.
#[test]
fn user_string_at_a_kernel_address_is_a_fault() {
    for qemu in Qemu::selected() {
        let boot = Boot::new(qemu, KERNEL)
            .append("quiet nokaslr pti=off")
            .script(["openptr 0xffffffff81000000"])
            .plugin_arg("probe=p:open do_sys_openat2 pointer=$arg2:x64 file=+0($arg2):ustring")
            .plugin_arg("filter=pointer == 0xffffffff81000000")
            .run_ok();
        assert_eq!(boot.qk("openptr").get("errno"), Some("EFAULT"));
        let found: Vec<_> = trace_lines(&boot.trace).iter().map(|line| line.args.to_owned()).collect();
        assert_eq!(found, [" pointer=0xffffffff81000000 file=(fault)"], "{qemu}");
    }
}

#[test]
fn thousands_of_names_in_order_and_through_filters() {
    for qemu in Qemu::selected() {
        let boot = Boot::new(qemu, KERNEL)
            .append("quiet pti=off")
            .smp(2)
            .script(["openmany 5000 /many/name-", "threads 2 getppid 1000", "openclose 10 /init"])
            .plugin_arg("probe=p:many do_sys_openat2 file=+0($arg2):ustring kernel=+0(+0($arg2)):string")
            .plugin_arg("filter=file ~ \"/many/*\"")
            .plugin_arg("count=p:sevens do_filp_open file=+0(+0($arg2)):string")
            .plugin_arg("filter=file ~ \"/many/name-*7\"")
            .plugin_arg("count=p:one do_filp_open file=+0(+0($arg2)):string")
            .plugin_arg("filter=file == \"/many/name-4711\" || file == \"/many/name-4712\"")
            .plugin_arg("count=p:number do_sys_openat2 flags=+0($arg3):x64 first=+0($arg2):x32")
            .plugin_arg("filter=first == 0x6e616d2f && flags & 0x8000 && !(flags & 1)")
            .plugin_arg("count=p:cpu0 __x64_sys_getppid")
            .plugin_arg("filter=CPU == 0")
            .plugin_arg("probe=p:cpu1 __x64_sys_getppid")
            .plugin_arg("filter=CPU == 1")
            .run_ok();
        let found: Vec<_> = trace_lines(&boot.trace)
            .iter()
            .filter(|line| line.event == "many")
            .map(|line| line.args.to_owned())
            .collect();
        // `kernel` takes a word of the name for a pointer.
        let expected: Vec<_> = (0..5000).map(|i| format!(" file=\"/many/name-{i}\" kernel=(fault)")).collect();
        assert_eq!(found, expected, "{qemu}");
        let hits = [("many", 5000), ("sevens", 500), ("one", 2), ("number", 5000), ("cpu0", 1000), ("cpu1", 1000)];
        assert_hits(&boot, qemu.version(), &hits);
        let cpus: Vec<_> =
            trace_lines(&boot.trace).iter().filter(|line| line.event == "cpu1").map(|line| line.cpu).collect();
        assert_eq!(cpus, vec![1; 1000], "{qemu}");
    }
}

#[test]
fn memory_registers_and_stack() {
    let banner = format!("\"{}\\n\"", image(KERNEL).banner.unwrap());
    for qemu in Qemu::selected() {
        let boot = Boot::new(qemu, KERNEL)
            .append("quiet pti=off")
            .smp(2)
            .script(["openclose 3 /begin", "threads 2 getppid 20000"])
            .plugin_arg(
                "probe=p:open do_sys_openat2 file=+0($arg2):ustring ch=+0($arg2):char bytes=+0($arg2):u8[4] \
                 low=+0($arg2):b4@0/8 high=+0($arg2):b4@4/8 mid=+0($arg2):b12@6/32 word=+u0($arg2):x32 \
                 neg=+0($arg1):u8 ip=%ip where=%ip:symbol sp=$stack spr=%sp how=$arg3 s1=$stack1:x32 back=-8(%dx):symbol \
                 seven=\\7:u8 text=\\\"text\"",
            )
            .plugin_arg("filter=file == \"/begin\"")
            .plugin_arg(
                "probe=p:filp do_filp_open name=+0(+0($arg2)):string user=+0(+8($arg2)):ustring banner=@linux_banner:string \
                 fourth=@linux_banner+6:string both=+0($arg2):string[2] ver=@linux_banner:char[5]",
            )
            .plugin_arg("filter=name == \"/begin\"")
            .plugin_arg("probe=p:futex do_futex op=$arg2:u32 val3=$arg7:x32 arg5=$arg5 val2=$arg6")
            // What the C library waits with when it joins a thread: FUTEX_WAIT_BITSET | FUTEX_CLOCK_REALTIME.
            .plugin_arg("filter=op == 0x109")
            .run_ok();
        let lines = trace_lines(&boot.trace);
        let args =
            |event: &str| lines.iter().filter(|line| line.event == event).map(|line| line.args).collect::<Vec<_>>();
        // "/beg" is 2f 62 65 67.
        let opens = args("open");
        let summary = boot.summary();
        let ip = summary.probe("open").address.unwrap();
        assert_eq!(opens.len(), 3, "{qemu}\n{}", boot.trace);
        for open in opens {
            let value = |key: &str| open.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('=')).unwrap();
            let hex = |key: &str| u64::from_str_radix(value(key).strip_prefix("0x").unwrap(), 16).unwrap();
            let start =
                " file=\"/begin\" ch='/' bytes={47,98,101,103} low=15 high=2 mid=1416 word=0x6765622f neg=(fault) ";
            assert!(open.starts_with(start), "{qemu}: {open}");
            assert_eq!((hex("ip"), value("where")), (ip, "do_sys_openat2+0x0/0x170"), "{qemu}: {open}");
            // The caller's `struct open_how` is the first thing on its stack, the return address below it.
            assert_eq!((hex("spr"), hex("how"), hex("s1")), (hex("sp"), hex("sp") + 8, 0x8000), "{qemu}: {open}");
            assert_eq!(value("back"), caller(), "{qemu}: {open}");
            assert!(open.ends_with(" seven=7 text=\"text\""), "{qemu}: {open}");
            assert_eq!(hex("sp") >> 56, 0xff, "the kernel's half, with page tables of five levels: {open}");
        }
        let name = format!(
            " name=\"/begin\" user=\"/begin\" banner={banner} fourth=\"{} both={{\"/begin\",\"/begin\"}} ver={{'L','i','n','u','x'}}",
            &banner[7..]
        );
        assert_eq!(args("filp"), [name.as_str(); 3], "{qemu}");
        let futexes = args("futex");
        assert!((1..=2).contains(&futexes.len()), "{qemu}: {futexes:?}");
        // FUTEX_BITSET_MATCH_ANY, the seventh argument, lies on the stack.
        assert!(futexes.iter().all(|args| args.starts_with(" op=265 val3=0xffffffff ")), "{qemu}: {futexes:?}");
    }
}
