//! Ends and outputs that go wrong: kills, full disks, readers that leave. The guest lives on, what is written can be
//! read line by line, and every hit is accounted for.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use qkprobe_harness::control::Control;
use qkprobe_harness::initramfs::Initramfs;
use qkprobe_tests::{
    Boot, Cache, Gate, GuestKernel, PATIENCE, Qemu, Running, Signal, Summary, gate, gate_device, plugin_path,
};
use tempfile::TempDir;

const KERNEL: GuestKernel = GuestKernel::X86_64Cloud6_1;

/// The probe of these tests; the record's name of its place is the first of several.
const PROBE: &str = "probe=p:x __x64_sys_getppid sp=%sp";
const PLACE: &str = "(__do_sys_getppid+0x0/0x40)";
/// What of it stands once in each record, whatever the format.
const PLACE_NAME: &str = "__do_sys_getppid+";

/// A QEMU that the shell starts, for what [`Boot`] does not offer: limits, closed descriptors. 512 MB, one vCPU.
struct Machine {
    folder: TempDir,
    child: Child,
}

/// What a [`Machine`] left.
struct Left {
    status: ExitStatus,
    console: String,
    stderr: String,
    folder: TempDir,
}

fn machine_folder() -> TempDir {
    tempfile::Builder::new().prefix("qkprobe-robust-").tempdir().unwrap()
}

impl Machine {
    /// `exec` is a command line of the shell in which `"$@"` stands for QEMU. In QEMU's folder are `console` and
    /// `stderr`, if the command line does not direct them elsewhere.
    fn start(folder: TempDir, qemu: Qemu, exec: &str, script: &[&str], plugin_args: &[&str]) -> Self {
        let cache = Cache::open().unwrap();
        let path = |name: &str| folder.path().join(name);
        let script = script.iter().map(|line| format!("{line}\n")).collect::<String>();
        let init = fs::read(cache.initramfs(KERNEL.arch()).unwrap()).unwrap();
        let script = Initramfs::new().file("/qk.script", 0o644, script.as_bytes());
        fs::write(path("initrd"), script.append_to(init).unwrap()).unwrap();
        let plugin = format!("{},{}", plugin_path().unwrap().display(), plugin_args.join(","));
        let child = Command::new("sh")
            .args(["-c", exec, "sh"])
            .arg(cache.qemu(qemu, "qemu-system-x86_64").unwrap())
            .args(["-M", "pc", "-cpu", "max", "-accel", "tcg", "-m", "512M", "-nodefaults", "-nographic"])
            .args(["-no-reboot", "-serial", "stdio", "-append", "console=ttyS0 panic=-1 quiet", "-initrd", "initrd"])
            .arg("-kernel")
            .arg(cache.kernel(KERNEL).unwrap())
            .args([
                "-plugin",
                &plugin,
                "-chardev",
                &format!("{},id=gates", gate_device(false)),
                "-serial",
                "chardev:gates",
            ])
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(fs::File::create(path("console")).unwrap())
            .stderr(fs::File::create(path("stderr")).unwrap())
            .spawn()
            .unwrap();
        Self { folder, child }
    }

    fn text(&self, name: &str) -> String {
        let bytes = fs::read(self.folder.path().join(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Waits until `text` is in a file of its folder.
    #[track_caller]
    fn wait_for(&self, name: &str, text: &str) {
        let start = Instant::now();
        while !self.text(name).contains(text) {
            assert!(
                start.elapsed() < PATIENCE,
                "no {text:?} in {name}: {}{}",
                self.text("console"),
                self.text("stderr")
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Opens a gate of the script, and waits until `text` is on the console.
    #[track_caller]
    fn open(&mut self, name: &str, text: &str) {
        let over = |child: &mut Child| child.try_wait().unwrap().map(|status| status.to_string());
        let child = std::cell::RefCell::new(&mut self.child);
        let mut gates = Gate::within(self.folder.path(), || over(&mut child.borrow_mut()));
        let console = self.folder.path().join("console");
        let seen = || String::from_utf8_lossy(&fs::read(&console).unwrap()).contains(text);
        assert!(gates.open_until(name, seen), "no {text:?} behind gate {name}");
    }

    #[track_caller]
    fn finish(mut self) -> Left {
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if start.elapsed() > PATIENCE {
                self.child.kill().unwrap();
                break self.child.wait().unwrap();
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let text = |name: &str| String::from_utf8_lossy(&fs::read(self.folder.path().join(name)).unwrap()).into_owned();
        Left { status, console: text("console").replace('\r', ""), stderr: text("stderr"), folder: self.folder }
    }
}

impl Left {
    /// The guest did its script and QEMU ended well.
    #[track_caller]
    fn assert_ok(&self) {
        let Self { status, console, stderr, .. } = self;
        assert!(status.success() && console.contains("QK end\n"), "{status}\n{console}\n{stderr}");
        assert!(!console.contains(" FAIL ") && !stderr.contains("panicked"), "{console}\n{stderr}");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// What `summary=` says beyond [`Summary`].
fn totals(folder: &Path) -> (Summary, u64, u64) {
    let text = fs::read_to_string(folder.join("summary.json")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text:?}"));
    let number = |key: &str| json[key].as_u64().unwrap_or_else(|| panic!("no {key} in {text}"));
    (serde_json::from_str(&text).unwrap(), number("written"), number("lost"))
}

/// Whether a line is a whole record of [`PROBE`].
fn is_record(line: &str) -> bool {
    let Some((head, text)) = line.split_once(": x: ") else { return false };
    let Some(rest) = text.strip_prefix(PLACE).and_then(|rest| rest.strip_prefix(" sp=0xff")) else { return false };
    head.starts_with("           <...>-0       [000] ..... ")
        && rest.len() == 14
        && u64::from_str_radix(rest, 16).is_ok()
}

/// Checks a trace whose last line may be cut; returns the number of whole records.
#[track_caller]
fn whole_records(trace: &str) -> usize {
    let whole = trace.rfind('\n').map_or("", |end| &trace[..end]);
    let lines: Vec<&str> = whole.lines().filter(|line| !line.starts_with('#')).collect();
    let bad = lines.iter().find(|line| !is_record(line));
    assert_eq!(bad, None);
    lines.len()
}

/// Waits until the trace has so many whole records.
#[track_caller]
fn wait_for_records(running: &Running, count: usize) {
    let start = Instant::now();
    let records = || {
        let trace = fs::read(running.folder().join("trace")).unwrap_or_default();
        let whole = trace.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        String::from_utf8_lossy(&trace[..whole]).matches(PLACE_NAME).count()
    };
    while records() < count {
        assert!(start.elapsed() < PATIENCE, "the trace does not grow: {}", running.console());
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn endless(qemu: Qemu, format: &str) -> Running {
    Boot::new(qemu, KERNEL)
        .append("quiet")
        .script(["getppid 2000000000"])
        .plugin_arg(PROBE)
        .plugin_arg("count=p:counted __x64_sys_getppid")
        .plugin_arg(format!("format={format}"))
        .spawn()
        .unwrap()
}

#[test]
fn killed_in_the_middle_of_a_trace() {
    for qemu in Qemu::selected() {
        let mut running = endless(qemu, "ftrace");
        wait_for_records(&running, 5000);
        running.signal(Signal::Kill).unwrap();
        let result = running.finish().unwrap();
        assert!(whole_records(&result.trace) >= 5000, "{qemu}");
        assert!(!result.trace.contains("# end:"), "{qemu}");
        assert!(result.trace.contains(
            "# Records reach this file within 0.1 s. A file without \"# end\" as its last line was cut short.\n"
        ));
    }
    let mut running = endless(Qemu::V11_1, "json");
    wait_for_records(&running, 5000);
    running.signal(Signal::Kill).unwrap();
    let result = running.finish().unwrap();
    let whole = result.trace.rfind('\n').map_or("", |end| &result.trace[..end]);
    let types: Vec<String> = whole
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .map(|value| value["type"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(types[0], "start");
    assert!(types.len() > 5000 && types[1..].iter().all(|kind| kind == "event"), "{}", types.len());
}

/// What a guest that sleeps had hit reaches the file, though no later record takes it there.
#[test]
fn a_kill_loses_nothing_that_is_older_than_a_moment() {
    for qemu in Qemu::selected() {
        let mut running = Boot::new(qemu, KERNEL)
            .append("quiet")
            .script(["getppid 777", "sleep 1000000"])
            .plugin_arg(PROBE)
            .spawn()
            .unwrap();
        wait_for_records(&running, 777);
        running.signal(Signal::Kill).unwrap();
        let result = running.finish().unwrap();
        assert_eq!(whole_records(&result.trace), 777, "{qemu}");
        assert!(result.trace.ends_with('\n'));
    }
}

#[test]
fn polite_signals_drain_and_sum_up() {
    for qemu in Qemu::selected() {
        for signal in [Signal::Terminate, Signal::Interrupt, Signal::HangUp] {
            let mut running = endless(qemu, "ftrace");
            wait_for_records(&running, 5000);
            running.signal(signal).unwrap();
            let result = running.finish().unwrap();
            assert!(result.status.success(), "{qemu}, {signal:?}: {}\n{}", result.status, result.stderr);
            let records = whole_records(&result.trace);
            assert!(records >= 5000, "{qemu}, {signal:?}: {records}");
            let (summary, written, lost) = totals(result.folder());
            let last = format!("# end: {records} records written, 0 lost\n");
            assert!(result.trace.ends_with(&last), "{qemu}, {signal:?}: {records}, {written}, {lost}");
            let counts = (summary.probe("x").hits, summary.probe("counted").hits, written, lost);
            let records = records as u64;
            assert_eq!(counts, (records, records, records, 0), "{qemu}, {signal:?}");
        }
    }
}

#[test]
fn no_byte_can_be_written() {
    for qemu in Qemu::selected() {
        let machine = Machine::start(machine_folder(), qemu, "exec \"$@\"", &["getppid 1"], &["out=/dev/full", PROBE]);
        let left = machine.finish();
        assert!(!left.status.success());
        assert_eq!(left.console, "");
        let says = "qkprobe: error: out=/dev/full: cannot write: No space left on device (os error 28)\n";
        assert!(left.stderr.starts_with(says), "{}", left.stderr);
    }
}

/// Hits are written or lost; what is written is in the file; the user was told when and, at the end, how many.
#[track_caller]
fn assert_accounted(left: &Left, records: usize, hits: u64, error: &str) {
    let (summary, written, lost) = totals(left.folder.path());
    let x = summary.probe("x");
    assert_eq!((x.hits, summary.probe("counted").hits, x.missed), (hits, hits, 0), "{}", left.stderr);
    assert_eq!((written, written + lost, x.dropped), (records as u64, hits, lost), "{}", left.stderr);
    assert!(lost > 0, "{}", left.stderr);
    for line in [
        format!("{error}; records are lost from here on until it can be written again\n"),
        format!("{lost} records could not be written to "),
        format!("qkprobe: {lost} records were lost\n"),
    ] {
        assert!(left.stderr.contains(&line), "{line}: {}", left.stderr);
    }
}

/// A limit of 64 KB to files is a disk of that size.
#[test]
fn the_file_cannot_grow_any_more() {
    for qemu in Qemu::selected() {
        let exec = "trap '' XFSZ; ulimit -f 128; exec \"$@\"";
        let args = ["out=trace", "summary=summary.json", PROBE, "count=p:counted __x64_sys_getppid"];
        let left = Machine::start(machine_folder(), qemu, exec, &["getppid 20000"], &args).finish();
        left.assert_ok();
        let trace = fs::read_to_string(left.path("trace")).unwrap();
        assert_eq!(trace.len(), 65_536);
        assert_accounted(&left, whole_records(&trace), 20_000, "trace: File too large (os error 27)");
    }
}

/// A small file system that is full for a while. Who may not mount one has a limit to files instead, which goes up later.
#[test]
fn the_disk_is_full_and_then_is_not() {
    let folder = machine_folder();
    let disk = folder.path().join("disk");
    fs::create_dir(&disk).unwrap();
    let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=256k", "qkprobe"]).arg(&disk).output();
    let mounted = mount.is_ok_and(|output| output.status.success()).then(|| Unmount(disk.clone()));
    let ballast = disk.join("ballast");
    fs::write(&ballast, vec![0; 128 << 10]).unwrap();
    let (exec, error) = match mounted {
        Some(_) => ("exec \"$@\"", "trace: No space left on device (os error 28)"),
        None => ("trap '' XFSZ; ulimit -S -f 256; exec \"$@\"", "trace: File too large (os error 27)"),
    };
    let args = ["out=disk/trace", "summary=summary.json", "control=sock", PROBE, "count=p:counted __x64_sys_getppid"];
    let script = ["getppid 2000", "say full", &gate("room"), "getppid 100", "say done"];
    let mut machine = Machine::start(folder, Qemu::V11_1, exec, &script, &args);
    machine.wait_for("console", "ok say full");
    machine.wait_for("stderr", "; records are lost from here on");
    wait_for_accounted(&machine, "disk/trace", 2000);
    // The writer tries again half a second after its last failure.
    std::thread::sleep(Duration::from_secs(1));
    if mounted.is_some() {
        fs::remove_file(ballast).unwrap();
    } else {
        let pid = machine.child.id().to_string();
        assert!(Command::new("prlimit").args(["--pid", &pid, "--fsize=unlimited:"]).status().unwrap().success());
    }
    machine.open("room", "ok say done");
    let left = machine.finish();
    left.assert_ok();
    let trace = fs::read_to_string(disk.join("trace")).unwrap();
    let torn: Vec<&str> = trace.lines().filter(|line| !line.starts_with('#') && !is_record(line)).collect();
    assert!(torn.len() <= 1, "{torn:?}");
    let records = trace.lines().filter(|line| is_record(line)).count();
    assert_accounted(&left, records, 2100, error);
    let lost = 2100 - records;
    assert_eq!(trace.matches(&format!("# lost: {lost} records could not be written\n")).count(), 1, "{trace}");
    assert!(trace.ends_with(&format!("# end: {records} records written, {lost} lost\n")));
    let behind = trace.rfind("# lost: ").unwrap();
    assert_eq!(trace[behind..].lines().filter(|line| is_record(line)).count(), 100);
}

/// Waits until so many hits are written or lost.
#[track_caller]
fn wait_for_accounted(machine: &Machine, trace: &str, count: u64) {
    let start = Instant::now();
    let socket = UnixStream::connect(machine.folder.path().join("sock")).unwrap();
    let mut control = Control::over(socket).unwrap();
    control.greet().unwrap();
    let mut accounted = || {
        let profile = control.request(serde_json::json!({"cmd": "profile"})).unwrap();
        let records = machine.text(trace).lines().filter(|line| is_record(line)).count();
        profile["probes"][0]["dropped"].as_u64().unwrap() + records as u64
    };
    while accounted() < count {
        assert!(start.elapsed() < PATIENCE, "not {count}: {}", machine.text("stderr"));
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Unmounts, however the test ends.
struct Unmount(PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Nothing can be told; all the rest is as always.
#[track_caller]
fn assert_silent_but_right(qemu: Qemu, how: &str, folder: TempDir) {
    let args = ["out=trace", "summary=summary.json", PROBE, "count=p:counted __x64_sys_getppid"];
    let exec = format!("exec \"$@\" {how}");
    let left = Machine::start(folder, qemu, &exec, &["getppid 500"], &args).finish();
    left.assert_ok();
    let trace = fs::read_to_string(left.path("trace")).unwrap();
    assert_eq!(whole_records(&trace), 500, "{qemu}");
    assert!(trace.ends_with("# end: 500 records written, 0 lost\n"), "{qemu}: {trace}");
    let (summary, written, lost) = totals(left.folder.path());
    assert_eq!((summary.probe("x").hits, summary.probe("counted").hits, written, lost), (500, 500, 500, 0));
    assert!(!left.console.contains("qkprobe"), "{}", left.console);
}

#[test]
fn standard_error_is_closed() {
    for qemu in Qemu::selected() {
        assert_silent_but_right(qemu, "2>&-", machine_folder());
    }
}

#[test]
fn standard_error_is_full() {
    for qemu in Qemu::selected() {
        assert_silent_but_right(qemu, "2>/dev/full", machine_folder());
    }
}

/// `qemu 2>&1 | head`, and head has seen enough.
#[test]
fn standard_error_is_a_pipe_without_a_reader() {
    for qemu in Qemu::selected() {
        let folder = machine_folder();
        let fifo = folder.path().join("fifo");
        make_fifo(&fifo);
        let reader = std::thread::spawn(move || drop(fs::File::open(fifo).unwrap()));
        assert_silent_but_right(qemu, "2>fifo", folder);
        reader.join().unwrap();
    }
}

/// Something has to be said in the middle of the guest's life, and cannot be.
#[test]
fn a_message_that_cannot_be_told_does_not_end_the_guest() {
    for qemu in Qemu::selected() {
        let other = Cache::open().unwrap().kernel(GuestKernel::X86_64Cloud6_12).unwrap();
        let kernel = format!("kernel={}", other.display());
        let args = ["out=trace", "summary=summary.json", &kernel, PROBE];
        let left = Machine::start(machine_folder(), qemu, "exec \"$@\" 2>/dev/full", &["getppid 5"], &args).finish();
        left.assert_ok();
        let text = fs::read_to_string(left.path("summary.json")).unwrap();
        assert!(text.contains("the guest runs another kernel"), "{qemu}: {text}");
    }
}

fn make_fifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

/// `out=` is a pipe whose reader takes ten records and leaves.
#[test]
fn the_reader_of_a_pipe_leaves() {
    for qemu in Qemu::selected() {
        let folder = machine_folder();
        let fifo = folder.path().join("fifo");
        make_fifo(&fifo);
        let reader = std::thread::spawn(move || {
            let lines = BufReader::with_capacity(1, fs::File::open(fifo).unwrap()).lines();
            lines.map(Result::unwrap).filter(|line| !line.starts_with('#')).take(10).collect::<Vec<_>>()
        });
        let args = ["out=fifo", "summary=summary.json", PROBE, "count=p:counted __x64_sys_getppid"];
        let script = ["getppid 100", &gate("gone"), "getppid 20000", "say done"];
        let mut machine = Machine::start(folder, qemu, "exec \"$@\"", &script, &args);
        let lines = reader.join().unwrap();
        machine.open("gone", "ok say done");
        let left = machine.finish();
        left.assert_ok();
        assert!(lines.len() == 10 && lines.iter().all(|line| is_record(line)), "{lines:?}");
        let (_, written, _) = totals(left.folder.path());
        // What a pipe takes is written, whether or not anybody reads it.
        assert_accounted(&left, written as usize, 20_100, "fifo: Broken pipe (os error 32)");
        assert!(written <= 100, "{qemu}: {written}");
    }
}

/// The reader of a pipe stands still, and the user wants no vCPU to wait for it.
#[test]
fn the_reader_of_a_pipe_stands_still() {
    let folder = machine_folder();
    let fifo = folder.path().join("fifo");
    make_fifo(&fifo);
    let (done, wait) = std::sync::mpsc::channel::<()>();
    let reader = std::thread::spawn(move || {
        let mut file = fs::File::open(fifo).unwrap();
        let mut head = [0; 100];
        file.read_exact(&mut head).unwrap();
        let _ = wait.recv();
        head
    });
    let args = ["out=fifo", "summary=summary.json", "backpressure=drop", PROBE, "count=p:counted __x64_sys_getppid"];
    let left = Machine::start(folder, Qemu::V11_1, "exec \"$@\"", &["getppid 100000"], &args).finish();
    done.send(()).unwrap();
    assert!(reader.join().unwrap().starts_with(b"# tracer: qkprobe "));
    left.assert_ok();
    let (summary, written, lost) = totals(left.folder.path());
    let x = summary.probe("x");
    assert_eq!((x.hits, summary.probe("counted").hits), (100_000, 100_000));
    assert_eq!(written + x.dropped, 100_000, "{lost} lost: {}", left.stderr);
    assert!(left.stderr.contains("qkprobe: records could not be written within 10 s: "), "{}", left.stderr);
}

/// `summary=` may name anything that can be written to; it stays what it is.
#[test]
fn a_summary_through_a_link_does_not_replace_the_link() {
    let folder = machine_folder();
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(folder.path().join("summary.json"), &link).unwrap();
    let args = ["out=trace", "summary=link", PROBE];
    let left = Machine::start(folder, Qemu::V11_1, "exec \"$@\"", &["getppid 5"], &args).finish();
    left.assert_ok();
    let (summary, written, _) = totals(left.folder.path());
    assert_eq!((summary.probe("x").hits, written), (5, 5));
    assert!(fs::symlink_metadata(left.path("link")).unwrap().is_symlink());
}
