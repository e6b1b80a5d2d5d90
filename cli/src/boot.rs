//! What to boot and how, down to QEMU's command line.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use qkprobe_symbols::{KernelImage, Lookup};

use crate::arch::GuestArch;
use crate::error::Error;
use crate::guest::Guest;
use crate::initramfs::Initramfs;
use crate::{plugin, qemu};

/// The group of this crate's own probes.
pub const WATCH_GROUP: &str = "qkprobe_watch";
/// This crate's own probes: the event, and the kernel's functions, of which an image has some.
const WATCHED: [(&str, &[&str]); 4] = [
    ("start", &["start_kernel"]),
    ("panic", &["panic", "vpanic", "nmi_panic"]),
    ("oops", &["oops_enter"]),
    // sparc64 has neither of the former.
    ("die", &["die", "__die", "die_if_kernel"]),
];
/// The first argument of `panic`, a format.
const PANIC_FORMAT: &str = "format=+0($arg1):string";

/// How records are written to the trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TraceFormat {
    /// As ftrace's `trace` file.
    Ftrace,
    /// One JSON object a line.
    Json,
}

/// One guest to boot. A builder: the defaults are what a person would take for the kernel's architecture.
#[derive(Clone, Debug)]
pub struct Boot {
    pub(crate) kernel: PathBuf,
    pub(crate) image: Option<Arc<KernelImage>>,
    pub(crate) arch: Option<&'static GuestArch>,
    pub(crate) qemu: Option<PathBuf>,
    pub(crate) plugin: Option<PathBuf>,
    initrd: Option<PathBuf>,
    init: Option<PathBuf>,
    files: Vec<(String, Vec<u8>)>,
    append: String,
    cpus: u32,
    memory_mb: Option<u32>,
    seed: Option<u64>,
    plugin_args: Vec<String>,
    pub(crate) format: TraceFormat,
    watch: bool,
    pub(crate) control: Option<PathBuf>,
    qemu_args: Vec<OsString>,
}

impl Boot {
    /// A boot of a kernel image (vmlinuz, vmlinux, ...).
    #[must_use]
    pub fn new(kernel: impl Into<PathBuf>) -> Self {
        Self {
            kernel: kernel.into(),
            image: None,
            arch: None,
            qemu: None,
            plugin: None,
            initrd: None,
            init: None,
            files: Vec::new(),
            append: String::new(),
            cpus: 1,
            memory_mb: None,
            seed: None,
            plugin_args: Vec::new(),
            format: TraceFormat::Json,
            watch: false,
            control: None,
            qemu_args: Vec::new(),
        }
    }

    /// The architecture, where the image does not say it.
    #[must_use]
    pub fn arch(mut self, arch: &'static GuestArch) -> Self {
        self.arch = Some(arch);
        self
    }

    /// The image as read before, so that it is not read again.
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

    /// The plugin, instead of the one that belongs to this program.
    #[must_use]
    pub fn plugin(mut self, plugin: impl Into<PathBuf>) -> Self {
        self.plugin = Some(plugin.into());
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

    /// Adds to the kernel's command line, which has the console and `panic=-1`.
    #[must_use]
    pub fn append(mut self, options: &str) -> Self {
        self.append.push(' ');
        self.append.push_str(options);
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

    /// QEMU's seed: where the kernel is placed, and what the guest's random number instructions give.
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
        self.plugin_args.push(arg.into());
        self
    }

    /// The trace's form; JSON if nobody says otherwise, which is what [`Guest::event`] needs.
    #[must_use]
    pub fn format(mut self, format: TraceFormat) -> Self {
        self.format = format;
        self
    }

    /// Adds probes of this crate's own on the kernel's start and its panic path; see [`WATCH_GROUP`].
    #[must_use]
    pub fn watch(mut self) -> Self {
        self.watch = true;
        self
    }

    /// The control socket's place, instead of one in the guest's own folder.
    #[must_use]
    pub fn control(mut self, socket: impl Into<PathBuf>) -> Self {
        self.control = Some(socket.into());
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

    /// Starts the guest.
    ///
    /// # Errors
    /// Something is missing, the plugin refuses, or QEMU does not start.
    pub fn start(&self) -> Result<Guest, Error> {
        Guest::start(self)
    }

    /// The image, read now if it was not given.
    pub(crate) fn load_image(&self) -> Result<Arc<KernelImage>, Error> {
        match &self.image {
            Some(image) => Ok(Arc::clone(image)),
            None => Ok(Arc::new(KernelImage::load(&self.kernel)?)),
        }
    }

    /// The architecture: the image's, or the one that was given.
    ///
    /// # Errors
    /// They contradict each other, or nobody says one.
    pub fn arch_for(&self, image: &KernelImage) -> Result<&'static GuestArch, Error> {
        self.arch_of(image)
    }

    /// The control socket of a guest that this started.
    #[must_use]
    pub fn control_path(&self, guest: &Guest) -> PathBuf {
        self.control_socket(guest.folder())
    }

    pub(crate) fn arch_of(&self, image: &KernelImage) -> Result<&'static GuestArch, Error> {
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

    /// QEMU's command line. Files that it names are in `folder`.
    pub(crate) fn command(
        &self,
        image: &KernelImage,
        arch: &GuestArch,
        folder: &Path,
    ) -> Result<(Command, PathBuf), Error> {
        let program = qemu::find(arch, self.qemu.as_deref())?;
        let mut command = Command::new(&program);
        let has = |names: &[&str]| self.qemu_args.iter().any(|arg| names.iter().any(|name| is_option(arg, name)));
        if !has(&["M", "machine"]) {
            command.args(["-M", arch.machine]);
        }
        if let Some(cpu) = arch.cpu.filter(|_| !has(&["cpu"])) {
            command.args(["-cpu", cpu]);
        }
        if !has(&["accel"]) {
            command.args(["-accel", if arch.multi_thread { "tcg,thread=multi" } else { "tcg,thread=single" }]);
        }
        let cpus = self.cpus.clamp(1, arch.max_cpus);
        command.args(["-smp", &cpus.to_string(), "-m", &format!("{}M", self.memory_mb_of(arch))]);
        command.args(["-nodefaults", "-nographic", "-no-reboot", "-serial", "stdio", "-S"]);
        let monitor = format!("unix:{},server=on,wait=off", doubled(&folder.join(MONITOR).display().to_string()));
        command.args(["-qmp", &monitor]);
        if let Some(seed) = self.seed {
            command.args(["-seed", &seed.to_string()]);
        }
        let kernel = std::path::absolute(&self.kernel).map_err(Error::io(&self.kernel))?;
        command.arg("-kernel").arg(&kernel);
        if let Some(initrd) = self.initramfs(folder)? {
            command.arg("-initrd").arg(initrd);
        }
        let append = format!("console={} panic=-1 {}{}", arch.console, arch.append, self.append);
        command.args(["-append", append.trim_end()]);
        command.arg("-plugin").arg(self.plugin_option(image, &kernel, folder)?);
        command.args(&self.qemu_args);
        Ok((command, program))
    }

    pub(crate) fn control_socket(&self, folder: &Path) -> PathBuf {
        self.control.clone().unwrap_or_else(|| folder.join(CONTROL))
    }

    fn initramfs(&self, folder: &Path) -> Result<Option<PathBuf>, Error> {
        let read = |path: &PathBuf| fs::read(path).map_err(Error::io(path));
        let write = |archives: Vec<u8>| {
            let path = folder.join("initramfs.cpio");
            fs::write(&path, archives).map_err(Error::io(&path))?;
            Ok(Some(path))
        };
        let made = |archive: std::io::Result<Vec<u8>>| archive.map_err(Error::io(folder));
        let mut archives = match (&self.initrd, &self.init) {
            (Some(initrd), None) if self.files.is_empty() => {
                let initrd = std::path::absolute(initrd).map_err(Error::io(initrd))?;
                // QEMU's own message about it would come late and without a hint.
                fs::metadata(&initrd).map_err(Error::io(&initrd))?;
                return Ok(Some(initrd));
            }
            (Some(initrd), _) => read(initrd)?,
            (None, Some(_)) => Vec::new(),
            (None, None) if self.files.is_empty() => return Ok(None),
            (None, None) => Vec::new(),
        };
        if let Some(init) = &self.init {
            archives.resize(archives.len().next_multiple_of(4), 0);
            archives.extend(made(Initramfs::with_init(&read(init)?).and_then(Initramfs::finish))?);
        }
        let mut files = Initramfs::new();
        for (path, content) in &self.files {
            files.file(path, 0o644, content).map_err(Error::io(path))?;
        }
        archives.resize(archives.len().next_multiple_of(4), 0);
        archives.extend(made(files.finish())?);
        write(archives)
    }

    /// The value of `-plugin`.
    fn plugin_option(&self, image: &KernelImage, kernel: &Path, folder: &Path) -> Result<String, Error> {
        let mut text = doubled(&plugin::find(self.plugin.as_deref())?.display().to_string());
        let given = |key: &str| self.plugin_args.iter().any(|arg| arg.starts_with(key));
        let format = match self.format {
            TraceFormat::Ftrace => "ftrace",
            TraceFormat::Json => "json",
        };
        let own = [
            ("kernel=", kernel.display().to_string()),
            ("out=", folder.join(TRACE).display().to_string()),
            ("summary=", folder.join(SUMMARY).display().to_string()),
            ("control=", self.control_socket(folder).display().to_string()),
            ("format=", format.to_owned()),
        ];
        for (key, value) in own {
            if !given(key) {
                text += &format!(",{key}{}", doubled(&value));
            }
        }
        let watches = if self.watch { watches(image) } else { Vec::new() };
        for arg in self.plugin_args.iter().chain(&watches) {
            text.push(',');
            text += &doubled(arg);
        }
        Ok(text)
    }
}

/// The names of files in a guest's folder.
pub(crate) const MONITOR: &str = "qmp.sock";
pub(crate) const CONTROL: &str = "control.sock";
pub(crate) const TRACE: &str = "trace";
pub(crate) const SUMMARY: &str = "summary.json";

/// The plugin's arguments for this crate's own probes, as far as the image has their places.
fn watches(image: &KernelImage) -> Vec<String> {
    let mut args = Vec::new();
    for (event, functions) in WATCHED {
        for function in functions {
            let Lookup::One(symbol) = image.symbols.lookup(None, function) else { continue };
            if !symbol.text {
                continue;
            }
            // Definitions that share an event must have the same arguments.
            let fetch = if event == "panic" { format!(" {PANIC_FORMAT}") } else { String::new() };
            args.push(format!("probe=p:{WATCH_GROUP}/{event} {function}{fetch}"));
        }
    }
    args
}

/// QEMU's way to write a comma that separates nothing.
pub(crate) fn doubled(text: &str) -> String {
    text.replace(',', ",,")
}

/// Whether an argument is `-NAME` or `--NAME`.
pub(crate) fn is_option(arg: &OsStr, name: &str) -> bool {
    let Some(text) = arg.to_str() else { return false };
    text.strip_prefix('-').map(|text| text.strip_prefix('-').unwrap_or(text)) == Some(name)
}

#[cfg(test)]
mod tests {
    use qkprobe_symbols::{GuestAddr, SymbolTable};

    use super::*;

    fn image(names: &[&'static str]) -> KernelImage {
        let rows = names.iter().zip(1..).map(|(name, at)| (GuestAddr(at * 0x100), 'T', *name, None));
        let symbols = SymbolTable::from_rows(rows).expect("few");
        KernelImage::from_parts(symbols, Vec::new(), None, qkprobe_symbols::Machine::X86_64)
    }

    #[test]
    fn the_panic_path_of_this_kernel_is_watched() {
        assert_eq!(
            watches(&image(&["start_kernel", "vpanic", "oops_enter"])),
            [
                "probe=p:qkprobe_watch/start start_kernel",
                "probe=p:qkprobe_watch/panic vpanic format=+0($arg1):string",
                "probe=p:qkprobe_watch/oops oops_enter"
            ]
        );
        assert!(watches(&image(&[])).is_empty());
    }

    #[test]
    fn another_arch_than_the_images_is_refused() {
        let boot = Boot::new("vmlinuz").arch(GuestArch::by_name("sparc64").expect("a row"));
        let error = boot.arch_of(&image(&["f"])).expect_err("refused").to_string();
        assert_eq!(error, "vmlinuz: is a kernel for x86_64, not sparc64: leave --arch out");
        let unknown = KernelImage::from_parts(
            SymbolTable::from_rows([]).expect("none"),
            Vec::new(),
            None,
            qkprobe_symbols::Machine::Unknown,
        );
        let error = Boot::new("System.map").arch_of(&unknown).expect_err("refused").to_string();
        assert!(error.contains("--arch (x86_64, i386, "), "{error}");
    }

    #[test]
    fn options_are_recognised_with_one_dash_and_two() {
        assert!(is_option(OsStr::new("-accel"), "accel") && is_option(OsStr::new("--accel"), "accel"));
        assert!(!is_option(OsStr::new("accel"), "accel") && !is_option(OsStr::new("-accelerate"), "accel"));
    }
}
