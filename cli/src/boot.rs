//! What to boot and how: a builder. Its two ends are [`Boot::start`], a guest whose events are waited for, and [`Boot::launch`],
//! a QEMU that runs by itself.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use qkprobe_symbols::KernelImage;

use crate::arch::GuestArch;
use crate::command::Way;
use crate::error::Error;
use crate::folder::Folder;
use crate::guest::Guest;
use crate::running::Running;

/// How records are written to the trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TraceFormat {
    /// As ftrace's `trace` file.
    Ftrace,
    /// One JSON object a line.
    Json,
}

/// How QEMU runs the vCPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threads {
    /// A host thread for each vCPU (MTTCG).
    Multi,
    /// One host thread for all, in turns.
    Single,
}

/// One guest to boot. A builder: the defaults are what a person would take for the kernel's architecture.
#[derive(Clone, Debug)]
pub struct Boot {
    pub(crate) kernel: PathBuf,
    pub(crate) symbols: Vec<PathBuf>,
    pub(crate) image: Option<Arc<KernelImage>>,
    pub(crate) arch: Option<&'static GuestArch>,
    pub(crate) qemu: Option<PathBuf>,
    pub(crate) plugin: Option<PathBuf>,
    pub(crate) initrd: Option<PathBuf>,
    pub(crate) init: Option<PathBuf>,
    pub(crate) files: Vec<(String, Vec<u8>)>,
    /// What is added to the kernel's command line; `None`: there is none.
    pub(crate) append: Option<String>,
    pub(crate) cpus: u32,
    memory_mb: Option<u32>,
    pub(crate) threads: Option<Threads>,
    pub(crate) code_cache_mb: Option<u32>,
    pub(crate) one_insn_per_block: bool,
    pub(crate) second_serials: Vec<String>,
    pub(crate) name: Option<String>,
    pub(crate) seed: Option<u64>,
    pub(crate) loads_plugin: bool,
    pub(crate) plugin_args: Vec<String>,
    pub(crate) format: Option<TraceFormat>,
    pub(crate) watch: bool,
    pub(crate) control: Option<PathBuf>,
    pub(crate) works_in_folder: bool,
    pub(crate) qemu_args: Vec<OsString>,
}

impl Boot {
    /// A boot of a kernel image (vmlinuz, vmlinux, ...).
    #[must_use]
    pub fn new(kernel: impl Into<PathBuf>) -> Self {
        Self {
            kernel: kernel.into(),
            symbols: Vec::new(),
            image: None,
            arch: None,
            qemu: None,
            plugin: None,
            initrd: None,
            init: None,
            files: Vec::new(),
            append: Some(String::new()),
            cpus: 1,
            memory_mb: None,
            threads: None,
            code_cache_mb: None,
            one_insn_per_block: false,
            second_serials: Vec::new(),
            name: None,
            seed: None,
            loads_plugin: false,
            plugin_args: Vec::new(),
            format: None,
            watch: false,
            control: None,
            works_in_folder: false,
            qemu_args: Vec::new(),
        }
    }

    /// Another image, for a boot that is made in steps.
    #[must_use]
    pub fn kernel(mut self, kernel: impl Into<PathBuf>) -> Self {
        self.kernel = kernel.into();
        self.image = None;
        self
    }

    /// More symbols of the kernel than its image has, or all of them: a System.map, a copy of /proc/kallsyms with modules, the
    /// vmlinux of the same build. Any number.
    #[must_use]
    pub fn symbols(mut self, file: impl Into<PathBuf>) -> Self {
        self.symbols.push(file.into());
        self.image = None;
        self
    }

    /// The architecture, where the image does not say it.
    #[must_use]
    pub fn arch(mut self, arch: &'static GuestArch) -> Self {
        self.arch = Some(arch);
        self
    }

    /// The image as read before, with the symbols that belong to it, so that it is not read again.
    #[must_use]
    pub fn image(mut self, image: Arc<KernelImage>) -> Self {
        self.image = Some(image);
        self
    }

    /// QEMU: a file, a folder with its programs, or a version of one that is found.
    #[must_use]
    pub fn qemu(mut self, qemu: impl Into<PathBuf>) -> Self {
        self.qemu = Some(qemu.into());
        self
    }

    /// Loads this plugin, instead of the one that belongs to this program.
    #[must_use]
    pub fn plugin(mut self, plugin: impl Into<PathBuf>) -> Self {
        self.plugin = Some(plugin.into());
        self.loads_plugin = true;
        self
    }

    /// Loads the plugin even if nothing is asked of it: [`Boot::launch`] does without it then, [`Boot::start`] never does.
    #[must_use]
    pub fn with_plugin(mut self) -> Self {
        self.loads_plugin = true;
        self
    }

    /// The initial RAM disk.
    #[must_use]
    pub fn initrd(mut self, initrd: impl Into<PathBuf>) -> Self {
        self.initrd = Some(initrd.into());
        self
    }

    /// A static program that becomes `/init` of an initramfs made for this boot.
    #[must_use]
    pub fn init(mut self, init: impl Into<PathBuf>) -> Self {
        self.init = Some(init.into());
        self
    }

    /// A file that is added to the initramfs.
    #[must_use]
    pub fn file(mut self, path: impl Into<String>, content: impl Into<Vec<u8>>) -> Self {
        self.files.push((path.into(), content.into()));
        self
    }

    /// Adds to the kernel's command line, which has the console, and that a panic ends the run.
    #[must_use]
    pub fn append(mut self, options: &str) -> Self {
        let append = self.append.get_or_insert_default();
        append.push(' ');
        append.push_str(options);
        self
    }

    /// No command line at all: for a guest that is no Linux.
    #[must_use]
    pub fn without_append(mut self) -> Self {
        self.append = None;
        self
    }

    /// The number of vCPUs.
    #[must_use]
    pub fn cpus(mut self, cpus: u32) -> Self {
        self.cpus = cpus;
        self
    }

    /// Memory in MB.
    #[must_use]
    pub fn memory(mut self, megabytes: u32) -> Self {
        self.memory_mb = Some(megabytes);
        self
    }

    /// How QEMU runs the vCPUs, instead of as many threads as the machine can have.
    #[must_use]
    pub fn threads(mut self, threads: Threads) -> Self {
        self.threads = Some(threads);
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

    /// Adds a serial port behind the console's (`/dev/ttyS1`; `/dev/hvc1` on pseries). `device` is the other side, one of QEMU's
    /// character devices: `file,path=FILE`, `socket,path=SOCKET,server=on,wait=off`, ...
    #[must_use]
    pub fn second_serial(mut self, device: impl Into<String>) -> Self {
        self.second_serials.push(device.into());
        self
    }

    /// A name for the guest, by which it is found among others.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// QEMU's seed: what its random numbers are, those of the guest's instructions among them. Where the kernel is placed depends
    /// on the time as well, and differs all the same.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// A probe: `p:NAME PLACE ARG... [if FILTER] [do OPTION...]`.
    #[must_use]
    pub fn probe(self, definition: &str) -> Self {
        self.plugin_arg(format!("probe={definition}"))
    }

    /// An argument of the plugin, as a user would write it to anything but QEMU: commas are doubled here.
    #[must_use]
    pub fn plugin_arg(mut self, arg: impl Into<String>) -> Self {
        self.loads_plugin = true;
        self.plugin_args.push(arg.into());
        self
    }

    /// The trace's form. If nobody says otherwise it is JSON for [`Boot::start`], which [`Guest::event`] needs, and the plugin's
    /// choice for [`Boot::launch`].
    #[must_use]
    pub fn format(mut self, format: TraceFormat) -> Self {
        self.format = Some(format);
        self
    }

    /// Adds probes of this crate's own on the kernel's start and its panic path; what they see is in [`Guest::watched`].
    #[must_use]
    pub fn watch(mut self) -> Self {
        self.loads_plugin = true;
        self.watch = true;
        self
    }

    /// The control socket's place, instead of `control.sock` in the guest's own folder. A QEMU of [`Boot::launch`] has none if it is
    /// not said here.
    #[must_use]
    pub fn control(mut self, socket: impl Into<PathBuf>) -> Self {
        self.loads_plugin = true;
        self.control = Some(socket.into());
        self
    }

    /// QEMU works in the guest's own folder: relative paths in what follows are files there.
    #[must_use]
    pub fn in_own_folder(mut self) -> Self {
        self.works_in_folder = true;
        self
    }

    /// More of QEMU's own command line. What it says about machine, CPU and accelerator takes the place of the default.
    #[must_use]
    pub fn qemu_args<S: Into<OsString>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.qemu_args.extend(args.into_iter().map(Into::into));
        self
    }

    /// The memory that the guest will have, in MB.
    #[must_use]
    pub fn memory_mb_of(&self, arch: &GuestArch) -> u32 {
        self.memory_mb.unwrap_or(arch.memory_mb)
    }

    /// Starts the guest, with the plugin, its control socket and QEMU's monitor, and with its trace as events. The machine begins
    /// to run when all of them are there.
    ///
    /// # Errors
    /// Something is missing, the plugin refuses, or QEMU does not start.
    pub fn start(&self) -> Result<Guest, Error> {
        Guest::start(self)
    }

    /// Starts QEMU with nothing but what was asked for: the machine runs at once, without a monitor, and without the plugin if
    /// nothing here needs it. The plugin's trace and summary are the files `trace` and `summary.json` in the guest's folder.
    ///
    /// # Errors
    /// Something is missing, or QEMU does not start. What it or the plugin says against its command line is in what it leaves.
    pub fn launch(&self) -> Result<Running, Error> {
        let (image, arch) = match self.arch.filter(|_| !self.watch) {
            Some(arch) => (None, arch),
            None => {
                let image = self.load_image()?;
                let arch = self.arch_for(&image)?;
                (Some(image), arch)
            }
        };
        let folder = Folder::large().map_err(Error::io(std::env::temp_dir()))?;
        let command = self.command(image.as_deref(), arch, folder.path(), Way::Alone)?;
        let summary = self.summary_file(folder.path());
        Running::start(command, folder, summary, arch.last_words, None)
    }

    /// The image, read now if it was not given.
    pub(crate) fn load_image(&self) -> Result<Arc<KernelImage>, Error> {
        match &self.image {
            Some(image) => Ok(Arc::clone(image)),
            None => Ok(Arc::new(KernelImage::load_all(&self.kernel, &self.symbols)?)),
        }
    }

    /// The architecture: the image's, or the one that was given.
    ///
    /// # Errors
    /// They contradict each other, or nobody says one.
    pub fn arch_for(&self, image: &KernelImage) -> Result<&'static GuestArch, Error> {
        let found = GuestArch::of_image(image);
        let wrong = |what: String| Error::Arch { file: self.kernel.display().to_string(), what };
        match (self.arch, found) {
            (Some(given), Some(found)) if given != found => {
                Err(wrong(format!("is a kernel for {}, not {}: leave --arch out", found.name, given.name)))
            }
            (Some(arch), _) | (None, Some(arch)) => Ok(arch),
            (None, None) => Err(wrong(format!(
                "does not say its architecture ({:?}): name it with --arch ({})",
                image.machine,
                GuestArch::names()
            ))),
        }
    }

    /// The control socket of a guest that this started.
    #[must_use]
    pub fn control_path(&self, guest: &Guest) -> PathBuf {
        self.control_socket(guest.folder())
    }

    /// Where the summary is: in the guest's folder, or where a `summary=` among the plugin's arguments puts it.
    pub(crate) fn summary_file(&self, folder: &Path) -> PathBuf {
        let given = self.plugin_args.iter().rev().find_map(|arg| arg.strip_prefix("summary="));
        match given {
            Some(file) if !self.works_in_folder => std::path::absolute(file).unwrap_or_else(|_| file.into()),
            file => folder.join(file.unwrap_or(SUMMARY)),
        }
    }

    pub(crate) fn control_socket(&self, folder: &Path) -> PathBuf {
        let given = self.control.as_deref().unwrap_or(Path::new(CONTROL));
        let is_in_folder = self.works_in_folder || self.control.is_none();
        if is_in_folder { folder.join(given) } else { std::path::absolute(given).unwrap_or_else(|_| given.to_owned()) }
    }
}

/// The names of files in a guest's folder.
pub(crate) const MONITOR: &str = "qmp.sock";
pub(crate) const CONTROL: &str = "control.sock";
pub(crate) const TRACE: &str = "trace";
pub(crate) const SUMMARY: &str = "summary.json";

#[cfg(test)]
mod tests {
    use qkprobe_symbols::SymbolTable;

    use super::*;
    use crate::command::tests::image;

    #[test]
    fn another_arch_than_the_images_is_refused() {
        let boot = Boot::new("vmlinuz").arch(GuestArch::by_name("sparc64").expect("a row"));
        let error = boot.arch_for(&image(&["f"])).expect_err("refused").to_string();
        assert_eq!(error, "vmlinuz: is a kernel for x86_64, not sparc64: leave --arch out");
        let unknown = KernelImage::from_parts(
            SymbolTable::from_rows([]).expect("none"),
            Vec::new(),
            None,
            qkprobe_symbols::Machine::Unknown,
        );
        let error = Boot::new("System.map").arch_for(&unknown).expect_err("refused").to_string();
        assert!(error.contains("--arch (x86_64, i386, "), "{error}");
    }
}
