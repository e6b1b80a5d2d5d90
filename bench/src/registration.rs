//! How long QEMU's start takes longer with 100,000 probes than with one: from the start of the process to the prompt of its monitor, with
//! the guest's CPU stopped.

use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use qkprobe_tests::plugin_path;

use crate::bench::{Bench, GUEST, Round};
use crate::places;
use crate::stats::median;

/// How many the bound speaks of.
const MANY: usize = 100_000;
const PROMPT: &[u8] = b"(qemu)";
/// A plugin that never comes to an end is ended.
const PATIENCE: Duration = Duration::from_secs(60);
/// Pairs of starts in a round, after one that does not count.
const PAIRS: usize = 3;

/// Ends QEMU whatever happens.
#[derive(Debug)]
struct Stopped(Child);

impl Drop for Stopped {
    fn drop(&mut self) {
        // Both fail only for a process that is no more.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `register/1` and `register/100000`: milliseconds from QEMU's start to its prompt.
pub(crate) fn measure(bench: &Bench, round: &mut Round) -> Result<(), String> {
    let many = bench.file("many.toml");
    let one = bench.file("one.toml");
    if !many.exists() {
        let addresses = places::many(&bench.image, bench.arch, MANY);
        if addresses.len() < MANY {
            return Err(format!("the image has only {} instructions for probes", addresses.len()));
        }
        let write = |path: &Path, text| fs::write(path, text).map_err(|error| error.to_string());
        write(&one, places::toml(&addresses[..1], "count"))?;
        write(&many, places::toml(&addresses, "count"))?;
    }
    // In turns, as the rounds are. The first pair brings the files into memory and does not count.
    let (mut times_one, mut times_many) = (Vec::new(), Vec::new());
    for _ in 0..=bench.scale.repeats.min(PAIRS) {
        times_one.push(start(bench, &one, 1)?);
        times_many.push(start(bench, &many, MANY)?);
    }
    round.set("register/1", median(&times_one[1..]).unwrap_or(f64::NAN));
    round.set(format!("register/{MANY}"), median(&times_many[1..]).unwrap_or(f64::NAN));
    Ok(())
}

/// Starts QEMU with these probes and ends it at its prompt. Milliseconds.
fn start(bench: &Bench, config: &Path, probes: usize) -> Result<f64, String> {
    let text = |error: std::io::Error| error.to_string();
    let missing = |error: qkprobe_tests::CacheError| error.to_string();
    let program = bench.cache.qemu(bench.qemu, "qemu-system-x86_64").map_err(missing)?;
    let image = bench.cache.kernel(GUEST).map_err(missing)?;
    let plugin = plugin_path().map_err(|error| error.to_string())?;
    let (summary, log) = (bench.file("summary.json"), bench.file("register.log"));
    let _ = fs::remove_file(&summary);
    let argument = [
        plugin.display().to_string(),
        format!("kernel={}", image.display()),
        format!("config={}", config.display()),
        format!("summary={}", summary.display()),
    ]
    .map(|part| part.replace(',', ",,"))
    .join(",");
    let mut command = Command::new(program);
    command.args(["-M", "pc", "-cpu", "max", "-accel", "tcg", "-m", "512M", "-nodefaults", "-display", "none", "-S"]);
    command.args(["-monitor", "stdio", "-plugin", &argument]).arg("-kernel").arg(&image);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(fs::File::create(&log).map_err(text)?);

    let begin = Instant::now();
    let mut qemu = Stopped(command.spawn().map_err(text)?);
    let mut output = qemu.0.stdout.take().ok_or("no output")?;
    let mut input = qemu.0.stdin.take().ok_or("no input")?;
    let waiter = thread::spawn(move || {
        let mut seen = Vec::new();
        let mut buffer = [0; 256];
        while let Ok(count @ 1..) = output.read(&mut buffer) {
            seen.extend_from_slice(&buffer[..count]);
            if seen.windows(PROMPT.len()).any(|bytes| bytes == PROMPT) {
                return (Some(begin.elapsed()), Some(output));
            }
        }
        (None, None)
    });
    while !waiter.is_finished() && begin.elapsed() < PATIENCE {
        thread::sleep(Duration::from_millis(2));
    }
    if !waiter.is_finished() {
        return Err(format!("no prompt of QEMU within {} s", PATIENCE.as_secs()));
    }
    // The pipe has to stay open until QEMU is gone.
    let (ready, _output) = waiter.join().map_err(|_| "the reader of QEMU's output failed")?;
    let Some(ready) = ready else {
        let words = fs::read_to_string(&log).unwrap_or_default();
        let words: Vec<&str> = words.lines().take(4).collect();
        return Err(format!("QEMU ended before its prompt: {}", words.join(" / ")));
    };
    // A QEMU that has ended by itself is noticed by its summary.
    let _ = input.write_all(b"quit\n");
    qemu.0.wait().map_err(text)?;
    let summary = fs::read_to_string(&summary).map_err(|error| format!("no summary: {error}"))?;
    let summary: qkprobe_tests::Summary = serde_json::from_str(&summary).map_err(|error| error.to_string())?;
    if summary.probes.len() != probes {
        return Err(format!("{} probes of {probes} are in the summary", summary.probes.len()));
    }
    Ok(ready.as_secs_f64() * 1e3)
}
