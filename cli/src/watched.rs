//! This crate's own probes: where they stand, what they saw, and how a guest ended, in words.
//!
//! They are reserved (`watch=` of the plugin): no client of the control socket sees or changes them.

use std::time::Instant;

use qkprobe_symbols::{KernelImage, Lookup};

use crate::escape;
use crate::event::Event;
use crate::guest::End;
use crate::summary::Summary;

/// The group of this crate's own probes.
pub const WATCH_GROUP: &str = "qkprobe_watch";
/// The event, and the kernel's functions, of which an image has some.
const WATCHED: [(&str, &[&str]); 4] = [
    (START, &["start_kernel"]),
    (PANIC, &["panic", "vpanic", "nmi_panic"]),
    ("oops", &["oops_enter"]),
    // sparc64 has neither of the former.
    ("die", &["die", "__die", "die_if_kernel"]),
];
const START: &str = "start";
const PANIC: &str = "panic";
/// The first argument of `panic`, a format.
const PANIC_FORMAT: &str = "format=+0($arg1):string";

/// What the kernel says before the text of a panic.
const PANIC_LINE: &str = "Kernel panic - not syncing: ";

/// The plugin's arguments, as far as the image has their places.
pub(crate) fn arguments(image: &KernelImage) -> Vec<String> {
    let mut args = Vec::new();
    for (event, functions) in WATCHED {
        for function in functions {
            let Lookup::One(symbol) = image.symbols.lookup(None, function) else { continue };
            if !symbol.text {
                continue;
            }
            // Definitions that share an event must have the same arguments.
            let fetch = if event == PANIC { format!(" {PANIC_FORMAT}") } else { String::new() };
            args.push(format!("watch=p:{WATCH_GROUP}/{event} {function}{fetch}"));
        }
    }
    args
}

/// Whether the kernel's start is among them.
pub(crate) fn sees_start(image: &KernelImage) -> bool {
    matches!(image.symbols.lookup(None, "start_kernel"), Lookup::One(symbol) if symbol.text)
}

/// Something that happened to the guest's kernel.
#[derive(Clone, Debug)]
pub struct Seen {
    /// When this side heard of it.
    pub at: Instant,
    /// Seconds since QEMU made the machine.
    pub time: f64,
    /// Of a panic its format, of an oops the place.
    pub text: String,
}

/// What this crate's own probes saw.
#[derive(Clone, Debug, Default)]
pub struct Watched {
    /// How often the kernel started.
    pub starts: u64,
    /// The first panic.
    pub panic: Option<Seen>,
    /// The first oops.
    pub oops: Option<Seen>,
}

impl Watched {
    pub(crate) fn note(&mut self, event: &Event) {
        let seen = |text: &str| Seen { at: Instant::now(), time: event.time, text: escape::line(text.as_bytes()) };
        match event.event.as_str() {
            START => self.starts += 1,
            PANIC => {
                let format = event.text("format").unwrap_or_default();
                self.panic.get_or_insert_with(|| seen(format.trim_end()));
            }
            _ => {
                self.oops.get_or_insert_with(|| seen(&event.place));
            }
        }
    }

    /// What the summary counts and no event told: a QEMU that ends sends what it can.
    pub(crate) fn complete(&mut self, summary: &Summary) {
        let hits =
            |event| summary.watched.iter().filter(|probe| probe.name == event).map(|probe| probe.hits).sum::<u64>();
        self.starts = self.starts.max(hits(START));
        if hits(PANIC) > 0 {
            self.panic.get_or_insert_with(|| Seen { at: Instant::now(), time: 0.0, text: "(untold)".to_owned() });
        }
    }

    /// The panic in words: the text that the console shows of it, else its format.
    pub(crate) fn panic_text(&self, console: &str) -> Option<String> {
        let Seen { time, text, .. } = self.panic.as_ref()?;
        let shown = console.split(PANIC_LINE).nth(1).and_then(|rest| rest.lines().next());
        let shown = shown.map(|line| escape::console_line(line.as_bytes()));
        Some(format!("panic at {time:.3} s: {}", shown.as_deref().unwrap_or(text)))
    }

    /// The oops in words.
    pub(crate) fn oops_text(&self) -> Option<String> {
        let Seen { time, text, .. } = self.oops.as_ref()?;
        Some(format!("the guest's kernel had an oops at {time:.3} s ({text})"))
    }
}

/// What is known of a guest that has ended.
pub(crate) struct Ended<'a> {
    pub(crate) end: End,
    pub(crate) watched: &'a Watched,
    pub(crate) console: &'a str,
    /// Whether the watched start of the kernel would have been seen.
    pub(crate) sees_start: bool,
    pub(crate) has_initrd: bool,
}

impl Ended<'_> {
    /// How the guest ended and why, as far as that can be told: one line.
    pub(crate) fn tell(&self) -> String {
        let Self { end, watched, console, .. } = self;
        let never_started = self.sees_start && watched.starts == 0;
        let mut text = match (end, watched.panic_text(console)) {
            (End::PowerOff, _) => "the guest turned its power off".to_owned(),
            (End::Reset, Some(panic)) => format!("the guest's kernel panicked and rebooted: {panic}{}", self.advice()),
            (End::Reset, None) if never_started => {
                "the machine was reset before the kernel had started: it may have too little memory for it".to_owned()
            }
            (End::Reset, None) => "the guest rebooted".to_owned(),
            (End::Quit { status, by: Some(probe) }, _) => format!("the probe {probe} ended QEMU with status {status}"),
            (End::Quit { status, by: None }, _) => format!("a client ended QEMU with status {status}"),
            (End::Exit(status), _) => format!("QEMU failed: it exited with status {status} by itself"),
            (End::Killed(signal), _) => format!("QEMU was killed by {}", signal_name(*signal)),
            (End::Ended, Some(panic)) => format!("the guest's kernel had panicked: {panic}{}", self.advice()),
            (End::Ended, None) if never_started => "the kernel had not started".to_owned(),
            (End::Ended, None) => "the guest was running".to_owned(),
        };
        if let Some(oops) = watched.oops_text().filter(|_| watched.panic.is_none()) {
            text += &format!("; before that {oops}");
        }
        text
    }

    /// What to do about a panic that the start of user space brings.
    fn advice(&self) -> &'static str {
        let says = |text| self.console.contains(text);
        if says("Unable to mount root fs") && !self.has_initrd {
            " (the guest has no --initrd and no --init to start from)"
        } else if says("Unable to mount root fs") {
            " (the kernel could not unpack the initrd, or found no /init in it)"
        } else if says("No working init found") || says("Requested init ") {
            " (/init of the initrd is no program that this kernel can run)"
        } else if says("Attempted to kill init!") {
            " (/init ended, or died: see what it wrote last)"
        } else {
            ""
        }
    }
}

/// `signal 9 (SIGKILL)`.
pub(crate) fn signal_name(signal: i32) -> String {
    let names = [
        (libc::SIGABRT, "SIGABRT: it gave up by abort()"),
        (libc::SIGSEGV, "SIGSEGV"),
        (libc::SIGBUS, "SIGBUS"),
        (libc::SIGILL, "SIGILL"),
        (libc::SIGFPE, "SIGFPE"),
        (libc::SIGKILL, "SIGKILL: by somebody, or for want of memory"),
        (libc::SIGTERM, "SIGTERM"),
        (libc::SIGINT, "SIGINT"),
        (libc::SIGHUP, "SIGHUP"),
        (libc::SIGQUIT, "SIGQUIT"),
        (libc::SIGPIPE, "SIGPIPE"),
        (libc::SIGXCPU, "SIGXCPU"),
        (libc::SIGXFSZ, "SIGXFSZ"),
    ];
    let name = names.iter().find(|(number, _)| *number == signal);
    name.map_or_else(|| format!("signal {signal}"), |(_, name)| format!("signal {signal} ({name})"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::tests::image;

    #[test]
    fn the_panic_path_of_this_kernel_is_watched() {
        assert_eq!(
            arguments(&image(&["start_kernel", "vpanic", "oops_enter"])),
            [
                "watch=p:qkprobe_watch/start start_kernel",
                "watch=p:qkprobe_watch/panic vpanic format=+0($arg1):string",
                "watch=p:qkprobe_watch/oops oops_enter"
            ]
        );
        assert!(arguments(&image(&[])).is_empty());
    }

    fn tell(end: End, events: &[(&str, &str)], console: &str) -> String {
        let mut watched = Watched::default();
        for (event, args) in events {
            let line = format!(
                r#"{{"type":"event","time":1.5,"cpu":0,"group":"qkprobe_watch","event":"{event}","place":"f+0x0/0x9","args":{args}}}"#
            );
            watched.note(&Event::parse(&line).expect("an event"));
        }
        Ended { end, watched: &watched, console, sees_start: true, has_initrd: false }.tell()
    }

    #[test]
    fn every_end_has_its_words() {
        let start = ("start", "{}");
        let panic = ("panic", r#"{"format":"VFS: %s\n"}"#);
        let root = "[1.0] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)\n";
        let quit = |by: Option<&str>| End::Quit { status: 33, by: by.map(str::to_owned) };
        for (end, events, console, wanted) in [
            (End::PowerOff, vec![start], "", "the guest turned its power off"),
            (
                End::PowerOff,
                vec![start, ("oops", "{}")],
                "",
                "the guest turned its power off; before that the guest's kernel had an oops at 1.500 s (f+0x0/0x9)",
            ),
            (
                End::Reset,
                vec![start, panic],
                root,
                "the guest's kernel panicked and rebooted: panic at 1.500 s: VFS: Unable to mount root fs on \
                 unknown-block(0,0) (the guest has no --initrd and no --init to start from)",
            ),
            (End::Reset, vec![start, panic], "", "the guest's kernel panicked and rebooted: panic at 1.500 s: VFS: %s"),
            (End::Reset, vec![start], "", "the guest rebooted"),
            (
                End::Reset,
                vec![],
                "",
                "the machine was reset before the kernel had started: it may have too little memory for it",
            ),
            (quit(Some("kprobes/x")), vec![start], "", "the probe kprobes/x ended QEMU with status 33"),
            (quit(None), vec![start], "", "a client ended QEMU with status 33"),
            (End::Exit(1), vec![start], "", "QEMU failed: it exited with status 1 by itself"),
            (
                End::Killed(9),
                vec![start],
                "",
                "QEMU was killed by signal 9 (SIGKILL: by somebody, or for want of memory)",
            ),
            (End::Killed(6), vec![start], "", "QEMU was killed by signal 6 (SIGABRT: it gave up by abort())"),
            (End::Ended, vec![start], "", "the guest was running"),
            (End::Ended, vec![], "", "the kernel had not started"),
            (End::Ended, vec![start, panic], "", "the guest's kernel had panicked: panic at 1.500 s: VFS: %s"),
        ] {
            assert_eq!(tell(end, &events, console), wanted);
        }
    }
}
