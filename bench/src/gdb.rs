//! What a hardware breakpoint of gdb costs that does nothing but continue: a stop of the guest, a few packets each way, a step over the
//! breakpoint, and on.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::bench::{Bench, Round, check};
use crate::hits::GETPPID;
use crate::places;

const SOCKET: &str = "gdb.sock";
/// For QEMU to open its socket, and for gdb to notice that QEMU is gone.
const PATIENCE: Duration = Duration::from_secs(20);

/// Ends gdb whatever happens.
#[derive(Debug)]
struct Gdb(Child);

impl Drop for Gdb {
    fn drop(&mut self) {
        // Both fail only for a process that is no more.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `gdb/getppid`: nanoseconds for a call with the breakpoint on its way.
pub(crate) fn measure(bench: &Bench, round: &mut Round) -> Result<(), String> {
    let addr = places::straight_line(&bench.image, bench.arch, GETPPID)?.first().ok_or("no instruction")?.0;
    let calls = bench.scale.gdb;
    let boot = bench
        .boot()
        .script(std::iter::repeat_n(format!("getppid {calls}"), bench.scale.repeats + 1))
        .extra_args(["-S", "-gdb", &format!("unix:{SOCKET},server=on,wait=off")]);
    let running = boot.spawn().map_err(|error| error.to_string())?;
    let socket = running.folder().join(SOCKET);
    let start = Instant::now();
    while !socket.exists() {
        if start.elapsed() > PATIENCE {
            return Err("QEMU did not open its socket for gdb".to_owned());
        }
        thread::sleep(Duration::from_millis(10));
    }
    let script = bench.file("gdb.script");
    let text = format!(
        "set pagination off\nset confirm off\ntarget remote {}\nhbreak *{:#x}\ncommands\nsilent\ncontinue\nend\ncontinue\n",
        socket.display(),
        addr.0
    );
    fs::write(&script, text).map_err(|error| error.to_string())?;
    let log = bench.file("gdb.log");
    let output = fs::File::create(&log).map_err(|error| error.to_string())?;
    let errors = output.try_clone().map_err(|error| error.to_string())?;
    let mut command = Command::new("gdb");
    command.args(["-nx", "-quiet", "-batch", "-x"]).arg(&script);
    // QEMU's end breaks the script off; this comes nevertheless.
    command.args(["-ex", "info breakpoints"]);
    command.stdin(Stdio::null()).stdout(output).stderr(errors);
    let mut gdb = Gdb(command.spawn().map_err(|error| format!("gdb: {error}"))?);
    let said = || fs::read_to_string(&log).unwrap_or_default();
    let boot = running.finish().map_err(|error| format!("{error}\n--- gdb\n{}", said()))?;
    let boot = check(boot).map_err(|error| format!("{error}; gdb said: {}", said().trim()))?;
    let start = Instant::now();
    while gdb.0.try_wait().ok().flatten().is_none() && start.elapsed() < PATIENCE {
        thread::sleep(Duration::from_millis(10));
    }
    let expected = u64::from(calls) * (bench.scale.repeats as u64 + 1);
    let hits = hits(&said());
    if hits != Some(expected) {
        return Err(format!("gdb counted {hits:?} hits, not {expected}; it said: {}", said().trim()));
    }
    round.set_loops("gdb", &boot);
    Ok(())
}

/// What `info breakpoints` says.
fn hits(text: &str) -> Option<u64> {
    let line = text.lines().rev().find_map(|line| line.trim().strip_prefix("breakpoint already hit "))?;
    line.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn info_breakpoints() {
        let text = "Num     Type           Disp Enb Address            What\n\
                    1       hw breakpoint  keep y   0xffffffff810b0de0 \n\tbreakpoint already hit 2000 times\n";
        assert_eq!(hits(text), Some(2000));
        assert_eq!(hits("Num Type\n1 hw breakpoint\n"), None);
    }
}
