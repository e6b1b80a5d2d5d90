//! The programs of the guests: the init program of all Linux guests, and the guests without a kernel.

use std::fs;
use std::path::Path;
use std::process::Command;

use qkprobe_harness::initramfs::Initramfs;
use qkprobe_tests::{GuestArch, GuestKernel};

use crate::cross;
use crate::process::output;
use crate::recipes::Tools;

/// The init program and how it is built.
const INIT_SOURCES: [(&str, &str); 6] = [
    ("qk.h", include_str!("../../guest-images/init/qk.h")),
    ("init.c", include_str!("../../guest-images/init/init.c")),
    ("load.c", include_str!("../../guest-images/init/load.c")),
    ("files.c", include_str!("../../guest-images/init/files.c")),
    ("machine.c", include_str!("../../guest-images/init/machine.c")),
    ("workers.c", include_str!("../../guest-images/init/workers.c")),
];
const INIT_FLAGS: [&str; 8] = [
    "-std=gnu11",
    "-static",
    "-O2",
    "-Wall",
    "-Wextra",
    "-pthread",
    // For guests of 32 bits: /proc/kcore is longer than 2 GB, and time goes on after 2038.
    "-D_FILE_OFFSET_BITS=64",
    "-D_TIME_BITS=64",
];

/// The guest without a kernel for `x86_64` and how it is built.
const BARE_SOURCES: [(&str, &str); 9] = [
    ("bare.inc", include_str!("../../guest-images/bare/bare.inc")),
    ("bare.ld", include_str!("../../guest-images/bare/bare.ld")),
    ("boot.S", include_str!("../../guest-images/bare/boot.S")),
    ("traps.S", include_str!("../../guest-images/bare/traps.S")),
    ("harness.S", include_str!("../../guest-images/bare/harness.S")),
    ("flow.S", include_str!("../../guest-images/bare/flow.S")),
    ("shapes.S", include_str!("../../guest-images/bare/shapes.S")),
    ("data.S", include_str!("../../guest-images/bare/data.S")),
    ("system.S", include_str!("../../guest-images/bare/system.S")),
];
const BARE_FLAGS: [&str; 9] = [
    "-nostdlib",
    "-static",
    "-no-pie",
    "-Wa,--fatal-warnings",
    "-Wl,--fatal-warnings",
    "-Wl,--build-id=none",
    "-Wl,-z,noexecstack",
    "-Wl,-z,max-page-size=4096",
    "-Wl,-T,bare.ld",
];

/// The same for `i386`.
const I386_SOURCES: [(&str, &str); 10] = [
    ("bare.inc", include_str!("../../guest-images/bare/i386/bare.inc")),
    ("bare.ld", include_str!("../../guest-images/bare/i386/bare.ld")),
    ("boot.S", include_str!("../../guest-images/bare/i386/boot.S")),
    ("traps.S", include_str!("../../guest-images/bare/i386/traps.S")),
    ("call.S", include_str!("../../guest-images/bare/i386/call.S")),
    ("harness.c", include_str!("../../guest-images/bare/i386/harness.c")),
    ("flow.S", include_str!("../../guest-images/bare/i386/flow.S")),
    ("shapes.S", include_str!("../../guest-images/bare/i386/shapes.S")),
    ("data.S", include_str!("../../guest-images/bare/i386/data.S")),
    ("system.S", include_str!("../../guest-images/bare/i386/system.S")),
];
const I386_FLAGS: [&str; 5] = [
    "-march=i686",
    // The harness must not change what it prints.
    "-mno-sse",
    "-mno-mmx",
    // There is no memset.
    "-fno-tree-loop-distribute-patterns",
    "-Wl,-z,max-page-size=4096",
];

/// The same for powerpc, of either byte order.
const POWERPC_SOURCES: [(&str, &str); 8] = [
    ("bare.inc", include_str!("../../guest-images/bare/powerpc/bare.inc")),
    ("bare.ld", include_str!("../../guest-images/bare/powerpc/bare.ld")),
    ("boot.S", include_str!("../../guest-images/bare/powerpc/boot.S")),
    ("call.S", include_str!("../../guest-images/bare/powerpc/call.S")),
    ("harness.c", include_str!("../../guest-images/bare/powerpc/harness.c")),
    ("flow.S", include_str!("../../guest-images/bare/powerpc/flow.S")),
    ("data.S", include_str!("../../guest-images/bare/powerpc/data.S")),
    ("system.S", include_str!("../../guest-images/bare/powerpc/system.S")),
];
const POWERPC_FLAGS: [&str; 9] = [
    "-m64",
    // No descriptors in big endian either.
    "-mabi=elfv2",
    "-mcpu=power8",
    "-mno-vsx",
    "-mno-altivec",
    "-msoft-float",
    "-mcmodel=medium",
    // There is no memset.
    "-fno-tree-loop-distribute-patterns",
    "-Wl,-z,max-page-size=4096",
];

/// The same with 32 bits.
const PPC32_SOURCES: [(&str, &str); 8] = [
    ("bare.inc", include_str!("../../guest-images/bare/powerpc/bare.inc")),
    ("bare.ld", include_str!("../../guest-images/bare/powerpc/bare32.ld")),
    ("boot32.S", include_str!("../../guest-images/bare/powerpc/boot32.S")),
    ("call32.S", include_str!("../../guest-images/bare/powerpc/call32.S")),
    ("harness.c", include_str!("../../guest-images/bare/powerpc/harness.c")),
    ("flow.S", include_str!("../../guest-images/bare/powerpc/flow.S")),
    ("data32.S", include_str!("../../guest-images/bare/powerpc/data32.S")),
    ("system32.S", include_str!("../../guest-images/bare/powerpc/system32.S")),
];
const PPC32_FLAGS: [&str; 7] = [
    "-m32",
    "-mcpu=7400",
    "-mno-altivec",
    "-msoft-float",
    // No base register for small data.
    "-msdata=none",
    // There is no memset.
    "-fno-tree-loop-distribute-patterns",
    "-Wl,-z,max-page-size=4096",
];

/// The same for `sparc64`.
const SPARC64_SOURCES: [(&str, &str); 10] = [
    ("bare.inc", include_str!("../../guest-images/bare/sparc64/bare.inc")),
    ("bare.ld", include_str!("../../guest-images/bare/sparc64/bare.ld")),
    ("boot.S", include_str!("../../guest-images/bare/sparc64/boot.S")),
    ("traps.S", include_str!("../../guest-images/bare/sparc64/traps.S")),
    ("call.S", include_str!("../../guest-images/bare/sparc64/call.S")),
    ("harness.c", include_str!("../../guest-images/bare/sparc64/harness.c")),
    ("flow.S", include_str!("../../guest-images/bare/sparc64/flow.S")),
    ("windows.S", include_str!("../../guest-images/bare/sparc64/windows.S")),
    ("data.S", include_str!("../../guest-images/bare/sparc64/data.S")),
    ("system.S", include_str!("../../guest-images/bare/sparc64/system.S")),
];
const SPARC64_FLAGS: [&str; 6] =
    ["-m64", "-mcpu=ultrasparc", "-mcmodel=medlow", "-msoft-float", "-mno-app-regs", "-Wl,-z,max-page-size=8192"];

/// What those with a harness in C have in common.
const FREESTANDING: [&str; 16] = [
    "-O2",
    "-ffreestanding",
    "-fno-builtin",
    "-fno-pic",
    "-fno-stack-protector",
    "-Wall",
    "-Wextra",
    "-nostdlib",
    "-static",
    "-no-pie",
    "-Wa,--fatal-warnings",
    "-Wl,--fatal-warnings",
    "-Wl,--build-id=none",
    "-Wl,-z,noexecstack",
    // One segment: nothing protects memory there.
    "-Wl,--no-warn-rwx-segments",
    "-Wl,-T,bare.ld",
];

/// Differs when the init program does.
pub(crate) fn init_stamp() -> String {
    format!("{INIT_SOURCES:?} {INIT_FLAGS:?}")
}

/// Differs when the guest does.
pub(crate) fn bare_stamp(arch: GuestArch) -> String {
    let (sources, flags, common) = bare(arch);
    match arch {
        GuestArch::X86_64 => format!("{sources:?} {flags:?}"),
        _ => format!("{sources:?} {flags:?} {common:?}"),
    }
}

/// Sources, flags, and flags of several.
type Program = (&'static [(&'static str, &'static str)], &'static [&'static str], &'static [&'static str]);

fn bare(arch: GuestArch) -> Program {
    match arch {
        GuestArch::Ppc64 | GuestArch::Ppc64le => (&POWERPC_SOURCES, &POWERPC_FLAGS, &FREESTANDING),
        GuestArch::Sparc64 => (&SPARC64_SOURCES, &SPARC64_FLAGS, &FREESTANDING),
        GuestArch::I386 => (&I386_SOURCES, &I386_FLAGS, &FREESTANDING),
        GuestArch::Ppc32 => (&PPC32_SOURCES, &PPC32_FLAGS, &FREESTANDING),
        GuestArch::X86_64 => (&BARE_SOURCES, &BARE_FLAGS, &[]),
    }
}

/// Compiles the init program and packs it into an initramfs.
///
/// # Errors
/// A text for the user.
pub(crate) fn make_init(item: &str, arch: GuestArch, folder: &Path, tools: Tools<'_>) -> Result<(), String> {
    tools.progress.step(item, "compiling");
    let program = folder.join("init");
    let [gcc, libc] = cross::packages(arch);
    compile(arch, &INIT_SOURCES, &[&INIT_FLAGS], &program, tools).map_err(|error| {
        format!("the guests' init program does not build (it needs the packages {gcc} and {libc}): {error}")
    })?;
    let io = |error: std::io::Error| format!("{}: {error}", folder.display());
    let archive = Initramfs::with_init(&fs::read(&program).map_err(io)?).finish().map_err(io)?;
    fs::write(folder.join("initramfs.cpio"), archive).map_err(io)
}

/// Builds a guest without a kernel.
///
/// # Errors
/// A text for the user.
pub(crate) fn make_bare(item: &str, arch: GuestArch, folder: &Path, tools: Tools<'_>) -> Result<(), String> {
    tools.progress.step(item, "compiling");
    let (sources, flags, common) = bare(arch);
    let image = folder.join(GuestKernel::X86_64Bare.file());
    let [gcc, _] = cross::packages(arch);
    compile(arch, sources, &[flags, common], &image, tools)
        .map_err(|error| format!("the bare guest does not build (it needs the package {gcc}): {error}"))
}

/// Writes the sources into the scratch folder, and compiles and links those that are to be compiled.
fn compile(
    arch: GuestArch,
    sources: &[(&str, &str)],
    flags: &[&[&str]],
    program: &Path,
    tools: Tools<'_>,
) -> Result<(), String> {
    let mut compiler = Command::new(format!("{}gcc", cross::prefix(arch)?));
    compiler.current_dir(tools.scratch).args(flags.concat()).arg("-o").arg(program);
    for (name, text) in sources {
        let path = tools.scratch.join(name);
        fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
        if [".c", ".S"].iter().any(|ending| name.ends_with(ending)) {
            compiler.arg(name);
        }
    }
    output(&mut compiler).map(drop)
}
