//! QEMU's gdbstub without a gdb: a new machine has none.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::PATIENCE;
use qkprobe_tests::{GuestArch, Running};

/// gdb's remote protocol, as much of it as is needed.
pub(crate) struct Gdb(UnixStream);

impl Gdb {
    /// Connects, which stops the machine.
    pub(crate) fn connect(running: &Running) -> Self {
        let stream = UnixStream::connect(running.folder().join("gdb.sock")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(stream)
    }

    /// One packet there, and the reply to it.
    #[track_caller]
    pub(crate) fn ask(&mut self, text: &str) -> String {
        let sum = text.bytes().fold(0u8, u8::wrapping_add);
        write!(self.0, "${text}#{sum:02x}").unwrap();
        self.reply(text)
    }

    #[track_caller]
    fn reply(&mut self, text: &str) -> String {
        let mut byte = || {
            let mut byte = [0];
            self.0.read_exact(&mut byte).unwrap_or_else(|error| panic!("{text}: {error}"));
            byte[0]
        };
        while byte() != b'$' {}
        let reply: Vec<u8> = std::iter::from_fn(|| Some(byte()).filter(|byte| *byte != b'#')).collect();
        let _ = (byte(), byte());
        self.0.write_all(b"+").unwrap();
        String::from_utf8(reply).unwrap()
    }

    /// A machine that stops while a vCPU is held stops at the instruction; or in the timer's handler, if its interrupt came in the
    /// millisecond before: then it goes on, the handler returns to the instruction, and it is stopped again. `pc` is gdb's number of
    /// the program counter.
    #[track_caller]
    pub(crate) fn stop_at(&mut self, arch: GuestArch, pc: u32, held_at: u64, what: &str) {
        let (mut seen, start) = (Vec::new(), Instant::now());
        while start.elapsed() < PATIENCE {
            let pc = self.register(arch, pc);
            if pc == held_at {
                return;
            }
            seen.push(pc);
            self.go_on_and_stop();
        }
        panic!("{what}: never at {held_at:#x}: {seen:#x?}");
    }

    /// Lets the machine run for a moment.
    fn go_on_and_stop(&mut self) {
        self.0.write_all(b"$c#63").unwrap();
        std::thread::sleep(Duration::from_millis(17));
        self.0.write_all(&[3]).unwrap();
        let reply = self.reply("c");
        assert!(reply.starts_with("T02"), "{reply}");
    }

    /// A register of the first vCPU.
    #[track_caller]
    pub(crate) fn register(&mut self, arch: GuestArch, number: u32) -> u64 {
        // QEMU answers for one register only to who knows the description of all.
        self.ask("qXfer:features:read:target.xml:0,10");
        let text = self.ask(&format!("p{number:x}"));
        let bytes: Vec<&str> = (0..text.len() / 2).map(|at| &text[2 * at..2 * at + 2]).collect();
        let is_little = matches!(arch, GuestArch::X86_64 | GuestArch::I386 | GuestArch::Ppc64le);
        let digits: String = if is_little { bytes.into_iter().rev().collect() } else { bytes.concat() };
        u64::from_str_radix(&digits, 16).unwrap_or_else(|error| panic!("register {number}: {text:?}: {error}"))
    }
}
