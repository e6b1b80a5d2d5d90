//! What the tests of the command share: the program, with folders of its own, so that whatever it leaves behind is found.
#![allow(dead_code, reason = "each test program uses its part")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use qkprobe_harness::initramfs::Initramfs;
pub(crate) use qkprobe_tests::PATIENCE;
use qkprobe_tests::{Cache, GuestArch, GuestKernel, Qemu, plugin_path};
use tempfile::TempDir;

/// A folder in which a user works, and what runs there.
pub(crate) struct Place {
    pub(crate) folder: TempDir,
    /// Sockets and temporary files.
    run: TempDir,
    path: String,
    arch: GuestArch,
}

impl Place {
    /// With x86_64's `vmlinuz`, and QEMU 11.1 in `$PATH`.
    pub(crate) fn new() -> Self {
        Self::of(GuestArch::X86_64)
    }

    /// With the kernel of this architecture as `vmlinuz`, whatever it is called elsewhere.
    pub(crate) fn of(arch: GuestArch) -> Self {
        let cache = Cache::open().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let kernel = cache.kernel(GuestKernel::of(arch)).unwrap();
        std::os::unix::fs::symlink(kernel, folder.path().join("vmlinuz")).unwrap();
        let qemu = cache.qemu(Qemu::V11_1, arch.qemu_program()).unwrap();
        let path = format!("{}:{}", qemu.parent().unwrap().display(), std::env::var("PATH").unwrap());
        Self { folder, run: tempfile::Builder::new().prefix("r").tempdir_in("/tmp").unwrap(), path, arch }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// `initrd.img`: the init program with a script.
    pub(crate) fn initrd(&self, script: &str) {
        let init = fs::read(Cache::open().unwrap().initramfs(self.arch).unwrap()).unwrap();
        let script = Initramfs::new().file("/qk.script", 0o644, script.as_bytes());
        self.write("initrd.img", script.append_to(init).unwrap());
    }

    /// The kernel as an ELF file that names nothing, and its System.map: its own kallsyms are destroyed.
    pub(crate) fn without_names(&self) -> (Vec<u8>, String) {
        use std::fmt::Write as _;

        let image = qkprobe_symbols::KernelImage::load(&self.path("vmlinuz")).unwrap();
        let mut map = String::new();
        for symbol in image.symbols.iter() {
            writeln!(map, "{:016x} {} {}", symbol.addr.0, symbol.kind, symbol.name).unwrap();
        }
        (elf_without_names(&image.segments), map)
    }

    /// A program that sees this place only.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.folder.path()).stdin(Stdio::null());
        command.env("XDG_RUNTIME_DIR", self.run.path()).env("TMPDIR", self.run.path()).env("PATH", &self.path);
        command.env("QKPROBE_PLUGIN", plugin_path().unwrap()).env_remove("QKPROBE_GUEST").env("NO_COLOR", "1");
        // These tests may run on GitHub themselves.
        command.env_remove("GITHUB_ACTIONS");
        command
    }

    pub(crate) fn qkprobe(&self, args: &[&str]) -> Command {
        let mut command = self.command(env!("CARGO_BIN_EXE_qkprobe"));
        command.args(args);
        command
    }

    /// Runs it to its end.
    #[track_caller]
    pub(crate) fn run(&self, args: &[&str]) -> Done {
        let output = self.qkprobe(args).output().unwrap();
        Done::new(args, output)
    }

    /// Processes that were started from here and still run, by their command lines.
    pub(crate) fn processes(&self) -> Vec<String> {
        let run = self.run.path().display().to_string();
        let all = fs::read_dir("/proc").unwrap().filter_map(|entry| fs::read(entry.ok()?.path().join("cmdline")).ok());
        all.map(|line| String::from_utf8_lossy(&line).replace('\0', " ")).filter(|line| line.contains(&run)).collect()
    }

    /// The process IDs of the QEMUs that run here.
    pub(crate) fn qemus(&self) -> Vec<u32> {
        let run = self.run.path().display().to_string();
        let pids = fs::read_dir("/proc").unwrap().filter_map(|entry| {
            let entry = entry.ok()?;
            let line = fs::read(entry.path().join("cmdline")).ok()?;
            let line = String::from_utf8_lossy(&line).into_owned();
            let pid = entry.file_name().to_str()?.parse().ok()?;
            (line.contains(&run) && line.contains("-plugin")).then_some(pid)
        });
        pids.collect()
    }

    /// Whether a guest has its control socket.
    pub(crate) fn has_socket(&self) -> bool {
        let folders = fs::read_dir(self.run.path()).unwrap();
        folders.flatten().any(|folder| folder.path().join("control.sock").exists())
    }

    /// Neither a process nor a file is left.
    #[track_caller]
    pub(crate) fn assert_clean(&self) {
        let start = Instant::now();
        // A killed process is in the list until its parent has heard of it.
        while !self.processes().is_empty() && start.elapsed() < PATIENCE {
            thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(self.processes(), Vec::<String>::new());
        let left: Vec<_> = fs::read_dir(self.run.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(left, Vec::<PathBuf>::new());
    }
}

/// What a program said, and how it ended.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) args: String,
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Done {
    pub(crate) fn new(args: &[&str], output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("what is shown is UTF-8");
        Self { args: args.join(" "), status: output.status, stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// The exit status must be this.
    #[track_caller]
    pub(crate) fn code(self, code: i32) -> Self {
        let Self { args, status, stdout, stderr } = &self;
        assert_eq!(status.code(), Some(code), "qkprobe {args}\n--- stdout\n{stdout}\n--- stderr\n{stderr}");
        self
    }
}

impl Drop for Place {
    /// A test that failed leaves its guests behind: they would disturb others.
    fn drop(&mut self) {
        if thread::panicking() {
            self.qemus().into_iter().for_each(|pid| signal(pid, "KILL"));
        }
    }
}

/// Waits until something is so.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "{what} did not come");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Waits for a child's end.
#[track_caller]
pub(crate) fn wait(child: &mut Child) -> ExitStatus {
    let mut status = None;
    wait_until("the end of a child", || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    status.unwrap()
}

/// Sends a signal by the shell: the program `kill` is not on every machine.
pub(crate) fn signal(pid: u32, name: &str) {
    Command::new("sh").args(["-c", &format!("kill -{name} {pid}")]).status().unwrap();
}

/// What the kernel's own reader makes of KTAP: its last line, which counts, and whether it calls that a success.
#[track_caller]
pub(crate) fn kunit_parse(ktap: &str) -> (String, bool) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ktap");
    fs::write(&file, ktap).unwrap();
    let mut python = Command::new("python3");
    python.env("PYTHONDONTWRITEBYTECODE", "1").arg(Cache::open().unwrap().kunit().unwrap()).arg("parse").arg(file);
    let output = python.output().unwrap_or_else(|error| panic!("python3: {error}: `apt-get install python3`"));
    let text = String::from_utf8(output.stdout).unwrap();
    let counts = text.lines().rev().find_map(|line| line.split_once("Testing complete. ")).map(|(_, counts)| counts);
    let error = || panic!("kunit.py says\n{text}\n{}", String::from_utf8_lossy(&output.stderr));
    (counts.unwrap_or_else(error).to_owned(), output.status.success())
}

/// The repository.
pub(crate) fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// Nothing in the text commands a terminal.
#[track_caller]
pub(crate) fn assert_harmless(text: &str) {
    let bad: Vec<char> = text.chars().filter(|c| c.is_control() && *c != '\n' || *c == '\u{202e}').collect();
    assert_eq!(bad, Vec::<char>::new(), "{text}");
}

/// An x86_64 ELF file of these segments, in which no table of names is left.
fn elf_without_names(segments: &[qkprobe_symbols::Segment]) -> Vec<u8> {
    const HEADER: usize = 64;
    const PROGRAM_HEADER: usize = 56;
    let count = u16::try_from(segments.len()).unwrap();
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    // ET_EXEC, EM_X86_64, version 1; the entry; program headers behind this one; no sections.
    file.extend([2_u16, 62].iter().flat_map(|it| it.to_le_bytes()));
    file.extend(1_u32.to_le_bytes());
    file.extend([segments[0].addr.0, HEADER as u64, 0].iter().flat_map(|it| it.to_le_bytes()));
    file.extend(0_u32.to_le_bytes());
    file.extend([HEADER as u16, PROGRAM_HEADER as u16, count, 64, 0, 0].iter().flat_map(|it| it.to_le_bytes()));
    let mut at = HEADER + PROGRAM_HEADER * segments.len();
    for segment in segments {
        // PT_LOAD; readable and writable, and executable where it says so.
        file.extend([1_u32, if segment.executable { 7 } else { 6 }].iter().flat_map(|it| it.to_le_bytes()));
        let len = segment.bytes.len() as u64;
        let fields = [at as u64, segment.addr.0, segment.phys, len, len, 0x1000];
        file.extend(fields.iter().flat_map(|it| it.to_le_bytes()));
        at += segment.bytes.len();
    }
    for segment in segments {
        let mut bytes = segment.bytes.to_vec();
        // The tokens of kallsyms: the digits follow each other in them.
        let digits = b"0\x001\x002\x003\x004\x005\0";
        while let Some(tokens) = bytes.windows(digits.len()).position(|window| window == digits) {
            bytes[tokens] = b'!';
        }
        file.extend(bytes);
    }
    file
}
