//! From a line to a request. Pure: no socket, no plugin; any bytes give a request or an error that says what to write.
//!
//! A line is a JSON object with `cmd`, or, for users of tracefs, a line of `kprobe_events` as it stands.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::backend::{NewProbe, Refusal};
use super::selector::Selector;
use super::suggest::{hint, shown};

/// The longest request, without its line break.
pub(super) const MAX_LINE: usize = 64 << 10;
/// The most definitions, and the most selectors of a subscription, in one request.
pub(super) const MAX_LIST: usize = 10_000;

/// One request.
#[derive(Debug, PartialEq)]
pub(super) struct Request {
    /// Goes back in the reply; `null` if there was none.
    pub(super) id: Value,
    pub(super) command: Command,
}

/// What is asked for.
#[derive(Debug, PartialEq)]
pub(super) enum Command {
    /// A blank line or a comment: no reply.
    Nothing,
    Add(Vec<NewProbe>),
    Delete(Selector),
    SetEnabled(Selector, bool),
    List,
    Profile,
    Status,
    /// To some events, or to all.
    Subscribe(Option<Vec<Selector>>),
    Unsubscribe,
    Continue(Option<u32>),
    Quit(u8),
    Help,
    Version,
}

/// A line that is no request. The id is known if the line was JSON.
#[derive(Debug, PartialEq)]
pub(super) struct Rejected {
    pub(super) id: Value,
    pub(super) refusal: Refusal,
}

/// A command for `help` and for suggestions: its name, its keys but for `id` and `cmd`, what it does.
pub(super) const COMMANDS: [(&str, &[&str], &str); 13] = [
    (
        "add",
        &["def", "defs"],
        "registers probes, all or none; also takes the keys of a [[probe]] table: filter, action, ...",
    ),
    ("delete", &["event"], "unregisters probes; afterwards no handler of them runs"),
    ("enable", &["event"], "arms probes again"),
    ("disable", &["event"], "disarms probes and keeps them"),
    ("list", &[], "all probes, with the columns of the kernel's kprobes/list"),
    ("profile", &[], "all probes' counters, with the columns of the kernel's kprobe_profile"),
    ("status", &[], "QEMU, kernel, what is armed, which vCPUs are held"),
    ("subscribe", &["events"], "sends events from here on, all or those that are named"),
    ("unsubscribe", &[], "sends no more events"),
    ("continue", &["vcpu"], "releases vCPUs that a stop probe holds"),
    ("quit", &["status"], "ends QEMU with this status (0 to 255)"),
    ("help", &[], "this list"),
    ("version", &[], "qkprobe's version and the protocol's"),
];

/// The forms of an event's selector, for messages.
const SELECTOR: &str = "EVENT, GROUP/EVENT, GROUP/ or *";

/// Decodes one line, with or without its line break.
///
/// # Errors
/// What is wrong, and what to write instead.
pub(super) fn decode(line: &[u8]) -> Result<Request, Rejected> {
    let text = std::str::from_utf8(line).map_err(|error| {
        let message = format!("byte {}: not UTF-8", error.valid_up_to());
        Rejected { id: Value::Null, refusal: Refusal::new(libc::EILSEQ, message) }
    })?;
    let text = text.trim_matches(|c: char| c.is_ascii_whitespace());
    if text.starts_with('{') {
        return decode_json(text);
    }
    let command = decode_raw(text).map_err(|refusal| Rejected { id: Value::Null, refusal })?;
    Ok(Request { id: Value::Null, command })
}

/// A line as it would be written to `kprobe_events`.
fn decode_raw(text: &str) -> Result<Command, Refusal> {
    if COMMANDS.iter().any(|(name, ..)| *name == text) {
        // `profile` and `quit` are words that a user tries; none can be a definition, which has two words.
        return Err(Refusal::invalid(format!("commands are JSON: write {{\"cmd\": \"{text}\"}}")));
    }
    match text.bytes().next() {
        None | Some(b'#') => Ok(Command::Nothing),
        Some(b'p' | b'r') => Ok(Command::Add(vec![NewProbe { line: definition(text)?, options: Arc::default() }])),
        Some(b'-') => Selector::parse_line(text).map(Command::Delete),
        Some(_) => Err(Refusal::invalid(format!(
            "'{}': neither a JSON object, as {{\"cmd\": \"help\"}}, nor a line of kprobe_events, which begins with p, r or -",
            shown(text)
        ))),
    }
}

fn decode_json(text: &str) -> Result<Request, Rejected> {
    let mut map: Map<String, Value> = serde_json::from_str(text)
        .map_err(|error| Rejected { id: Value::Null, refusal: Refusal::invalid(format!("not JSON: {error}")) })?;
    let id = map.remove("id").unwrap_or_default();
    match decode_command(map) {
        Ok(command) => Ok(Request { id, command }),
        Err(refusal) => Err(Rejected { id, refusal }),
    }
}

fn decode_command(mut map: Map<String, Value>) -> Result<Command, Refusal> {
    let name = match map.remove("cmd") {
        Some(Value::String(name)) => name,
        Some(other) => return Err(wrong_type("cmd", "a string", &other)),
        None => {
            return Err(Refusal::invalid(match map.keys().next() {
                Some(key) if near(key, "cmd") => format!("unknown key '{}': did you mean 'cmd'?", shown(key)),
                _ => "a request has a 'cmd': {\"cmd\": \"help\"} lists them".to_owned(),
            }));
        }
    };
    let Some((name, keys, _)) = COMMANDS.iter().find(|(known, ..)| *known == name) else {
        let names = COMMANDS.map(|(known, ..)| known);
        return Err(Refusal::invalid(format!("unknown cmd '{}': {}", shown(&name), hint(&name, &names))));
    };
    // The keys of `add` are those of a `[[probe]]` table too: the plugin knows which exist.
    if *name != "add" {
        check_keys(name, &map, keys)?;
    }
    match *name {
        "add" => add(map).map(Command::Add),
        "delete" => selector(&mut map, name).map(Command::Delete),
        "enable" => selector(&mut map, name).map(|selector| Command::SetEnabled(selector, true)),
        "disable" => selector(&mut map, name).map(|selector| Command::SetEnabled(selector, false)),
        "list" => Ok(Command::List),
        "profile" => Ok(Command::Profile),
        "status" => Ok(Command::Status),
        "subscribe" => subscribe(map.remove("events")).map(Command::Subscribe),
        "unsubscribe" => Ok(Command::Unsubscribe),
        "continue" => number(&mut map, "vcpu", u64::from(u32::MAX))
            .map(|vcpu| Command::Continue(vcpu.and_then(|vcpu| u32::try_from(vcpu).ok()))),
        "quit" => number(&mut map, "status", 255)
            .map(|status| Command::Quit(status.and_then(|status| u8::try_from(status).ok()).unwrap_or(0))),
        "help" => Ok(Command::Help),
        // The last of `COMMANDS`.
        _ => Ok(Command::Version),
    }
}

fn add(mut map: Map<String, Value>) -> Result<Vec<NewProbe>, Refusal> {
    match (map.remove("def"), map.remove("defs")) {
        (Some(Value::String(line)), None) => Ok(vec![NewProbe { line: definition(&line)?, options: Arc::new(map) }]),
        (Some(other), None) => Err(wrong_type("def", "a string", &other)),
        (None, Some(Value::Array(list))) => {
            if list.is_empty() || list.len() > MAX_LIST {
                return Err(length("defs", list.len()));
            }
            let common = Arc::new(map);
            list.into_iter().enumerate().map(|(index, one)| one_of_many(index, one, &common)).collect()
        }
        (None, Some(other)) => Err(wrong_type("defs", "a list", &other)),
        (Some(_), Some(_)) => Err(Refusal::invalid("'def' and 'defs' exclude each other")),
        (None, None) => {
            let meant = map.keys().find(|key| near(key, "def") || near(key, "defs"));
            let meant = meant.map(|key| format!("unknown key '{}': ", shown(key))).unwrap_or_default();
            Err(Refusal::invalid(format!(
                "{meant}'add' needs 'def': \"p:NAME PLACE ARG...\", or 'defs', a list of such"
            )))
        }
    }
}

/// A member of `defs`: a definition, or a whole `[[probe]]` table with options of its own.
fn one_of_many(index: usize, one: Value, common: &Arc<Map<String, Value>>) -> Result<NewProbe, Refusal> {
    let place = format!("defs[{index}]");
    let prefixed = |refusal: Refusal| Refusal { message: format!("{place}: {}", refusal.message), ..refusal };
    match one {
        Value::String(line) => Ok(NewProbe { line: definition(&line).map_err(prefixed)?, options: Arc::clone(common) }),
        Value::Object(mut table) => {
            if !common.is_empty() {
                return Err(Refusal::invalid(format!(
                    "{place} is an object with options of its own: give every member's options there, none beside 'defs'"
                )));
            }
            match table.remove("def") {
                Some(Value::String(line)) => {
                    Ok(NewProbe { line: definition(&line).map_err(prefixed)?, options: Arc::new(table) })
                }
                Some(other) => Err(prefixed(wrong_type("def", "a string", &other))),
                None => Err(Refusal::invalid(format!("{place}: needs 'def'"))),
            }
        }
        other => Err(wrong_type(&place, "a string or an object with 'def'", &other)),
    }
}

/// One line that adds, without its surroundings. What it says is the language's business.
fn definition(line: &str) -> Result<String, Refusal> {
    let line = line.trim_matches(|c: char| c.is_ascii_whitespace());
    if line.is_empty() || line.starts_with('#') {
        return Err(Refusal::invalid("the definition is empty: write p:NAME PLACE ARG..."));
    }
    if line.starts_with('-') {
        return Err(Refusal::invalid("this deletes: use {\"cmd\": \"delete\", \"event\": ...}, or the bare line"));
    }
    if line.contains('\n') {
        return Err(Refusal::invalid("a definition is one line: give several as 'defs'"));
    }
    Ok(line.to_owned())
}

fn selector(map: &mut Map<String, Value>, command: &str) -> Result<Selector, Refusal> {
    match map.remove("event") {
        Some(Value::String(text)) => Selector::parse(&text),
        Some(other) => Err(wrong_type("event", "a string", &other)),
        None => Err(Refusal::invalid(format!("'{command}' needs 'event': {SELECTOR}"))),
    }
}

fn subscribe(events: Option<Value>) -> Result<Option<Vec<Selector>>, Refusal> {
    let list = match events {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Array(list)) => list,
        Some(other) => return Err(wrong_type("events", "a list of strings", &other)),
    };
    if list.is_empty() || list.len() > MAX_LIST {
        return Err(length("events", list.len()));
    }
    let one = |value: Value| {
        let Value::String(text) = value else { return Err(wrong_type("events", "a list of strings", &value)) };
        let selector = Selector::parse(&text)?;
        match selector.head.first() {
            None => Ok(selector),
            Some(_) => Err(Refusal::invalid(format!("'{}': an event of a subscription is {SELECTOR}", shown(&text)))),
        }
    };
    list.into_iter().map(one).collect::<Result<_, _>>().map(Some)
}

fn number(map: &mut Map<String, Value>, key: &str, most: u64) -> Result<Option<u64>, Refusal> {
    match map.remove(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_u64().filter(|number| *number <= most) {
            Some(number) => Ok(Some(number)),
            None => Err(wrong_type(key, &format!("a number from 0 to {most}"), &value)),
        },
    }
}

fn check_keys(command: &str, map: &Map<String, Value>, keys: &[&str]) -> Result<(), Refusal> {
    match map.keys().find(|key| !keys.contains(&key.as_str())) {
        None => Ok(()),
        Some(key) => Err(Refusal::invalid(format!("'{command}': unknown key '{}': {}", shown(key), hint(key, keys)))),
    }
}

fn near(key: &str, wanted: &str) -> bool {
    hint(key, &[wanted]).starts_with("did")
}

fn length(key: &str, length: usize) -> Refusal {
    let errno = if length == 0 { libc::EINVAL } else { libc::E2BIG };
    Refusal::new(errno, format!("'{key}' has {length} members: from 1 to {MAX_LIST} are possible"))
}

fn wrong_type(key: &str, wanted: &str, found: &Value) -> Refusal {
    let found = match found {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(_) => "a string".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    };
    Refusal::invalid(format!("'{key}' must be {wanted}, not {found}"))
}
