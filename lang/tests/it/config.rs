//! TOML files: what they say, and what is wrong in them.

use std::path::PathBuf;

use qkprobe_lang::{Action, Backpressure, Config, Format, Privilege};

const FULL: &str = r#"
kernel = ["vmlinux", "/boot/System.map"]
out = "trace.txt"
format = "json"
summary = "out/summary.json"
backpressure = "drop"
slide = "0x1a000000"

[[probe]]
def = "p:open do_sys_openat2 file=+0($arg2):ustring"
filter = 'file ~ "/etc/*"'

[[probe]]
def = "r vfs_read $retval"
action = "count"
privilege = "any"
enabled = false
"#;

#[test]
fn everything() {
    let config = Config::parse("conf/a.toml", FULL).expect("good");
    assert_eq!(config.kernel, [PathBuf::from("conf/vmlinux"), PathBuf::from("/boot/System.map")]);
    assert_eq!(config.out, Some(PathBuf::from("conf/trace.txt")));
    assert_eq!(config.summary, Some(PathBuf::from("conf/out/summary.json")));
    assert_eq!((config.format, config.backpressure), (Some(Format::Json), Some(Backpressure::Drop)));
    assert_eq!(config.slide, Some(0x1a00_0000));
    let [first, second] = config.probes.as_slice() else { panic!("two probes") };
    assert_eq!(first.def, "p:open do_sys_openat2 file=+0($arg2):ustring");
    assert_eq!(first.filter.as_deref(), Some("file ~ \"/etc/*\""));
    assert_eq!((first.action, first.privilege, first.enabled), (Action::Trace, Privilege::Kernel, true));
    assert_eq!(first.origin, "conf/a.toml:10");
    assert_eq!((second.action, second.privilege, second.enabled), (Action::Count, Privilege::Any, false));
}

#[test]
fn nothing() {
    let config = Config::parse("a.toml", "").expect("good");
    assert_eq!(config, Config::default());
    let config = Config::parse("a.toml", "kernel = 'vmlinux'\nslide = 'auto'").expect("good");
    assert_eq!((config.kernel, config.slide), (vec![PathBuf::from("vmlinux")], None));
}

#[test]
fn mistakes() {
    for (text, shown) in [
        (
            "kernal = \"vmlinux\"\n",
            "a.toml:1:1: unknown key 'kernal'
 1 | kernal = \"vmlinux\"
   | ^
  help: did you mean kernel?",
        ),
        (
            "# first\n[[probe]]\ndef = \"p vfs_read\"\nenabled = 1\n",
            "a.toml:4:11: 'enabled' must be true or false, not integer
 4 | enabled = 1
   |           ^",
        ),
        (
            "out = [1]",
            "a.toml:1:7: 'out' must be a string, not array
 1 | out = [1]
   |       ^",
        ),
        (
            "format = \"jason\"",
            "a.toml:1:10: 'format' must be \"ftrace\" or \"json\"
 1 | format = \"jason\"
   |          ^
  help: did you mean \"json\"?",
        ),
        (
            "[[probe]]\nfilter = \"a==1\"\n",
            "a.toml:1:1: this probe has no 'def'
 1 | [[probe]]
   | ^
  help: def = \"p:NAME PLACE ARG...\", a line of kprobe_events",
        ),
        (
            "[probe]\ndef = \"p vfs_read\"\n",
            "a.toml:1:1: 'probe' must be a list of tables, not table
 1 | [probe]
   | ^
  help: write [[probe]] with two brackets",
        ),
        (
            "slide = \"1000\"",
            "a.toml:1:9: 'slide' must be \"auto\" or \"0x...\"
 1 | slide = \"1000\"
   |         ^",
        ),
        (
            "[[probe]]\ndef = \"p vfs_read\"\n\tfliter = \"\"\n",
            "a.toml:3:2: unknown key 'fliter'
 3 | \tfliter = \"\"
   | \t^
  help: did you mean filter?",
        ),
    ] {
        assert_eq!(Config::parse("a.toml", text).expect_err(text).to_string(), shown);
    }
    let error = Config::parse("a.toml", "out = \"a\"\nout = \"b\"\n").expect_err("twice");
    assert_eq!((error.line, error.column), (2, 1));
    let error = Config::parse("a.toml", "[[probe]]\ndef = \"p\n").expect_err("open string");
    assert_eq!(error.line, 2);
}

#[test]
fn brackets_of_any_depth_are_refused() {
    let error = Config::parse("a.toml", &format!("kernel = {}", "[".repeat(100_000))).expect_err("no value");
    assert_eq!((error.line, error.column > 1), (1, true), "{error}");
}

/// A list of `kprobe_events` lines is a file of probes too.
#[test]
fn lists() {
    let text = "# what is read\n\n  p:open do_sys_openat2 file=+0($arg2):ustring if file == \"/x\"\nr vfs_read $retval do count\n-:open\n";
    let config = Config::parse("vfs.list", text).expect("a list");
    let defs: Vec<_> = config.probes.iter().map(|probe| (probe.def.as_str(), probe.origin.as_str())).collect();
    assert_eq!(
        defs,
        [
            ("p:open do_sys_openat2 file=+0($arg2):ustring", "vfs.list:3"),
            ("r vfs_read $retval", "vfs.list:4"),
            ("-:open", "vfs.list:5")
        ]
    );
    assert_eq!(config.probes[0].filter.as_deref(), Some("file == \"/x\""));
    assert_eq!(config.probes[1].action, Action::Count);
    let error = Config::parse("vfs.list", "p f\np g do skpi\n").expect_err("no such option").to_string();
    assert!(error.starts_with("vfs.list:2:8: No such option: 'skpi'"), "{error}");
    // The name decides, then the first line.
    assert!(Config::parse("a.toml", "p f\n").is_err());
    assert_eq!(Config::parse("probes.conf", "# x\nformat = \"json\"\n").expect("TOML").format, Some(Format::Json));
    assert_eq!(Config::parse("probes.conf", "[[probe]]\ndef = 'p f'\n").expect("TOML").probes.len(), 1);
    assert_eq!(Config::parse("probes.conf", "").expect("nothing").probes.len(), 0);
}

#[test]
fn a_file_without_an_end_is_refused() {
    let error = qkprobe_lang::read_text("/dev/zero".as_ref()).expect_err("no end").to_string();
    assert_eq!(error, "it has more than 64 MiB, which no file of probes has");
    assert!(qkprobe_lang::read_text("/dev/null".as_ref()).expect("nothing").is_empty());
    assert!(qkprobe_lang::read_text("/".as_ref()).is_err());
}
