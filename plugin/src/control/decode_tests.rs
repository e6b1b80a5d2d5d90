//! The fuzz target `control`: any bytes get a reply of one line of JSON, and nothing panics. See `fuzz_tests`.

use serde_json::Value;

use super::protocol::{Command, MAX_LIST, Rejected, Request, decode};
use super::{reply, selector::Selector};
use crate::fuzz_tests::{MAX_LEN, RANDOM, expand};

/// Pieces of requests.
const PIECES: [&str; 56] = [
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    " ",
    "\"",
    "\\",
    "\t",
    "\r",
    "\n",
    "\0",
    "\u{9b}",
    "#",
    "-:",
    "p ",
    "r4 ",
    "*",
    "/",
    "a/b",
    "null",
    "true",
    "-1",
    "1e999",
    "18446744073709551616",
    "\"id\":",
    "\"cmd\":",
    "\"def\":",
    "\"defs\":",
    "\"event\":",
    "\"events\":",
    "\"vcpu\":",
    "\"status\":",
    "\"filter\":",
    "\"add\"",
    "\"delete\"",
    "\"enable\"",
    "\"list\"",
    "\"subscribe\"",
    "\"continue\"",
    "\"quit\"",
    "\"help\"",
    "\"p vfs_read\"",
    "\"g/e\"",
    "{\"cmd\":\"add\",",
    "{\"cmd\":\"quit\",",
    "\\ud800",
    "{\"cmd\":\"subscribe\",\"events\":[",
    "{\"cmd\":\"delete\",\"event\":",
    "{\"cmd\":\"add\",\"defs\":[",
    "\"override\":",
    "\"set\":",
    "\"action\":",
    "\"nth\":",
    "\"p:e f x=%di if x == 1 do skip\"",
];

fn check(line: &[u8]) {
    let mut out = Vec::new();
    match decode(line) {
        Ok(Request { id, command }) => {
            match &command {
                Command::Add(probes) => {
                    assert!((1..=MAX_LIST).contains(&probes.len()));
                    assert!(probes.iter().all(|probe| !probe.line.contains('\n') && !probe.line.is_empty()));
                }
                Command::Delete(selector) | Command::SetEnabled(selector, _) => {
                    // A selector's text means the same.
                    assert_eq!(Selector::parse(&selector.to_string()).as_ref(), Ok(selector));
                }
                _ => {}
            }
            reply::good(&id, &format!("{command:?}"), &mut out);
        }
        Err(Rejected { id, refusal }) => {
            assert!(!refusal.message.is_empty() && refusal.message.len() < 1000, "{}", refusal.message);
            reply::bad(&id, &refusal, &mut out);
        }
    }
    assert_eq!(out.iter().filter(|byte| **byte == b'\n').count(), 1);
    assert_eq!(out.last(), Some(&b'\n'));
    let reply: Value = serde_json::from_slice(&out).expect("JSON");
    assert!(reply["ok"].is_boolean());
}

#[test]
fn any_bytes_get_an_answer() {
    bolero::check!(name = "control").with_iterations(RANDOM).with_max_len(MAX_LEN).for_each(|bytes: &[u8]| {
        check(bytes);
        check(expand(bytes, &PIECES).as_bytes());
    });
}
