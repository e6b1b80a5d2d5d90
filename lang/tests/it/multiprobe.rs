//! Several probes of one event, and deletion.

use std::sync::Arc;

use qkprobe_lang::{Command, Events, parse};

use crate::fake::{FakeKernel, define};

fn events(lines: &[&str]) -> Events {
    let mut events = Events::new();
    for line in lines {
        match parse(line, &FakeKernel, &events) {
            Ok(Command::Add(definition)) => events.insert(Arc::new(definition)),
            other => panic!("{line}: {other:?}"),
        }
    }
    events
}

#[test]
fn further_probes() {
    let events = events(&["p:e vfs_read a=%di b=+0(%si):u8[4]", "p:e vfs_write a=%si b=+8(%si):u8[4]"]);
    for (row, text) in [
        ("^r:e vfs_read a=%di", "Probe type is different from existing probe"),
        ("p:e vfs_read ^a=%di:u64 b=+0(%si):u8[4]", "Argument type or name is different from existing probe"),
        ("p:e vfs_read a=%di ^b=+0(%si):u8[5]", "Argument type or name is different from existing probe"),
        ("p:e vfs_read a=%di ^c=+0(%si):u8[4]", "Argument type or name is different from existing probe"),
        ("p:e vfs_read a=%di ^", "Argument type or name is different from existing probe"),
        ("p:e vfs_read a=%di b=+0(%si):u8[4] ^c=%di", "Argument type or name is different from existing probe"),
        ("^p:e vfs_read a=%di b=+0(%si):u8[4]", "There is already the exact same probe event"),
        ("^p:kprobes/e vfs_write a=%si b=+8(%si):u8[4]", "There is already the exact same probe event"),
        // Reported before the place is looked at.
        ("p:e vfs_read+1 ^x=%di b=+0(%si):u8[4]", "Argument type or name is different from existing probe"),
    ] {
        let column = row.find('^').expect("a caret");
        let line = row.replacen('^', "", 1);
        let error = parse(&line, &FakeKernel, &events).expect_err(&line);
        assert_eq!((error.text.as_ref(), error.column, error.errno), (text, Some(column), 17), "{row}");
    }
    for line in ["p:e vfs_read a=%dx b=+0(%si):u8[4]", "p:e vfs_read+9 a=%di:x64 b=+0(%si):u8[4]", "r:other/e vfs_read"]
    {
        assert!(parse(line, &FakeKernel, &events).is_ok(), "{line}");
    }
}

#[test]
fn deletion() {
    let events = events(&["p:e vfs_read a=%di", "p:e vfs_write a=%di", "p:g/e vfs_read", "p:g/f vfs_read+9"]);
    let deleted = |line: &str| match parse(line, &FakeKernel, &events) {
        Ok(Command::Delete(delete)) => {
            let mut found: Vec<_> = events.matching(&delete).iter().map(ToString::to_string).collect();
            found.sort();
            found
        }
        other => panic!("{line}: {other:?}"),
    };
    let (read, write) = ("p:kprobes/e vfs_read a=%di", "p:kprobes/e vfs_write a=%di");
    assert_eq!(deleted("-:e"), ["p:g/e vfs_read", read, write]);
    assert_eq!(deleted("-:kprobes/e"), [read, write]);
    assert_eq!(deleted("-:g/"), ["p:g/e vfs_read", "p:g/f vfs_read+9"]);
    assert_eq!(deleted("-:kprobes/e vfs_write"), [write]);
    assert_eq!(deleted("-:e vfs_read a=%di"), [read]);
    assert_eq!(deleted("-:f vfs_read+9"), ["p:g/f vfs_read+9"]);
    for line in
        ["-:/e", "-:h/e", "-:e vfs_read+9", "-:e vfs_read a=%si", "-:e vfs_read a=%di b=%si", "-:f vfs_read+0x9"]
    {
        let error = parse(line, &FakeKernel, &events).expect_err(line);
        assert_eq!(error.errno, 2, "{line}");
    }
}

#[test]
fn the_set_forgets() {
    let mut events = Events::new();
    let (one, two) = (Arc::new(define("p:e vfs_read")), Arc::new(define("p:e vfs_write")));
    events.insert(one.clone());
    events.insert(two.clone());
    assert_eq!((events.len(), events.get("kprobes", "e").len()), (2, 2));
    assert!(events.remove(&one));
    assert!(!events.remove(&one));
    assert_eq!(events.get("kprobes", "e")[0].place.text, "vfs_write");
    assert!(events.remove(&two));
    assert!(events.is_empty());
}
