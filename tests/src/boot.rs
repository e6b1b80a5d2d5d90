//! What to boot: the harness's builder, with the QEMUs, kernels and scripts of the set-up.

use std::path::PathBuf;
use std::time::Duration;

pub use qkprobe_harness::Threads;

use crate::PATIENCE;
use crate::cache::{Cache, Qemu};
use crate::kernels::GuestKernel;
use crate::result::BootResult;
use crate::running::{BootError, Running};

/// How long a boot may take before it is killed, if nobody says otherwise.
const TIMEOUT: Duration = Duration::from_secs(2 * PATIENCE.as_secs());
/// The guest's second serial port, in the boot's folder.
pub(crate) const SECOND_SERIAL: &str = "serial2";

/// One boot to be made. The defaults: 1 CPU, the memory that the machine's kernels need (256 or 512 MB),
/// [`Threads::Multi`] where the machine has more than one CPU, no plugin, no script, ten minutes.
#[derive(Clone, Debug)]
pub struct Boot {
    qemu: Qemu,
    kernel: GuestKernel,
    /// All but what the cache knows.
    inner: qkprobe_harness::Boot,
    script: String,
    timeout: Duration,
}

impl Boot {
    /// A boot of `kernel` in `qemu`.
    #[must_use]
    pub fn new(qemu: Qemu, kernel: GuestKernel) -> Self {
        let inner = qkprobe_harness::Boot::new("").arch(kernel.arch().row()).in_own_folder();
        let inner = inner.qemu_args(kernel.cpu().iter().flat_map(|cpu| ["-cpu", cpu]));
        Self { qemu, kernel, inner, script: String::new(), timeout: TIMEOUT }
    }

    fn map(mut self, change: impl FnOnce(qkprobe_harness::Boot) -> qkprobe_harness::Boot) -> Self {
        self.inner = change(self.inner);
        self
    }

    /// The number of vCPUs.
    ///
    /// # Panics
    /// The machine has not so many: [`GuestArch::max_cpus`](crate::GuestArch::max_cpus).
    #[must_use]
    #[track_caller]
    pub fn smp(self, cpus: u32) -> Self {
        let most = self.kernel.arch().max_cpus();
        assert!((1..=most).contains(&cpus), "{cpus} vCPUs of 1 to {most} for {}", self.kernel.name());
        self.map(|boot| boot.cpus(cpus))
    }

    /// The guest's memory in MB.
    #[must_use]
    pub fn memory(self, megabytes: u32) -> Self {
        self.map(|boot| boot.memory(megabytes))
    }

    /// How QEMU runs the vCPUs.
    #[must_use]
    pub fn threads(self, threads: Threads) -> Self {
        self.map(|boot| boot.threads(threads))
    }

    /// The size of QEMU's cache of translated code in MB; QEMU's own choice is 1 GB. A full one is flushed.
    #[must_use]
    pub fn code_cache(self, megabytes: u32) -> Self {
        self.map(|boot| boot.code_cache(megabytes))
    }

    /// Has QEMU translate each instruction into a block of its own, as its log of blocks then tells of each instruction.
    #[must_use]
    pub fn one_insn_per_block(self) -> Self {
        self.map(|boot| boot.one_insn_per_block())
    }

    /// Adds to the kernel's command line, which already has the console, and that a panic ends the boot.
    #[must_use]
    pub fn append(self, options: &str) -> Self {
        self.map(|boot| boot.append(options))
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
    pub fn plugin(self) -> Self {
        self.map(|boot| boot.with_plugin())
    }

    /// Loads this plugin instead of [`plugin_path`]'s.
    #[must_use]
    pub fn plugin_file(self, file: impl Into<PathBuf>) -> Self {
        self.map(|boot| boot.plugin(file))
    }

    /// Loads the plugin and adds one argument, as a user would write it to anything but QEMU: commas are doubled here.
    #[must_use]
    pub fn plugin_arg(self, arg: impl Into<String>) -> Self {
        self.map(|boot| boot.plugin_arg(arg))
    }

    /// Adds a second serial port (`/dev/ttyS1`), whose output becomes [`BootResult::second_serial`].
    #[must_use]
    pub fn second_serial(self) -> Self {
        self.map(|boot| boot.second_serial(format!("file,path={SECOND_SERIAL}")))
    }

    /// Adds options to QEMU's own command line.
    #[must_use]
    pub fn extra_args<S: Into<String>>(self, args: impl IntoIterator<Item = S>) -> Self {
        self.map(|boot| boot.qemu_args(args.into_iter().map(Into::into)))
    }

    /// Adds a second serial port whose other side is this character device of QEMU's.
    pub(crate) fn second_port(self, device: String) -> Self {
        self.map(|boot| boot.second_serial(device))
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
        let arch = self.kernel.arch();
        let boot =
            self.inner.clone().kernel(cache.kernel(self.kernel)?).qemu(cache.qemu(self.qemu, arch.qemu_program())?);
        let boot = if self.kernel.is_linux() {
            boot.initrd(cache.initramfs(arch)?).file("/qk.script", self.script.as_bytes())
        } else {
            boot.without_append()
        };
        Ok(Running::new(boot.launch()?, self.timeout))
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
}

/// The plugin to test: `QKPROBE_PLUGIN`, or the release build in this program's target folder.
///
/// # Errors
/// There is none.
pub fn plugin_path() -> Result<PathBuf, BootError> {
    Ok(qkprobe_harness::plugin::find(None)?)
}
