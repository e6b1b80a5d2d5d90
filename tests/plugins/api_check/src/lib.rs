//! A plugin for `tests/api.rs`: `x-do=NAME` chooses what it does, and it says on stderr what it saw, as `API key=value`.

use std::error::Error as StdError;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use qkprobe::{Error, Guest, GuestAddr, Kprobe, Kretprobe, Pre, Probe, ProbeHandle};

qkprobe::plugin!(set_up);

/// The functions of two system calls.
fn getppid(guest: &Guest) -> &'static str {
    match guest.arch() {
        "x86_64" => "__x64_sys_getppid",
        "i386" => "__ia32_sys_getppid",
        _ => "sys_getppid",
    }
}

fn getpid(guest: &Guest) -> &'static str {
    match guest.arch() {
        "x86_64" => "__x64_sys_getpid",
        "i386" => "__ia32_sys_getpid",
        _ => "sys_getpid",
    }
}

type Done = Result<(), Box<dyn StdError>>;

fn set_up(guest: &'static Guest) -> Done {
    match guest.arg("do").ok_or("x-do=: what?")? {
        "counts" => counts(guest),
        "errors" => errors(guest),
        "comes-and-goes" => comes_and_goes(guest),
        "hammer" => hammer(guest),
        "from-handler" => from_handler(guest),
        "panics" => panics(guest),
        "jumps" => jumps(guest),
        "fails" => guest.register(Kprobe::at("vfs_read").offset(1)).map(drop).map_err(Into::into),
        "set-up-panics" => panic!("asked for"),
        other => Err(format!("x-do={other}: unknown").into()),
    }
}

fn say(key: &str, value: impl std::fmt::Display) {
    eprintln!("API {key}={value}");
}

/// Counts of its own.
#[derive(Default)]
struct Tally([AtomicU64; 4]);

impl Tally {
    fn add(&self, index: usize) {
        self.0[index].fetch_add(1, Ordering::Relaxed);
    }

    fn get(&self, index: usize) -> u64 {
        self.0[index].load(Ordering::Relaxed)
    }
}

/// Pre, post and return handlers of one function.
fn counts(guest: &'static Guest) -> Done {
    let tally = Arc::new(Tally::default());
    let (pre, post, entry, back) = (Arc::clone(&tally), Arc::clone(&tally), Arc::clone(&tally), Arc::clone(&tally));
    let is_x86 = matches!(guest.arch(), "x86_64" | "i386");
    // On x86 the nop of __fentry__, 5 bytes, behind ENDBR if there is one: execution goes on right behind it.
    let first = if is_x86 { 5 } else { 4 };
    let probe = Kprobe::at(getppid(guest))
        .pre_handler(move |_| {
            pre.add(0);
            Pre::GoOn
        })
        .post_handler(move |hit| {
            if hit.next_pc() == Some(hit.addr().wrapping_add(first)) {
                post.add(1);
            }
        });
    let step = guest.register(probe)?;
    let is_sparc = guest.arch() == "sparc64";
    // The kernel's half of the addresses; on 32 bits, the last quarter.
    let top = if matches!(guest.arch(), "i386" | "ppc") { 3 << 30 } else { 1 << 63 };
    let returns = Kretprobe::at(getppid(guest))
        .entry_handler(move |hit, data| {
            // The entry code passes the address of the registers, but on sparc64, where it is where they lie.
            let argument = if is_sparc { hit.register("sp") } else { hit.argument(1) };
            let argument = argument.unwrap_or(0);
            data[..8].copy_from_slice(&argument.to_le_bytes());
            data[87] = 0xa5;
            entry.add(2);
            true
        })
        .handler(move |hit, data| {
            let mut pointer = [0; 8];
            pointer.copy_from_slice(&data[..8]);
            let is_kernel = u64::from_le_bytes(pointer) & top == top;
            // The script runs in init, whose parent is nobody: 0.
            let right = hit.return_value() == Some(0) && is_kernel && data[87] == 0xa5 && hit.latency().is_some();
            if right {
                back.add(3);
            }
        });
    let returns = guest.register_kretprobe(returns)?;
    let silent = guest.register(Kprobe::at(getppid(guest)).disabled().named("silent"))?;
    let only_counts = guest.register(Kprobe::at(getppid(guest)).named("only_counts"))?;
    guest.on_exit(move || {
        for (index, key) in ["pre", "post", "entry", "return"].iter().enumerate() {
            say(key, tally.get(index));
        }
        let hits = [step, returns, silent, only_counts].map(|handle| guest.hits(handle).ok());
        say("hits", format!("{hits:?}"));
        say("nmissed", format!("{:?}", guest.nmissed(returns).ok()));
        say("arch", guest.arch());
        say("args", format!("{:?}", guest.args()));
        let linked = guest.symbol(getppid(guest)).ok();
        say("slid", linked.and_then(|linked| guest.runtime(linked)) == linked);
    });
    Ok(())
}

fn told(result: Result<ProbeHandle, Error>) -> String {
    match result {
        Ok(_) => "ok".to_owned(),
        Err(error) => format!("{} {error}", error.errno()),
    }
}

fn errors(guest: &'static Guest) -> Done {
    say("unknown", told(guest.register(Kprobe::at("vfs_reaf"))));
    say("module", told(guest.register(Kprobe::at("nosuch:vfs_read"))));
    say("data", told(guest.register(Kprobe::at("jiffies"))));
    say("boundary", told(guest.register(Kprobe::at("vfs_read+1"))));
    say("offset", told(guest.register(Kprobe::at("vfs_read+x"))));
    say("outside", told(guest.register(Kprobe::at("vfs_read+0x7fffffff"))));
    say("entry", told(guest.register_kretprobe(Kretprobe::at("vfs_read").offset(9))));
    say("unique", told(guest.register(Kprobe::at("cpumask_weight"))));
    say("big", told(guest.register_kretprobe(Kretprobe::at("vfs_read").maxactive(4097))));
    say("none", told(guest.register_kretprobe(Kretprobe::at("vfs_read").maxactive(0))));
    say("name", told(guest.register(Kprobe::at("vfs_read").named("a b"))));
    say("post", told(guest.register(Kprobe::at("vfs_read").named("one").post_handler(|_| {}))));
    say("taken", told(guest.register(Kprobe::at("vfs_read").named("one"))));
    say("state", told(guest.register(Kprobe::at("vfs_read").changes_state())));
    say("flow", told(guest.register(Kprobe::at("vfs_read").changes_flow())));

    // All or none: the middle one is refused. Nobody else probes vfs_write.
    let good = || Kprobe::at("vfs_write").pre_handler(|_| panic!("nothing of a refused batch may run"));
    let batch = [Probe::from(good()), Kprobe::at("vfs_read").offset(1).into(), good().into()];
    let refused = guest.register_all(batch).map(|handles| handles.len());
    say("batch", refused.map_or_else(|error| error.errno().to_string(), |len| len.to_string()));
    let handles =
        guest.register_all([Kprobe::at(getpid(guest)), Kprobe::at(getppid(guest)), Kprobe::at(getppid(guest))])?;
    say("batch_ok", handles.len());

    // ENDBR: offset 0 and offset 4 are one place. A handle is good once.
    say("unregister", guest.unregister(handles[0]).is_ok());
    say("again", guest.unregister(handles[0]).map_err(|error| error.errno()).unwrap_err());
    say("hits_again", guest.hits(handles[0]).map_err(|error| error.errno()).unwrap_err());
    say("enable_again", guest.enable(handles[0]).map_err(|error| error.errno()).unwrap_err());
    let new = guest.register(Kprobe::at(getpid(guest)).named("new"))?;
    say("reused", guest.disable(handles[0]).is_ok() || new == handles[0]);
    say("all", guest.unregister_all([handles[0], handles[1], handles[1], handles[2]])?);
    guest.unregister(new)?;
    Ok(())
}

/// For what must come; the numbers tell if it did not.
fn wait_until(what: impl Fn() -> bool) {
    let start = Instant::now();
    while !what() && start.elapsed() < Duration::from_secs(100) {
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A thread registers and unregisters while the guest waits between counted calls, until it hears (`API ready=`) that the thread is
/// ready for the next ones.
fn comes_and_goes(guest: &'static Guest) -> Done {
    let base = Arc::new(Tally::default());
    let counted = Arc::clone(&base);
    guest.register(Kprobe::at(getppid(guest)).named("base").pre_handler(move |_| {
        counted.add(0);
        Pre::GoOn
    }))?;
    std::thread::spawn(move || {
        if let Err(error) = come_and_go(guest, &base) {
            say("failed", error);
        }
    });
    Ok(())
}

fn come_and_go(guest: &'static Guest, base: &Arc<Tally>) -> Done {
    let own = Arc::new(Tally::default());
    let probes = || {
        let (pre, post, entry, back) = (Arc::clone(&own), Arc::clone(&own), Arc::clone(&own), Arc::clone(&own));
        [
            Probe::from(
                Kprobe::at(getppid(guest))
                    .pre_handler(move |_| {
                        pre.add(0);
                        Pre::GoOn
                    })
                    .post_handler(move |_| post.add(1)),
            ),
            Kretprobe::at(getppid(guest))
                .entry_handler(move |_, _| {
                    entry.add(2);
                    true
                })
                .handler(move |_, _| back.add(3))
                .into(),
        ]
    };
    wait_until(|| base.get(0) == 1000);
    let start = Instant::now();
    let handles = guest.register_all(probes())?;
    say("register_ms", start.elapsed().as_millis());
    say("ready", "registered");
    // The return handler is the last that runs.
    wait_until(|| base.get(0) == 6000 && own.get(3) == 5000);
    guest.disable(handles[0])?;
    say("ready", "disabled");
    wait_until(|| base.get(0) == 6500 && own.get(3) == 5500);
    guest.enable(handles[0])?;
    say("ready", "enabled");
    wait_until(|| base.get(0) == 7500 && own.get(3) == 6500);
    let unregistering = Instant::now();
    let gone = guest.unregister_all(handles.iter().copied())?;
    // Its four closures were dropped: nobody but us has it.
    say("strong", Arc::strong_count(&own));
    say("unregister_ms", unregistering.elapsed().as_millis());
    say("gone", gone);
    let before = [0, 1, 2, 3].map(|index| own.get(index));
    say("own", format!("{before:?}"));
    say("ready", "unregistered");
    let (own, base) = (Arc::clone(&own), Arc::clone(base));
    guest.on_exit(move || {
        say("base", base.get(0));
        say("after", format!("{:?}", [0, 1, 2, 3].map(|index| own.get(index))));
    });
    Ok(())
}

/// A thread registers and unregisters as fast as it can while two vCPUs hit the place.
fn hammer(guest: &'static Guest) -> Done {
    let base = Arc::new(Tally::default());
    let counted = Arc::clone(&base);
    guest.register(Kprobe::at(getppid(guest)).named("base").pre_handler(move |_| {
        counted.add(0);
        Pre::GoOn
    }))?;
    std::thread::spawn(move || {
        wait_until(|| base.get(0) > 100);
        let (mut rounds, mut lost, mut late, mut held, mut seen) = (0, 0, 0, 0, 0);
        let start = Instant::now();
        while rounds < 60 {
            let own = Arc::new(Tally::default());
            let alive = Arc::new(AtomicBool::new(true));
            let (pre, still) = (Arc::clone(&own), Arc::clone(&alive));
            let Ok(handle) = guest.register(Kprobe::at(getppid(guest)).pre_handler(move |_| {
                pre.add(if still.load(Ordering::SeqCst) { 0 } else { 1 });
                Pre::GoOn
            })) else {
                break;
            };
            let first = base.get(0);
            std::thread::sleep(Duration::from_millis(3));
            let last = base.get(0);
            if guest.unregister(handle).is_err() {
                break;
            }
            alive.store(false, Ordering::SeqCst);
            held += u64::from(Arc::strong_count(&own) != 1 || Arc::strong_count(&alive) != 1);
            // A hit of each vCPU may have begun before `register` returned.
            lost += u64::from(own.get(0) + 2 < last - first);
            seen += own.get(0);
            std::thread::sleep(Duration::from_micros(200));
            late += own.get(1);
            rounds += 1;
        }
        say("hammer", format!("lost={lost} late={late} held={held}"));
        say("rounds", rounds);
        say("round_us", start.elapsed().as_micros() / rounds.max(1));
        say("seen", seen);
    });
    Ok(())
}

/// What a handler may not do.
fn from_handler(guest: &'static Guest) -> Done {
    let refused = Arc::new(Tally::default());
    let here = Arc::clone(&refused);
    let other = guest.register(Kprobe::at(getpid(guest)).named("other"))?;
    guest.register(Kprobe::at(getppid(guest)).named("asks").pre_handler(move |_| {
        let answers = [
            guest.register(Kprobe::at(getpid(guest))).map(drop),
            guest.register_kretprobe(Kretprobe::at(getpid(guest))).map(drop),
            guest.register_all([Kprobe::at(getpid(guest))]).map(drop),
            guest.unregister(other),
            guest.unregister_all([other]).map(drop),
            guest.enable(other),
            guest.disable(other),
            guest.hits(other).map(drop),
            guest.nmissed(other).map(drop),
        ];
        // 35: EDEADLK.
        if answers.iter().all(|answer| answer.as_ref().is_err_and(|error| error.errno() == 35)) {
            here.add(0);
        }
        if guest.symbol(getpid(guest)).is_ok() && guest.arg("do").is_some() && guest.arch() == "x86_64" {
            here.add(1);
        }
        Pre::GoOn
    }))?;
    guest.on_exit(move || {
        say("refused", refused.get(0));
        say("allowed", refused.get(1));
        say("other", format!("{:?}", guest.hits(other)));
    });
    Ok(())
}

/// One handler panics; the others go on.
fn panics(guest: &'static Guest) -> Done {
    let tally = Arc::new(Tally::default());
    let (bad, good) = (Arc::clone(&tally), Arc::clone(&tally));
    guest.register(Kprobe::at(getppid(guest)).named("good").pre_handler(move |_| {
        good.add(0);
        Pre::GoOn
    }))?;
    guest.register(Kprobe::at(getppid(guest)).named("bad").pre_handler(move |_| {
        bad.add(1);
        assert!(bad.get(1) < 100, "the hundredth hit");
        Pre::GoOn
    }))?;
    guest.on_exit(|| panic!("at exit"));
    guest.on_exit(move || {
        say("good", tally.get(0));
        say("bad", tally.get(1));
    });
    Ok(())
}

/// `getppid` is answered without being executed; where the place is an older probe, that one and post handlers see nothing.
fn jumps(guest: &'static Guest) -> Done {
    let tally = Arc::new(Tally::default());
    let (older, post) = (Arc::clone(&tally), Arc::clone(&tally));
    guest.register(
        Kprobe::at(getppid(guest))
            .named("older")
            .pre_handler(move |_| {
                older.add(0);
                Pre::GoOn
            })
            .post_handler(move |_| post.add(1)),
    )?;
    let jumped = Arc::clone(&tally);
    let jumps = Kprobe::at(getppid(guest)).named("jumps").changes_flow().pre_handler(move |hit| {
        let back = || {
            let sp = hit.register("sp")?;
            let caller = hit.word(GuestAddr(sp))?;
            (hit.set_return_value(4242) && hit.set_register("sp", sp.wrapping_add(8))).then_some(caller)
        };
        match { back }() {
            Some(caller) => {
                jumped.add(2);
                Pre::JumpTo(GuestAddr(caller))
            }
            None => Pre::GoOn,
        }
    });
    if let Err(error) = guest.register(jumps) {
        say("refused", format!("{} {error}", error.errno()));
    }
    guest.on_exit(move || {
        say("older", tally.get(0));
        say("post", tally.get(1));
        say("jumped", tally.get(2));
    });
    Ok(())
}
