//! What a real kernel answered (6.12.117, x86_64, with BTF), row by row.

use std::sync::Arc;

use qkprobe_lang::{Command, Events, Filter, parse};

use crate::fake::{FakeKernel, define};

const ERROR_LOG: &str = include_str!("../golden/x86_64-6.12.117-error_log.txt");
const EVENTS: &str = include_str!("../golden/x86_64-6.12.117-listing-filters.txt");

/// What a row should give here where that is not what the kernel gave.
enum Instead {
    Accepted,
    Refused(&'static str),
}

const NO_BTF: &str = "no BTF: a kernel without it answers so";
const OUTSIDE: &str = "refused only because the probe would be inside the kernel";

/// Rows that differ, what they give, and why.
const DIFFERENT: [(&str, Instead, &str); 11] = [
    (
        "p vfs_read $arg10000",
        Instead::Refused(
            "trace_kprobe: error: Invalid argument number
  Command: p vfs_read $arg10000
                      ^",
        ),
        NO_BTF,
    ),
    (
        "p vfs_read hoge",
        Instead::Refused(
            "trace_kprobe: error: BTF is not available or not supported
  Command: p vfs_read hoge
                      ^",
        ),
        NO_BTF,
    ),
    ("r kfree $retval", Instead::Accepted, NO_BTF),
    (
        "r kfree $retval->x",
        Instead::Refused(
            "trace_kprobe: error: BTF is not available or not supported
  Command: r kfree $retval->x
                   ^",
        ),
        NO_BTF,
    ),
    (
        "p vfs_read file->nofield",
        Instead::Refused(
            "trace_kprobe: error: BTF is not available or not supported
  Command: p vfs_read file->nofield
                      ^",
        ),
        NO_BTF,
    ),
    (
        "p vfs_read file-f_pos",
        Instead::Refused(
            "trace_kprobe: error: BTF is not available or not supported
  Command: p vfs_read file-f_pos
                      ^",
        ),
        NO_BTF,
    ),
    (
        "p vfs_read count->x",
        Instead::Refused(
            "trace_kprobe: error: BTF is not available or not supported
  Command: p vfs_read count->x
                      ^",
        ),
        NO_BTF,
    ),
    (
        "p vfs_read file.f_pos",
        Instead::Refused(
            "trace_kprobe: error: BTF is not available or not supported
  Command: p vfs_read file.f_pos
                      ^",
        ),
        NO_BTF,
    ),
    ("p get_kprobe", Instead::Accepted, OUTSIDE),
    ("p exc_page_fault", Instead::Accepted, OUTSIDE),
    ("r __switch_to", Instead::Accepted, OUTSIDE),
];

/// A message without its help.
fn without_help(message: &str) -> String {
    message.split("\n  help: ").next().expect("a first part").to_owned()
}

/// `(command, accepted, error)` of each row between `OPEN` and the brackets' end.
fn rows<'a>(text: &'a str, open: &str, close: &str, source: &str) -> Vec<(&'a str, bool, Option<String>)> {
    let mut lines = text.lines().peekable();
    let mut rows = Vec::new();
    while let Some(line) = lines.next() {
        let Some((command, end)) = line.strip_prefix(open).and_then(|rest| rest.rsplit_once(close)) else { continue };
        let accepted = end.starts_with('0');
        let error = lines.next_if(|line| line.starts_with(source)).map(|first| {
            let command = lines.next().expect("a command line");
            let caret = lines.next().expect("a caret line");
            format!("{first}\n{command}\n{caret}")
        });
        rows.push((command, accepted, error));
    }
    rows
}

#[test]
fn error_log() {
    let mut events = Events::new();
    events.insert(Arc::new(define("p:kprobes/te kernel_clone abcd=\\1")));
    let rows = rows(ERROR_LOG, "CMD[", "] rc=", "trace_kprobe: error: ");
    assert_eq!(rows.len(), 67, "all rows are read");
    for (command, accepted, error) in rows {
        let answer = parse(command, &FakeKernel, &events);
        let different = DIFFERENT.iter().find(|(row, ..)| *row == command);
        match (different, answer) {
            (Some((_, Instead::Accepted, why)), answer) => assert!(answer.is_ok(), "{command}: {why}"),
            (Some((_, Instead::Refused(text), why)), answer) => {
                let message = answer.expect_err(command).to_string();
                assert_eq!(without_help(&message), *text, "{command}: {why}");
            }
            (None, Ok(_)) => assert!(accepted, "{command}: accepted, but the kernel said {error:?}"),
            (None, Err(refusal)) => {
                assert!(!accepted, "{command}: {refusal}");
                match error {
                    Some(error) => assert_eq!(without_help(&refusal.to_string()), error, "{command}"),
                    None => assert_eq!(refusal.column, None, "{command}: the kernel logs nothing"),
                }
            }
        }
    }
}

#[test]
fn every_difference_is_a_row() {
    for (command, ..) in &DIFFERENT {
        assert!(ERROR_LOG.contains(&format!("CMD[{command}]")), "{command}");
    }
}

#[test]
fn listing() {
    let lines = EVENTS.lines().skip_while(|line| *line != "=== EVENTS").skip(1);
    let mut checked = 0;
    for line in lines.take_while(|line| line.starts_with(['p', 'r'])) {
        // The task's name is not available yet.
        let line = line.replace(" c=$comm", "");
        assert_eq!(define(&line).to_string(), line);
        checked += 1;
    }
    assert_eq!(checked, 10);
    // What the kernel was given, and what it made of it.
    for (given, listed) in [
        ("p vfs_read", "p:kprobes/p_vfs_read_0 vfs_read"),
        ("p vfs_read+9", "p:kprobes/p_vfs_read_9 vfs_read+9"),
        ("p:g2/ vfs_write", "p:g2/p_vfs_write_0 vfs_write"),
        ("p:foo-x.bar vfs_read+0x0", "p:foo-x/bar vfs_read"),
        ("r7:rr  vfs_read%return", "r7:kprobes/rr vfs_read"),
        ("p:ev2 vfs_read+011 %ip %sp:x64", "p:kprobes/ev2 vfs_read+9 arg1=%ip arg2=%sp:x64"),
    ] {
        assert_eq!(define(given).to_string(), listed);
    }
}

/// Filters that the kernel takes and that wait here for the guest's current task.
const TASK_FILTERS: [(&str, &str); 2] = [
    (
        "common_pid!=0",
        "event filter parse error: error: Field not found
  Command: common_pid!=0
                      ^",
    ),
    (
        "COMM==\"cat\"",
        "event filter parse error: error: Field not found
  Command: COMM==\"cat\"
                ^",
    ),
];

#[test]
fn filters() {
    let text = EVENTS.split("=== filters").nth(1).expect("the part about filters");
    let definition = define("p:f vfs_read cnt=%dx:u64 c=+0(%si):string");
    let rows = rows(text, "[", "] rc=", "event filter parse error: ");
    assert_eq!(rows.len(), 13, "all rows are read");
    for (filter, accepted, error) in rows {
        let answer = Filter::compile(filter, &definition, &FakeKernel);
        if let Some((_, text)) = TASK_FILTERS.iter().find(|(row, _)| *row == filter) {
            assert_eq!(without_help(&answer.expect_err(filter).to_string()), *text);
            continue;
        }
        match answer {
            Ok(compiled) => {
                assert!(accepted, "{filter}");
                assert_eq!(compiled.to_string(), if filter == "0" { "none" } else { filter });
            }
            Err(refusal) => assert_eq!(Some(without_help(&refusal.to_string())), error, "{filter}"),
        }
    }
}

#[test]
fn comments_are_nothing() {
    for line in ["", "   \t", "# comment", "  # p vfs_read"] {
        assert!(matches!(parse(line, &FakeKernel, &Events::new()), Ok(Command::Nothing)), "{line}");
    }
}
