//! What the guest opens: how many times, with which result, and the slowest with their paths.
//!
//! ```text
//! cargo build --release -p open_watch
//! qemu-system-x86_64 ... -plugin target/release/libopen_watch.so,kernel=vmlinuz,x-slowest=10
//! ```
//!
//! All of it comes from `do_sys_openat2(dfd, filename, how)`, through which every `open`, `openat` and `creat` goes:
//! - a pre handler counts the calls;
//! - a post handler looks where the first instruction leads: into a trampoline, if the guest itself traces the function;
//! - a return probe remembers the path's address at the entry, and at the return takes result, duration and path.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use qkprobe::{DATA_BYTES, Guest, GuestAddr, Hit, Kprobe, Kretprobe, Pre};

qkprobe::plugin!(set_up);

const FUNCTION: &str = "do_sys_openat2";
/// The longest instruction of any guest, one of x86. What is further away was jumped or called to.
const LONGEST_INSTRUCTION: u64 = 15;

/// What was seen. Handlers of several vCPUs share it.
#[derive(Default)]
struct Seen {
    calls: AtomicU64,
    /// Calls whose first instruction led elsewhere.
    diverted: AtomicU64,
    returned: Mutex<Returned>,
}

#[derive(Default)]
struct Returned {
    /// By errno; 0 are the files that were opened.
    results: BTreeMap<u32, u64>,
    /// The slowest first.
    slowest: Vec<(u64, String)>,
}

fn set_up(guest: &'static Guest) -> Result<(), Box<dyn Error>> {
    let keep = guest.arg("slowest").unwrap_or("10").parse().map_err(|error| format!("x-slowest: {error}"))?;
    let seen = Arc::new(Seen::default());

    let (pre, post) = (Arc::clone(&seen), Arc::clone(&seen));
    let calls = Kprobe::at(FUNCTION)
        .pre_handler(move |_| {
            pre.calls.fetch_add(1, Ordering::Relaxed);
            Pre::GoOn
        })
        .post_handler(move |hit| post.after_first_instruction(hit));

    let back = Arc::clone(&seen);
    let returns = Kretprobe::at(FUNCTION)
        .maxactive(1024)
        .entry_handler(|hit, data| remember_path(hit, data).is_some())
        .handler(move |hit, data| back.returned(hit, data, keep));

    guest.register(calls)?;
    let returns = guest.register_kretprobe(returns)?;
    guest.on_exit(move || {
        let missed = guest.nmissed(returns).unwrap_or(0);
        eprint!("{}", seen.report(missed));
    });
    Ok(())
}

/// Leaves the second argument for the return. The path is read only then: at the entry its page may not be there yet.
fn remember_path(hit: &mut Hit<'_>, data: &mut [u8; DATA_BYTES]) -> Option<()> {
    let path = hit.argument(2)?;
    data.first_chunk_mut::<8>()?.copy_from_slice(&path.to_le_bytes());
    Some(())
}

impl Seen {
    fn after_first_instruction(&self, hit: &mut Hit<'_>) {
        let Some(next) = hit.next_pc() else { return };
        // In a post handler behind a call or a jump, `addr` is where that has led.
        let went = next.0.wrapping_sub(hit.addr().0);
        if went == 0 || went > LONGEST_INSTRUCTION {
            self.diverted.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn returned(&self, hit: &mut Hit<'_>, data: &[u8; DATA_BYTES], keep: usize) {
        let (Some(result), Some(latency)) = (hit.return_value(), hit.latency()) else { return };
        // An int, whatever the guest's registers hold: a file's number or a negated errno.
        let errno = (result as i32).min(0).unsigned_abs();
        // A handler may take a lock that is held for moments only, by other handlers and nobody else.
        let mut returned = self.returned.lock().unwrap_or_else(PoisonError::into_inner);
        *returned.results.entry(errno).or_insert(0) += 1;
        let is_slow =
            returned.slowest.len() < keep || returned.slowest.last().is_some_and(|(least, _)| latency > *least);
        if keep == 0 || !is_slow {
            return;
        }
        let path = data.first_chunk::<8>().map(|bytes| GuestAddr(u64::from_le_bytes(*bytes)));
        let path = path.and_then(|path| hit.user_string(path));
        // The guest is not trusted: what it calls a path may be anything.
        let path = path.map_or_else(|| "(fault)".to_owned(), |path| path.escape_ascii().to_string());
        let at = returned.slowest.partition_point(|(slower, _)| *slower >= latency);
        returned.slowest.insert(at, (latency, path));
        returned.slowest.truncate(keep);
    }

    fn report(&self, missed: u64) -> String {
        let returned = self.returned.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = format!("open_watch: {} calls", self.calls.load(Ordering::Relaxed));
        for (errno, count) in &returned.results {
            let _ = match errno {
                0 => write!(text, ", {count} opened"),
                errno => write!(text, ", {count} errno {errno}"),
            };
        }
        let diverted = self.diverted.load(Ordering::Relaxed);
        for (count, what) in [(missed, "not awaited"), (diverted, "while the guest itself traced it")] {
            if count != 0 {
                let _ = write!(text, ", {count} {what}");
            }
        }
        text.push_str("\nopen_watch: the slowest:\n");
        for (latency, path) in &returned.slowest {
            let _ = writeln!(text, "{:>12.1} us  {path}", *latency as f64 / 1000.0);
        }
        text
    }
}
