//! QEMU's command line.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use qkprobe_symbols::KernelImage;

use crate::arch::GuestArch;
use crate::boot::{Boot, MONITOR, TRACE, Threads, TraceFormat};
use crate::error::Error;
use crate::initramfs::Initramfs;
use crate::{plugin, qemu, watched};

/// What QEMU is started for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// [`Boot::start`].
    Guest,
    /// [`Boot::launch`].
    Alone,
}

impl Boot {
    /// QEMU's command line. Files that it names are in `folder`. The image is needed to [`watch`](Boot::watch).
    pub(crate) fn command(
        &self,
        image: Option<&KernelImage>,
        arch: &GuestArch,
        folder: &Path,
        way: Way,
    ) -> Result<Command, Error> {
        let mut command = Command::new(qemu::find(arch, self.qemu.as_deref())?);
        let has = |name: &str| self.qemu_args.iter().any(|arg| is_option(arg, name));
        if !self.names_machine() {
            command.args(["-M", arch.machine]);
        }
        if let Some(cpu) = arch.cpu.filter(|_| !has("cpu")) {
            command.args(["-cpu", cpu]);
        }
        if !self.names_accelerator() {
            command.args(["-accel", &self.accelerator(arch)]);
        }
        let cpus = self.cpus.clamp(1, arch.max_cpus);
        command.args(["-smp", &cpus.to_string(), "-m", &format!("{}M", self.memory_mb_of(arch))]);
        command.args(["-nodefaults", "-nographic", "-no-reboot", "-serial", "stdio"]);
        let (option, before) = arch.second_serial;
        for (index, device) in self.second_serials.iter().enumerate() {
            command.args(["-chardev", &format!("{device},id=second{index}")]);
            command.args([option, &format!("{before}second{index}")]);
        }
        if way == Way::Guest {
            let monitor = format!("unix:{},server=on,wait=off", doubled(&folder.join(MONITOR).display().to_string()));
            command.args(["-S", "-qmp", &monitor]);
        }
        if let Some(name) = &self.name {
            command.args(["-name", &doubled(name)]);
        }
        if let Some(seed) = self.seed {
            command.args(["-seed", &seed.to_string()]);
        }
        let kernel = std::path::absolute(&self.kernel).map_err(Error::io(&self.kernel))?;
        command.arg("-kernel").arg(&kernel);
        if let Some(initrd) = self.initramfs(folder)? {
            command.arg("-initrd").arg(initrd);
        }
        if let Some(append) = &self.append {
            command.args(["-append", format!("console={} {}{append}", arch.console, arch.append).trim_end()]);
        }
        if way == Way::Guest || self.loads_plugin {
            command.arg("-plugin").arg(self.plugin_option(image, &kernel, folder, way)?);
        }
        command.args(&self.qemu_args);
        if self.works_in_folder {
            command.current_dir(folder);
        }
        Ok(command)
    }

    /// Whether the user's own arguments say which machine; `-machine memory-backend=ram` does not.
    fn names_machine(&self) -> bool {
        self.machine_parts().any(|part| !part.contains('=') || part.starts_with("type="))
    }

    /// Whether the user's own arguments say which accelerator. With a second one QEMU would tell of the two and not of the one that
    /// the plugin cannot work with.
    fn names_accelerator(&self) -> bool {
        let is_given = |name| self.qemu_args.iter().any(|arg| is_option(arg, name));
        is_given("accel") || is_given("enable-kvm") || self.machine_parts().any(|part| part.starts_with("accel="))
    }

    /// The parts of the user's own `-M` and `-machine`.
    fn machine_parts(&self) -> impl Iterator<Item = &str> {
        let pairs = self.qemu_args.iter().zip(self.qemu_args.iter().skip(1));
        let values = pairs.filter(|(name, _)| is_option(name, "M") || is_option(name, "machine"));
        values.filter_map(|(_, value)| value.to_str()).flat_map(|value| value.split(','))
    }

    /// The value of `-accel`.
    fn accelerator(&self, arch: &GuestArch) -> String {
        let threads = self.threads.unwrap_or(if arch.multi_thread { Threads::Multi } else { Threads::Single });
        let mut text = match threads {
            Threads::Multi => "tcg,thread=multi".to_owned(),
            Threads::Single => "tcg,thread=single".to_owned(),
        };
        if let Some(size) = self.code_cache_mb {
            text += &format!(",tb-size={size}");
        }
        if self.one_insn_per_block {
            text += ",one-insn-per-tb=on";
        }
        text
    }

    fn initramfs(&self, folder: &Path) -> Result<Option<PathBuf>, Error> {
        let read = |path: &PathBuf| fs::read(path).map_err(Error::io(path));
        let mut archives = match (&self.initrd, &self.init) {
            (Some(initrd), None) if self.files.is_empty() => {
                let initrd = std::path::absolute(initrd).map_err(Error::io(initrd))?;
                // QEMU's own message about it would come late and without a hint.
                fs::metadata(&initrd).map_err(Error::io(&initrd))?;
                return Ok(Some(initrd));
            }
            (None, None) if self.files.is_empty() => return Ok(None),
            (Some(initrd), _) => read(initrd)?,
            (None, _) => Vec::new(),
        };
        if let Some(init) = &self.init {
            archives = Initramfs::with_init(&read(init)?).append_to(archives).map_err(Error::io(init))?;
        }
        let files = self.files.iter();
        let files = files.fold(Initramfs::new(), |files, (path, content)| files.file(path, 0o644, content));
        archives = files.append_to(archives).map_err(Error::io(folder))?;
        let path = folder.join("initramfs.cpio");
        fs::write(&path, archives).map_err(Error::io(&path))?;
        Ok(Some(path))
    }

    /// The value of `-plugin`.
    fn plugin_option(
        &self,
        image: Option<&KernelImage>,
        kernel: &Path,
        folder: &Path,
        way: Way,
    ) -> Result<String, Error> {
        let mut text = doubled(&plugin::find(self.plugin.as_deref())?.display().to_string());
        let given = |key: &str| self.plugin_args.iter().any(|arg| arg.starts_with(key));
        let shown = |path: PathBuf| Some(path.display().to_string());
        let control = match way {
            Way::Guest => shown(self.control_socket(folder)),
            Way::Alone => self.control.as_ref().and_then(|_| shown(self.control_socket(folder))),
        };
        let format = match (self.format, way) {
            (Some(TraceFormat::Ftrace), _) => Some("ftrace".to_owned()),
            (Some(TraceFormat::Json), _) | (None, Way::Guest) => Some("json".to_owned()),
            (None, Way::Alone) => None,
        };
        let symbols =
            self.symbols.iter().map(|file| Ok(("kernel=", shown(std::path::absolute(file).map_err(Error::io(file))?))));
        let symbols = symbols.collect::<Result<Vec<_>, Error>>()?;
        let own = [
            ("kernel=", shown(kernel.to_owned())),
            ("out=", shown(folder.join(TRACE))),
            ("summary=", shown(self.summary_file(folder))),
            ("control=", control),
            ("format=", format),
        ];
        let [first, rest @ ..] = own;
        for (key, value) in [first].into_iter().chain(symbols).chain(rest) {
            if let Some(value) = value.filter(|_| !given(key)) {
                text += &format!(",{key}{}", doubled(&value));
            }
        }
        let watches = image.filter(|_| self.watch).map(watched::arguments).unwrap_or_default();
        for arg in self.plugin_args.iter().chain(&watches) {
            text.push(',');
            text += &doubled(arg);
        }
        Ok(text)
    }
}

/// QEMU's way to write a comma that separates nothing.
#[must_use]
pub fn doubled(text: &str) -> String {
    text.replace(',', ",,")
}

/// Whether an argument is `-NAME` or `--NAME`.
pub(crate) fn is_option(arg: &OsStr, name: &str) -> bool {
    let Some(text) = arg.to_str() else { return false };
    text.strip_prefix('-').map(|text| text.strip_prefix('-').unwrap_or(text)) == Some(name)
}

#[cfg(test)]
pub(crate) mod tests {
    use qkprobe_symbols::{GuestAddr, SymbolTable};

    use super::*;

    /// An image with these functions and nothing else.
    pub(crate) fn image(names: &[&'static str]) -> KernelImage {
        let rows = names.iter().zip(1..).map(|(name, at)| (GuestAddr(at * 0x100), 'T', *name, None));
        let symbols = SymbolTable::from_rows(rows).expect("few");
        KernelImage::from_parts(symbols, Vec::new(), None, qkprobe_symbols::Machine::X86_64)
    }

    /// The command line behind the program. `sh` and the root folder stand for a QEMU and a plugin that are there.
    fn line(boot: Boot, arch: &str, way: Way) -> String {
        let arch = GuestArch::by_name(arch).expect("a row");
        let boot = boot.qemu("/bin/sh");
        let command = boot.command(None, arch, Path::new("/tmp/a,b"), way).expect("a command line");
        command.get_args().map(|arg| arg.to_str().expect("UTF-8")).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn alone_it_gets_what_was_asked_for() {
        assert_eq!(
            line(Boot::new("/k"), "x86_64", Way::Alone),
            "-M pc -cpu max -accel tcg,thread=multi -smp 1 -m 512M -nodefaults -nographic -no-reboot -serial stdio \
             -kernel /k -append console=ttyS0 panic=-1 no_timer_check"
        );
        let boot = Boot::new("/k").cpus(9).threads(Threads::Multi).code_cache(8).one_insn_per_block().without_append();
        let boot = boot.memory(64).second_serial("file,path=x").second_serial("null");
        assert_eq!(
            line(boot.qemu_args(["-machine", "memory-backend=ram"]), "sparc64", Way::Alone),
            "-M sun4u -accel tcg,thread=multi,tb-size=8,one-insn-per-tb=on -smp 1 -m 64M -nodefaults -nographic -no-reboot \
             -serial stdio -chardev file,path=x,id=second0 -device pci-serial,bus=pciB,chardev=second0 \
             -chardev null,id=second1 -device pci-serial,bus=pciB,chardev=second1 -kernel /k -machine memory-backend=ram"
        );
        let boot =
            Boot::new("/k").plugin("/").plugin_arg("probe=p:x f a=$arg1,b").plugin_arg("out=/dev/null").append("q");
        assert_eq!(
            line(boot.qemu_args(["--machine", "g3beige,via=cuda", "-cpu", "g3"]), "ppc", Way::Alone),
            "-accel tcg,thread=single -smp 1 -m 256M -nodefaults -nographic -no-reboot -serial stdio -kernel /k \
             -append console=ttyS0 panic=-1 q \
             -plugin /,kernel=/k,summary=/tmp/a,,b/summary.json,probe=p:x f a=$arg1,,b,out=/dev/null \
             --machine g3beige,via=cuda -cpu g3"
        );
    }

    #[test]
    fn a_guest_has_monitor_control_and_json() {
        assert_eq!(
            line(Boot::new("/k").plugin("/").seed(5), "ppc64le", Way::Guest),
            "-M pseries,x-vof=on -cpu power9 -accel tcg,thread=multi -smp 1 -m 512M -nodefaults -nographic -no-reboot \
             -serial stdio -S -qmp unix:/tmp/a,,b/qmp.sock,server=on,wait=off -seed 5 -kernel /k \
             -append console=hvc0 panic=-1 \
             -plugin /,kernel=/k,out=/tmp/a,,b/trace,summary=/tmp/a,,b/summary.json,control=/tmp/a,,b/control.sock,format=json"
        );
        let control = |boot: Boot| {
            let all = line(boot.plugin("/").control("own.sock"), "ppc", Way::Alone);
            all.split_once("control=").map(|(_, rest)| rest.to_owned())
        };
        assert_eq!(control(Boot::new("/k").in_own_folder()).as_deref(), Some("/tmp/a,,b/own.sock"));
        let here = std::env::current_dir().expect("a folder").join("own.sock");
        assert_eq!(control(Boot::new("/k")).as_deref(), here.to_str());
    }

    #[test]
    fn options_are_recognised_with_one_dash_and_two() {
        assert!(is_option(OsStr::new("-accel"), "accel") && is_option(OsStr::new("--accel"), "accel"));
        assert!(!is_option(OsStr::new("accel"), "accel") && !is_option(OsStr::new("-accelerate"), "accel"));
    }
}
