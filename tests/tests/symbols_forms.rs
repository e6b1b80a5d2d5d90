//! One real kernel in every form in which it may be given: stripped in part, in a boot wrapper, with hundreds of MB of debug
//! information. `nm` of the whole vmlinux says where its functions are.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use qkprobe_symbols::{KernelImage, Lookup, Machine};
use qkprobe_tests::{Cache, GuestKernel};
use tempfile::TempDir;

const KERNEL: GuestKernel = GuestKernel::Ppc64le6_1;
/// Static functions, functions and a variable.
const NAMES: [&str; 5] = ["start_kernel", "do_sys_openat2", "vfs_read", "alloc_fd", "linux_banner"];

/// A folder with the kernel, and a tool of the cross compiler run in it.
struct Work {
    folder: TempDir,
    vmlinux: PathBuf,
    tools: PathBuf,
}

impl Work {
    fn new() -> Self {
        let cache = Cache::open().unwrap();
        let vmlinux = cache.kernel(KERNEL).unwrap();
        Self { folder: tempfile::tempdir().unwrap(), vmlinux, tools: cache.root().join("cross/ppc64le/bin") }
    }

    fn run(&self, tool: &str, args: &[&str]) -> String {
        let mut command = Command::new(self.tools.join(format!("powerpc64le-linux-gnu-{tool}")));
        let output = command.args(args).current_dir(self.folder.path()).output().unwrap();
        assert!(output.status.success(), "{tool} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `strip` of the kernel into a file of this name.
    fn strip(&self, options: &[&str], name: &str) -> PathBuf {
        let vmlinux = self.vmlinux.display().to_string();
        self.run("strip", &[options, &["-o", name, &vmlinux]].concat());
        self.path(name)
    }

    /// What `nm` says of [`NAMES`].
    fn addresses(&self) -> Vec<u64> {
        let list = self.run("nm", &[&self.vmlinux.display().to_string()]);
        let of = |name: &&str| {
            let line = list.lines().find(|line| line.split(' ').nth(2) == Some(name)).expect("a kernel has it");
            u64::from_str_radix(line.split(' ').next().unwrap(), 16).unwrap()
        };
        NAMES.iter().map(of).collect()
    }
}

/// The names are where `nm` says.
#[track_caller]
fn assert_known(path: &Path, addresses: &[u64]) -> KernelImage {
    let image = KernelImage::load(path).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(image.machine, Machine::Ppc64);
    assert!(image.banner.as_deref().is_some_and(|banner| banner.starts_with("Linux version 6.1.0-")));
    for (name, addr) in NAMES.iter().zip(addresses) {
        let Lookup::One(symbol) = image.symbols.lookup(None, name) else { panic!("{}: {name}", path.display()) };
        assert_eq!(symbol.addr.0, *addr, "{}: {name}", path.display());
    }
    image
}

#[test]
fn what_strip_leaves_of_a_symbol_table_does_not_hide_kallsyms() {
    let work = Work::new();
    let addresses = work.addresses();
    // Debian's powerpc kernels name only functions in kallsyms; their variables come from the ELF table.
    let keep = ["-K", "linux_banner"];
    for (options, name) in [
        (&["-K", "_start", "-K", "_end"][..], "kept-two"),
        (&["-K", "start_kernel"], "kept-one"),
        (&["--discard-all"], "globals"),
        (&["--strip-debug"], "all"),
    ] {
        assert_known(&work.strip(&[options, &keep].concat(), name), &addresses);
    }
    let listed = |name: &str| work.run("nm", &[name]).lines().count();
    assert_eq!(listed("kept-two"), 2, "_end and linux_banner: there is no _start");
    assert!(listed("globals") < listed("all") / 2);
}

#[test]
fn boot_wrappers() {
    let work = Work::new();
    let addresses = work.addresses();
    work.strip(&["-K", "linux_banner"], "vmlinux.strip");
    fs::write(work.path("stub.s"), ".globl _zimage_start\n_zimage_start: nop\nb _zimage_start\n").unwrap();
    work.run("gcc", &["-nostdlib", "-static", "-Wl,-e,_zimage_start", "-o", "stub", "stub.s"]);
    // As arch/powerpc/boot/wrapper does it.
    let gzip =
        Command::new("gzip").args(["-n", "-1", "--keep", "vmlinux.strip"]).current_dir(work.folder.path()).status();
    assert!(gzip.unwrap().success());
    for (section, payload) in [
        (".kernel:vmlinux.strip", "vmlinux.strip.gz"),
        (".kernel:vmlinux.strip", "vmlinux.strip"),
        (".rodata..compressed", "vmlinux.strip.gz"),
    ] {
        let section = format!("{section}={payload}");
        let flags = format!("{}=contents,alloc,load,readonly,data", section.split('=').next().unwrap());
        work.run("objcopy", &["--add-section", &section, "--set-section-flags", &flags, "stub", "zImage"]);
        assert_known(&work.path("zImage"), &addresses);
    }
}

/// Most of a kernel with DWARF is not loaded: 600 MB more, in a section of its own.
#[test]
fn a_kernel_with_much_debug_information() {
    let work = Work::new();
    let addresses = work.addresses();
    let path = work.path("vmlinux");
    fs::copy(&work.vmlinux, &path).unwrap();
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(file.metadata().unwrap().len() + 629_145_600).unwrap();
    let whole = KernelImage::load(&work.vmlinux).unwrap();
    assert_eq!(assert_known(&path, &addresses).symbols.len(), whole.symbols.len());
}
