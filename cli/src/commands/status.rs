//! The exit statuses of `run`, and that no probe's `quit=N` can be taken for one.

use qkprobe_harness::guest::{End, Guest};
use qkprobe_lang::{Halt, ProbeConfig};

use super::run::Counts;
use crate::Failure;
use crate::args::{Run, Until};

/// The guest rebooted; a kernel that panics does.
const REBOOTED: u8 = 10;
/// QEMU was killed, or ended by itself.
const QEMU_FAILED: u8 = 11;
/// The guest ended before `--until` was reached.
const UNMET: u8 = 12;
/// A client ended QEMU with a status that is one of these.
const AMBIGUOUS: u8 = 13;
/// What `run` itself ends with but for 0, which says that all went as it was to: 1 and 2 when nothing ran, 128 and a signal.
const OWN: [u8; 9] = [1, 2, REBOOTED, QEMU_FAILED, UNMET, AMBIGUOUS, 129, 130, 143];

/// Refuses a probe that ends QEMU with a status of `run`'s own.
pub(crate) fn check(probe: &ProbeConfig) -> Result<(), Failure> {
    match probe.effects.halt {
        Some(Halt::Quit(status)) if OWN.contains(&status) => Err(Failure::usage(format!(
            "{}\nquit={status}: `run` has a meaning of its own for this exit status (see its --help), and nobody could tell the two \
             apart: take 0, 3 to 9, or 14 to 128",
            probe.origin
        ))),
        _ => Ok(()),
    }
}

/// The exit status for a guest that ended by itself.
pub(crate) fn of(args: &Run, guest: &Guest, counts: &Counts) -> u8 {
    let summary = guest.summary();
    let met = |until: &Until| {
        let probes = summary.iter().flat_map(|summary| &summary.probes);
        let hits = probes.filter(|probe| until.means(&probe.group, &probe.name));
        counts.meets(until) || hits.map(|probe| probe.hits).sum::<u64>() >= until.hits
    };
    match (guest.end(), &args.until) {
        (Some(End::PowerOff), Some(until)) if met(until) => 0,
        (Some(End::PowerOff | End::Reset), Some(_)) => UNMET,
        (Some(End::PowerOff | End::Ended) | None, _) => 0,
        (Some(End::Reset), None) => REBOOTED,
        (Some(End::Killed(_) | End::Exit(_)), _) => QEMU_FAILED,
        (Some(End::Quit { status, .. }), _) if OWN.contains(&status) => AMBIGUOUS,
        (Some(End::Quit { status, .. }), _) => status,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_of_its_own_are_refused() {
        let check_line = |line: &str| check(&ProbeConfig::from_line(line, "here".to_owned()).expect("a line"));
        for status in [1, 2, 10, 11, 12, 13, 129, 130, 143] {
            let error = check_line(&format!("p:x f do quit={status}")).expect_err("refused");
            assert!(error.text.starts_with(&format!("here\nquit={status}: ")), "{}", error.text);
        }
        for status in [0, 3, 9, 14, 33, 70, 128, 255] {
            assert!(check_line(&format!("p:x f do quit={status}")).is_ok(), "{status}");
        }
        assert!(check_line("p:x f").is_ok() && check_line("p:x f do stop").is_ok());
    }
}
