//! The commands that speak to a running guest.

use std::io;
use std::time::{Duration, Instant};

use qkprobe_harness::control::{Control, Profile};
use qkprobe_harness::event::Event;
use qkprobe_harness::{Error, escape, find, units};
use serde_json::{Value, json};

use super::{Interrupt, say};
use crate::args::{Add, Continue, GuestArgs, Quit, Select, Show, Stat, Watch};
use crate::{Failure, Outcome};

fn connect(args: &GuestArgs) -> Result<Control, Failure> {
    let socket = find::socket(args.guest.as_deref())?;
    Control::connect(&socket).map_err(|error| match error {
        Error::Io { path, error } if error.kind() == io::ErrorKind::ConnectionRefused => Failure::new(format!(
            "--guest {}: nobody listens: the guest has ended, or was killed; its socket can be removed",
            path.display()
        )),
        other => other.into(),
    })
}

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn list_of(mut value: Value, key: &str) -> Vec<Value> {
    match value.get_mut(key).map(Value::take) {
        Some(Value::Array(list)) => list,
        _ => Vec::new(),
    }
}

/// Prints a table; the first row is its head.
fn table(rows: &[Vec<String>]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| {
            // Numbers stand at the right.
            if cell.bytes().next().is_some_and(|byte| byte.is_ascii_digit()) && !cell.starts_with("0x") {
                format!("{cell:>width$}")
            } else {
                format!("{cell:width$}")
            }
        });
        if !say(&mut out, cells.collect::<Vec<_>>().join("  ").trim_end())? {
            break;
        }
    }
    Ok(())
}

/// `add`.
pub(crate) fn add(args: &Add) -> Outcome {
    let added = connect(&args.guest)?.add(&args.definitions)?;
    let mut out = io::stdout().lock();
    for probe in added.as_array().into_iter().flatten() {
        let address = probe.get("address").and_then(Value::as_str).unwrap_or("pending: its module is not there");
        let armed = if probe.get("armed") == Some(&Value::Bool(true)) { "" } else { " (not armed yet)" };
        let line = format!("{}/{} at {address}{armed}", text(probe, "group"), text(probe, "event"));
        if !say(&mut out, &escape::line(line.as_bytes()))? {
            break;
        }
    }
    Ok(0)
}

/// `del`.
pub(crate) fn del(args: &Select) -> Outcome {
    let mut control = connect(&args.guest)?;
    let mut out = io::stdout().lock();
    for event in &args.events {
        let result = control.request(json!({ "cmd": "delete", "event": event }))?;
        for probe in list_of(result, "removed") {
            let number = |key| probe.get(key).and_then(Value::as_u64).unwrap_or(0);
            let (group, name) = (text(&probe, "group"), text(&probe, "event"));
            let line = format!(
                "{group}/{name}: {}, {} missed, {} dropped",
                units::counted(number("hits"), "hit"),
                number("missed"),
                number("dropped")
            );
            say(&mut out, &escape::line(line.as_bytes()))?;
        }
    }
    Ok(0)
}

/// `enable` and `disable`.
pub(crate) fn set_enabled(args: &Select, on: bool) -> Outcome {
    let mut control = connect(&args.guest)?;
    let (cmd, done) = if on { ("enable", "enabled") } else { ("disable", "disabled") };
    let mut count = 0;
    for event in &args.events {
        let result = control.request(json!({ "cmd": cmd, "event": event }))?;
        count += result.get("count").and_then(Value::as_u64).unwrap_or(0);
    }
    say(&mut io::stdout().lock(), &format!("{count} {done}"))?;
    Ok(0)
}

/// `list`.
pub(crate) fn list(args: &Show) -> Outcome {
    let probes = list_of(connect(&args.guest)?.request(json!({ "cmd": "list" }))?, "probes");
    if args.json {
        say(&mut io::stdout().lock(), &Value::Array(probes).to_string())?;
        return Ok(0);
    }
    let head = ["EVENT", "TYPE", "ADDRESS", "PLACE", "FLAGS", "DEFINITION"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(probes.iter().map(|probe| {
        let flags = probe.get("flags").and_then(Value::as_array).into_iter().flatten();
        let flags: Vec<_> = flags.filter_map(Value::as_str).collect();
        let address = probe.get("address").and_then(Value::as_str).unwrap_or("-");
        let cells = [
            &format!("{}/{}", text(probe, "group"), text(probe, "event")),
            text(probe, "type"),
            address,
            text(probe, "symbol"),
            &flags.join(","),
            text(probe, "definition"),
        ];
        cells.map(|cell| escape::line(cell.as_bytes())).to_vec()
    }));
    table(&rows)?;
    Ok(0)
}

/// `stat`.
pub(crate) fn stat(args: &Stat) -> Outcome {
    let mut control = connect(&args.show.guest)?;
    let mut before: Option<(Instant, Vec<Profile>)> = None;
    let mut left = args.times.unwrap_or(if args.every.is_some() { u64::MAX } else { 1 });
    let interrupt = Interrupt::catch()?;
    while left > 0 {
        let now = Instant::now();
        if args.show.json {
            let profile = list_of(control.request(json!({ "cmd": "profile" }))?, "probes");
            if !say(&mut io::stdout().lock(), &Value::Array(profile).to_string())? {
                break;
            }
        } else {
            let profile = control.profile()?;
            table(&profile_rows(&profile, before.as_ref().map(|(at, list)| (now - *at, list.as_slice()))))?;
            before = Some((now, profile));
        }
        left -= 1;
        let end = now + args.every.unwrap_or_default();
        while left > 0 && Instant::now() < end {
            if interrupt.status().is_some() {
                return Ok(0);
            }
            std::thread::sleep(Duration::from_millis(20).min(end.saturating_duration_since(Instant::now())));
        }
    }
    Ok(0)
}

fn profile_rows(profile: &[Profile], before: Option<(Duration, &[Profile])>) -> Vec<Vec<String>> {
    let head = ["EVENT", "HITS", "PER SECOND", "MISSED", "FILTERED", "DROPPED", "PENDING", "ABANDONED"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for probe in profile {
        let rate = before.and_then(|(passed, list)| {
            let old = list.iter().find(|old| old.event == probe.event && old.group == probe.group)?;
            Some(format!("{:.0}", probe.hits.saturating_sub(old.hits) as f64 / passed.as_secs_f64().max(0.001)))
        });
        let numbers = [probe.missed, probe.filtered, probe.dropped, probe.pending, probe.abandoned];
        let mut row = vec![format!("{}/{}", probe.group, probe.event), probe.hits.to_string()];
        row.push(rate.unwrap_or_else(|| "-".to_owned()));
        row.extend(numbers.map(|number| number.to_string()));
        rows.push(row);
    }
    rows
}

/// `watch`.
pub(crate) fn watch(args: &Watch) -> Outcome {
    let mut control = connect(&args.guest)?;
    let mut request = json!({ "cmd": "subscribe" });
    if let (false, Some(map)) = (args.events.is_empty(), request.as_object_mut()) {
        map.insert("events".to_owned(), args.events.clone().into());
    }
    control.request(request)?;
    let mut out = io::stdout().lock();
    let mut left = args.lines.unwrap_or(u64::MAX);
    while left > 0 {
        // The guest's end is this command's too.
        let Ok(line) = control.event(None) else { break };
        let shown = if args.json {
            line.to_string()
        } else {
            match (Event::parse(&line.to_string()), text(&line, "type")) {
                (Some(event), _) => event.to_string(),
                (None, "lost") => {
                    format!("# lost: {} events", line.get("records").and_then(Value::as_u64).unwrap_or(0))
                }
                (None, "end") => break,
                (None, _) => format!("# {}", escape::line(line.to_string().as_bytes())),
            }
        };
        if !say(&mut out, &shown)? {
            break;
        }
        left -= 1;
    }
    Ok(0)
}

/// `continue`.
pub(crate) fn go_on(args: &Continue) -> Outcome {
    let result = connect(&args.guest)?.request(json!({ "cmd": "continue", "vcpu": args.vcpu }))?;
    let released = result.get("released").and_then(Value::as_u64).unwrap_or(0);
    say(&mut io::stdout().lock(), &format!("{released} released"))?;
    Ok(0)
}

/// `quit`.
pub(crate) fn quit(args: &Quit) -> Outcome {
    connect(&args.guest)?.request(json!({ "cmd": "quit", "status": args.status }))?;
    Ok(0)
}
