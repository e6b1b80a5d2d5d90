//! What to boot: a builder that ends in QEMU's command line.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use tempfile::TempDir;

use crate::cache::{Cache, Qemu};
use crate::initramfs::Initramfs;
use crate::kernels::GuestKernel;
use crate::result::BootResult;
use crate::running::{BootError, Running};

/// How long a boot may take before it is killed, if nobody says otherwise.
const TIMEOUT: Duration = Duration::from_secs(120);

/// How QEMU runs the guest's CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threads {
    /// A host thread for each vCPU (MTTCG).
    Multi,
    /// One host thread for all, in turns.
    Single,
}

/// One boot to be made. The defaults: 1 CPU, the memory that the machine's kernels need (256 or 512 MB),
/// [`Threads::Multi`] where the machine has more than one CPU, no plugin, no script, two minutes.
#[derive(Clone, Debug)]
pub struct Boot {
    qemu: Qemu,
    kernel: GuestKernel,
    smp: u32,
    memory_mb: u32,
    threads: Threads,
    code_cache_mb: Option<u32>,
    one_insn_per_block: bool,
    append: String,
    script: String,
    plugin: Option<Plugin>,
    second_serial: bool,
    extra_args: Vec<String>,
    timeout: Duration,
}

#[derive(Clone, Debug, Default)]
struct Plugin {
    file: Option<PathBuf>,
    args: Vec<String>,
}

impl Boot {
    /// A boot of `kernel` in `qemu`.
    #[must_use]
    pub fn new(qemu: Qemu, kernel: GuestKernel) -> Self {
        let arch = kernel.arch();
        Self {
            qemu,
            kernel,
            smp: 1,
            memory_mb: arch.memory_mb(),
            threads: if arch.max_cpus() > 1 { Threads::Multi } else { Threads::Single },
            code_cache_mb: None,
            one_insn_per_block: false,
            append: format!("console={} {}", arch.console(), arch.append()),
            script: String::new(),
            plugin: None,
            second_serial: false,
            extra_args: Vec::new(),
            timeout: TIMEOUT,
        }
    }

    /// The number of vCPUs.
    ///
    /// # Panics
    /// The machine has not so many: [`GuestArch::max_cpus`](crate::GuestArch::max_cpus).
    #[must_use]
    #[track_caller]
    pub fn smp(mut self, cpus: u32) -> Self {
        let most = self.kernel.arch().max_cpus();
        assert!((1..=most).contains(&cpus), "{cpus} vCPUs of 1 to {most} for {}", self.kernel.name());
        self.smp = cpus;
        self
    }

    /// The guest's memory in MB.
    #[must_use]
    pub fn memory(mut self, megabytes: u32) -> Self {
        self.memory_mb = megabytes;
        self
    }

    /// How QEMU runs the vCPUs.
    #[must_use]
    pub fn threads(mut self, threads: Threads) -> Self {
        self.threads = threads;
        self
    }

    /// The size of QEMU's cache of translated code in MB; QEMU's own choice is 1 GB. A full one is flushed.
    #[must_use]
    pub fn code_cache(mut self, megabytes: u32) -> Self {
        self.code_cache_mb = Some(megabytes);
        self
    }

    /// Has QEMU translate each instruction into a block of its own, as its log of blocks then tells of each instruction.
    #[must_use]
    pub fn one_insn_per_block(mut self) -> Self {
        self.one_insn_per_block = true;
        self
    }

    /// Adds to the kernel's command line, which already has the console, and that a panic ends the boot.
    #[must_use]
    pub fn append(mut self, options: &str) -> Self {
        self.append.push(' ');
        self.append.push_str(options);
        self
    }

    /// Adds lines to the script of the init program (see `guest-images/README.md`).
    #[must_use]
    pub fn script<S: AsRef<str>>(mut self, lines: impl IntoIterator<Item = S>) -> Self {
        for line in lines {
            self.script.push_str(line.as_ref());
            self.script.push('\n');
        }
        self
    }

    /// Loads the plugin, and tells it the kernel image, a trace file and a summary file unless a
    /// [`plugin_arg`](Self::plugin_arg) already says `kernel=`, `out=` or `summary=`.
    #[must_use]
    pub fn plugin(mut self) -> Self {
        self.plugin.get_or_insert_default();
        self
    }

    /// Loads this plugin instead of [`plugin_path`]'s.
    #[must_use]
    pub fn plugin_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.plugin.get_or_insert_default().file = Some(file.into());
        self
    }

    /// Loads the plugin and adds one argument, as a user would write it to anything but QEMU: commas are doubled here.
    #[must_use]
    pub fn plugin_arg(mut self, arg: impl Into<String>) -> Self {
        self.plugin.get_or_insert_default().args.push(arg.into());
        self
    }

    /// Adds a second serial port (`/dev/ttyS1`), whose output becomes [`BootResult::second_serial`].
    #[must_use]
    pub fn second_serial(mut self) -> Self {
        self.second_serial = true;
        self
    }

    /// Adds options to QEMU's own command line.
    #[must_use]
    pub fn extra_args<S: Into<String>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.extra_args.extend(args.into_iter().map(Into::into));
        self
    }

    /// How long [`run`](Self::run) waits before it kills QEMU.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The kernel that is booted.
    #[must_use]
    pub fn kernel(&self) -> GuestKernel {
        self.kernel
    }

    /// Starts QEMU and returns at once.
    ///
    /// # Errors
    /// Something of the set-up is missing, or QEMU cannot be started.
    pub fn spawn(&self) -> Result<Running, BootError> {
        let cache = Cache::open()?;
        let folder = tempfile::Builder::new().prefix("qkprobe-").tempdir()?;
        let command = self.command(&cache, &folder)?;
        Running::start(command, folder, self.timeout, self.kernel.arch().last_words())
    }

    /// Runs QEMU to its end, whatever that is: a plugin that refuses to load is a result too.
    ///
    /// # Errors
    /// As [`spawn`](Self::spawn), and when the time is over.
    pub fn try_run(&self) -> Result<BootResult, BootError> {
        self.spawn()?.finish()
    }

    /// [`try_run`](Self::try_run) for tests.
    ///
    /// # Panics
    /// On any error, with the end of the console in the message.
    #[must_use]
    #[track_caller]
    pub fn run(&self) -> BootResult {
        self.try_run().unwrap_or_else(|error| panic!("{error}"))
    }

    /// Like [`run`](Self::run), and the guest must have done its script without a failure and powered off.
    ///
    /// # Panics
    /// Otherwise.
    #[must_use]
    #[track_caller]
    pub fn run_ok(&self) -> BootResult {
        let result = self.run();
        result.assert_ok();
        result
    }

    /// QEMU's command line; the files that it names are in `folder`.
    fn command(&self, cache: &Cache, folder: &TempDir) -> Result<Command, BootError> {
        let arch = self.kernel.arch();
        let image = cache.kernel(self.kernel)?;
        let mut command = Command::new(cache.qemu(self.qemu, arch.qemu_program())?);
        let threads = match self.threads {
            Threads::Multi => "tcg,thread=multi",
            Threads::Single => "tcg,thread=single",
        };
        let code_cache = self.code_cache_mb.map(|size| format!(",tb-size={size}")).unwrap_or_default();
        let one_insn = if self.one_insn_per_block { ",one-insn-per-tb=on" } else { "" };
        let accel = format!("{threads}{code_cache}{one_insn}");
        command.args(self.kernel.machine()).args(["-nodefaults", "-nographic", "-no-reboot", "-accel", &accel]);
        command.args(["-smp", &self.smp.to_string(), "-m", &format!("{}M", self.memory_mb), "-serial", "stdio"]);
        if self.second_serial {
            let path = doubled(&folder.path().join("serial2").display().to_string());
            command.arg("-chardev").arg(format!("file,id=serial2,path={path}")).args(arch.second_port("serial2"));
        }
        command.arg("-kernel").arg(&image);
        if self.kernel.is_linux() {
            // The kernel unpacks archives that follow one another.
            let mut initrd = fs::read(cache.initramfs(arch)?)?;
            initrd.extend(Initramfs::new().file("/qk.script", 0o644, self.script.as_bytes()).finish());
            let initrd_path = folder.path().join("initramfs.cpio");
            fs::write(&initrd_path, initrd)?;
            command.arg("-initrd").arg(initrd_path).args(["-append", &self.append]);
        }
        if let Some(plugin) = &self.plugin {
            command.arg("-plugin").arg(plugin.argument(&image, folder.path())?);
        }
        command.args(&self.extra_args).current_dir(folder.path()).stdin(Stdio::null());
        Ok(command)
    }
}

impl Plugin {
    /// The value of `-plugin`.
    fn argument(&self, image: &Path, folder: &Path) -> Result<String, BootError> {
        let file = self.file.clone().map_or_else(plugin_path, Ok)?;
        let mut text = doubled(&file.display().to_string());
        let defaults =
            [("kernel=", image.to_owned()), ("out=", folder.join("trace")), ("summary=", folder.join("summary.json"))];
        for (key, path) in defaults {
            if !self.args.iter().any(|arg| arg.starts_with(key)) {
                text += &format!(",{key}{}", doubled(&path.display().to_string()));
            }
        }
        for arg in &self.args {
            text.push(',');
            text += &doubled(arg);
        }
        Ok(text)
    }
}

/// QEMU's way to write a comma that separates nothing.
fn doubled(text: &str) -> String {
    text.replace(',', ",,")
}

/// The plugin to test: `QKPROBE_PLUGIN`, or the newest `release/libqkprobe.so` of this workspace.
///
/// # Errors
/// [`BootError::NoPlugin`].
pub fn plugin_path() -> Result<PathBuf, BootError> {
    if let Some(path) = std::env::var_os("QKPROBE_PLUGIN").filter(|path| !path.is_empty()) {
        return Ok(path.into());
    }
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("/"));
    let mut targets = vec![workspace.join("target")];
    targets.extend(std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from));
    // This program is TARGET/PROFILE/deps/NAME, or without deps.
    targets.extend(
        std::env::current_exe()
            .into_iter()
            .flat_map(|exe| exe.ancestors().skip(2).take(2).map(Path::to_owned).collect::<Vec<_>>()),
    );
    let built = |target: &PathBuf| -> Option<(SystemTime, PathBuf)> {
        let path = target.join("release/libqkprobe.so");
        Some((path.metadata().ok()?.modified().ok()?, path))
    };
    targets.iter().filter_map(built).max().map(|(_, path)| path).ok_or(BootError::NoPlugin)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plugin_argument_doubles_commas_and_adds_what_is_not_said() {
        let args = vec!["probe=p:x f a=$arg1,b".to_owned(), "out=/dev/null".to_owned()];
        let plugin = Plugin { file: Some("/p.so".into()), args };
        assert_eq!(
            plugin.argument(Path::new("/boot/k"), Path::new("/tmp/a,b")).unwrap(),
            "/p.so,kernel=/boot/k,summary=/tmp/a,,b/summary.json,probe=p:x f a=$arg1,,b,out=/dev/null"
        );
    }
}
