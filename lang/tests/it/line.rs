//! Lines with a filter and options, and the same in TOML.

use qkprobe_lang::{
    Action, Config, EffectSpec, FaultAttr, FlowChange, Halt, Privilege, ProbeConfig, Replacement, When,
};

fn read(line: &str) -> ProbeConfig {
    ProbeConfig::from_line(line, "here".to_owned()).unwrap_or_else(|error| panic!("{error}"))
}

/// What an option gives.
fn option(text: &str) -> EffectSpec {
    read(&format!("p f do {text}")).effects
}

#[test]
fn a_line_is_taken_apart() {
    let line = "p:inject do_sys_openat2 file=+0($arg2):ustring if file == \"/etc/none\" do override=-ENOENT times=1";
    let probe = read(line);
    assert_eq!(probe.def, "p:inject do_sys_openat2 file=+0($arg2):ustring");
    assert_eq!(probe.filter.as_deref(), Some("file == \"/etc/none\""));
    assert_eq!(probe.effects.flow, Some(FlowChange::Override(0xffff_ffff_ffff_fffe)));
    assert_eq!(probe.effects.fault, FaultAttr { times: 1, ..FaultAttr::default() });
    assert_eq!((probe.action, probe.when, probe.enabled), (Action::Trace, When::Pre, true));
    assert_eq!(probe.origin, "here");
}

#[test]
fn where_each_part_ends() {
    for (line, def, filter) in [
        ("p f", "p f", None),
        ("  p f  # if x do y", "p f  # if x do y", None),
        ("p f x=%di\tif\tx==1", "p f x=%di", Some("x==1")),
        ("p f if x == \"a do b\" do skip", "p f", Some("x == \"a do b\"")),
        ("p f if x == 'do \"' do skip", "p f", Some("x == 'do \"'")),
        ("p f if x ~ \"#*\" # comment do skip", "p f", Some("x ~ \"#*\"")),
        ("p f x=\\\"if\" do skip # do nothing else", "p f x=\\\"if\"", None),
        // Not closed: the kernel's own error says so.
        ("p f x=\\\"a if b", "p f x=\\\"a if b", None),
        ("p f if x == \"a do skip", "p f", Some("x == \"a do skip")),
    ] {
        let probe = read(line);
        assert_eq!((probe.def.as_str(), probe.filter.as_deref()), (def, filter), "{line}");
    }
    assert_eq!(read("p iffy dodo=%di"), ProbeConfig::new("p iffy dodo=%di", "here"));
}

#[test]
fn every_option() {
    assert_eq!(option("skip").flow, Some(FlowChange::Skip));
    assert_eq!(option("replace=nop").flow, Some(FlowChange::Replace(Replacement::Nop)));
    let bytes = FlowChange::Replace(Replacement::Bytes([0x0f, 0x1f, 0x00].into()));
    assert_eq!(option("replace=0f1f00").flow, Some(bytes.clone()));
    assert_eq!(option("replace=\"0f 1f 00\"").flow, Some(bytes));
    assert_eq!(option("override=0x10").flow, Some(FlowChange::Override(16)));
    assert_eq!(option("stop").halt, Some(Halt::Stop));
    assert_eq!(option("quit=3").halt, Some(Halt::Quit(3)));
    assert_eq!(option("set:%ax=5 set:+8(%di):u32=0").sets, ["%ax=5", "+8(%di):u32=0"]);
    assert_eq!(
        option("stop nth=7 probability=25 interval=2 times=-1 space=10 seed=0xffffffffffffffff").fault,
        FaultAttr { probability: 25, interval: 2, times: -1, space: 10, nth: Some(7), seed: u64::MAX }
    );
    let probe = read("p f do post count attempts user disabled");
    assert_eq!((probe.when, probe.action, probe.privilege), (When::Post, Action::Count, Privilege::User));
    assert_eq!((probe.attempts, probe.enabled, probe.effects.is_empty()), (true, false, true));
    assert_eq!(read("p f do any").privilege, Privilege::Any);
}

/// `(line with the caret's place, text)`.
const REFUSED: [(&str, &str); 28] = [
    ("^if x==1", "A definition must stand before 'if' and 'do'"),
    ("p f ^if", "'if' needs a filter"),
    ("p f ^if do skip", "'if' needs a filter"),
    ("p f ^do", "'do' needs an option"),
    ("p f ^do # skip", "'do' needs an option"),
    ("p f do ^nosuch", "No such option: 'nosuch'"),
    ("p f do skip ^if x==1", "No such option: 'if'"),
    ("p f do ^when=post", "No such option: 'when'"),
    ("p f do ^skip=1", "'skip' takes no value"),
    ("p f do ^override", "'override' needs a value"),
    ("p f do override=^", "'override=' needs a value"),
    ("p f do override=^-ENOET", "'ENOET' is no error of Linux"),
    ("p f do override=^0x10000000000000000", "'0x10000000000000000' is no number"),
    ("p f do replace=^0f1", "'0f1' has 3 digits: a byte has two"),
    ("p f do ^set:%ax", "'%ax' sets nothing"),
    ("p f do skip ^skip", "'skip' is given twice"),
    ("p f do skip override=^1", "'skip' and 'override' exclude each other"),
    ("p f do replace=nop ^skip", "'replace' and 'skip' exclude each other"),
    ("p f do stop quit=^1", "'stop' and 'quit' exclude each other"),
    ("p f do quit=1 ^stop", "'quit' and 'stop' exclude each other"),
    ("p f do user ^any", "'privilege' is given twice"),
    ("p f do quit=^256", "'quit' must be 0 to 255, not 256"),
    ("p f do skip probability=^101", "'probability' must be 0 to 100, not 101"),
    ("p f do skip nth=^0", "'nth' must be 1 to 18446744073709551615, not 0"),
    ("p f do skip interval=^0", "'interval' must be 1 to 18446744073709551615, not 0"),
    ("p f do skip times=^-2", "'times' must be -1 to 9223372036854775807, not -2"),
    ("p f do times=^1", "'times' says at which hits an effect happens, and this probe has none"),
    ("p f do post ^skip", "'skip' acts before the instruction, and this probe after it"),
];

#[test]
fn refused() {
    for (row, text) in REFUSED {
        let column = row.find('^').expect("a caret");
        let line = row.replacen('^', "", 1);
        let error = ProbeConfig::from_line(&line, String::new()).expect_err(row);
        assert_eq!((error.text.as_ref(), error.column), (text, Some(column)), "{row}\n{error}");
        assert_eq!((error.command.as_str(), error.errno, error.grammar), (line.as_str(), 22, "qkprobe"));
    }
}

#[test]
fn help_says_what_to_write() {
    let help = |line: &str| ProbeConfig::from_line(line, String::new()).expect_err(line).help.expect("a help");
    assert_eq!(help("p f do overide=1"), "did you mean override=?");
    assert_eq!(
        help("p f do sett:%ax=1"),
        "options are: post count skip stop attempts user any disabled replace= override= quit= nth= probability= interval= times= space= seed= set:LVALUE=VALUE"
    );
    assert_eq!(help("p f do set=5"), "did you mean set:LVALUE=VALUE?");
    assert_eq!(help("p f do action=count"), "write count, or nothing");
    assert_eq!(help("p f do skip if x==1"), "the filter stands before 'do': if FILTER do OPTION...");
    let error = ProbeConfig::from_line("\tp f\tdo skip\tnht=1", String::new()).expect_err("a typo");
    assert_eq!(
        error.to_string(),
        "error: No such option: 'nht'
  Command: p f do skip nht=1
                       ^
  help: did you mean nth=?"
    );
}

const FULL: &str = r#"
control = "run/control.sock"
verify = true

[[probe]]
def = "p:a f x=%di if x == 1 do times=2"
set = ["%ax = 5", "+8(%di):u32=0"]
override = -2
stop = true
nth = 3
probability = 0x32
interval = 4
space = 5
seed = 6
attempts = true

[[probe]]
def = "p:b f"
when = "post"
set = "$retval=-ENOENT"
quit = 3

[[probe]]
def = "p:c f"
replace = "0f 1f 00"

[[probe]]
def = "p:d f"
override = "-ENOENT"
skip = false
"#;

#[test]
fn toml_says_the_same() {
    let config = Config::parse("conf/a.toml", FULL).expect("good");
    assert_eq!(config.control, Some("conf/run/control.sock".into()));
    assert_eq!(config.verify, Some(true));
    let [a, b, c, d] = config.probes.as_slice() else { panic!("four probes") };
    assert_eq!((a.def.as_str(), a.filter.as_deref(), a.attempts), ("p:a f x=%di", Some("x == 1"), true));
    assert_eq!(a.effects.sets, ["%ax = 5", "+8(%di):u32=0"]);
    assert_eq!(a.effects.halt, Some(Halt::Stop));
    let fault = FaultAttr { probability: 50, interval: 4, times: 2, space: 5, nth: Some(3), seed: 6 };
    assert_eq!(a.effects.fault, fault);
    assert_eq!(a.effects.flow, Some(FlowChange::Override(0xffff_ffff_ffff_fffe)));
    assert_eq!((b.when, b.effects.halt), (When::Post, Some(Halt::Quit(3))));
    assert_eq!(b.effects.sets, ["$retval=-ENOENT"]);
    assert_eq!(c.effects.flow, Some(FlowChange::Replace(Replacement::Bytes([0x0f, 0x1f, 0x00].into()))));
    assert_eq!(d.effects.flow, Some(FlowChange::Override(0xffff_ffff_ffff_fffe)));
    assert_eq!(d.effects, read("p:d f do override=-ENOENT").effects);
}

#[test]
fn toml_mistakes() {
    let error = |keys: &str| Config::parse("a.toml", &format!("[[probe]]\n{keys}\n")).expect_err(keys);
    assert_eq!(
        error("def = 'p f if x==1'\nfilter = 'x==2'").to_string(),
        "a.toml:3:10: 'filter' is given twice
 3 | filter = 'x==2'
   |          ^
  help: 'def' says it already"
    );
    assert_eq!(
        error("def = \" p f do skpi\"").to_string(),
        "a.toml:2:16: No such option: 'skpi'
 2 | def = \" p f do skpi\"
   |                ^
  help: did you mean skip?"
    );
    // Not as it is: the caret stands at the string's start.
    assert_eq!(error("def = \"p\\u0020f do skpi\"").column, 7);
    for (keys, line, column, message) in [
        ("def = 'p f'\ntimes = 1", 3, 9, "'times' says at which hits an effect happens, and this probe has none"),
        ("def = 'p f'\nskip = true\nstop = true\nnth = 0", 5, 7, "'nth' must be 1 to 18446744073709551615, not 0"),
        ("def = 'p f'\nskip = 1", 3, 8, "'skip' must be true or false, not integer"),
        ("def = 'p f'\nquit = '1'", 3, 8, "'quit' must be an integer, not string"),
        ("def = 'p f'\nquit = 256", 3, 8, "'quit' must be 0 to 255, not 256"),
        ("def = 'p f'\noverride = 1.5", 3, 12, "'override' must be an integer or a string like \"-ENOENT\", not float"),
        ("def = 'p f'\nset = 1", 3, 7, "'set' must be a string or a list of strings, not integer"),
        ("def = 'p f'\nset = ['a=1', 'b']", 3, 15, "'b' sets nothing"),
        ("def = 'p f'\nreplace = 'x'", 3, 11, "'x' is neither 'nop' nor bytes in hexadecimal"),
        ("def = 'p f'\nwhen = 'later'", 3, 8, "'when' must be \"pre\" or \"post\""),
        ("def = 'p f do post'\nskip = true", 3, 8, "'skip' acts before the instruction, and this probe after it"),
        ("def = 'p f do skip'\noverride = 1", 3, 12, "'skip' and 'override' exclude each other"),
        ("def = 'p f'\nskipp = true", 3, 1, "unknown key 'skipp'"),
    ] {
        let error = error(keys);
        assert_eq!((error.line, error.column, error.message.as_str()), (line, column, message), "{error}");
    }
    let error = Config::parse("a.toml", "verify = 'on'").expect_err("no flag");
    assert_eq!(error.message, "'verify' must be true or false, not string");
}
