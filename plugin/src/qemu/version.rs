//! Which plugin API this QEMU speaks, decided before QEMU looks.
//!
//! QEMU's loader runs `dlopen` (and with it `.init_array`), then looks up `qemu_plugin_install`, then reads the integer
//! `qemu_plugin_version` and refuses a plugin outside its own range. QEMU 11.1 accepts 7 only, 10.0 accepts 2 to 4: so
//! the integer is writable, and a constructor sets it to what the symbols of the running program say.

use std::ffi::{CStr, c_int, c_void};
use std::sync::atomic::{AtomicI32, Ordering};

/// What QEMU reads. The constructor replaces the value.
#[unsafe(no_mangle)]
#[allow(non_upper_case_globals, unreachable_pub, reason = "QEMU's loader looks this name up")]
pub static qemu_plugin_version: AtomicI32 = AtomicI32::new(4);

/// The oldest API that this plugin works with: QEMU 9.2.
pub(crate) const OLDEST: i32 = 4;

/// A QEMU release, `10.0.2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Release {
    pub(crate) major: u32,
    pub(crate) minor: u32,
    pub(crate) micro: u32,
}

impl std::fmt::Display for Release {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.micro)
    }
}

#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = constructor;

extern "C" fn constructor() {
    // A panic here would end QEMU without a word; detection has no reason to, but an FFI edge is an FFI edge.
    let level = std::panic::catch_unwind(|| api_level(|name| super::api::symbol(name).is_some(), release()));
    qemu_plugin_version.store(level.unwrap_or(OLDEST), Ordering::Relaxed);
}

/// The API version of a program that exports these symbols: the first that is missing decides. No symbol tells 6
/// from 7 (QEMU 11.0 from 11.1), the release does.
fn api_level(has: impl Fn(&CStr) -> bool, release: Option<Release>) -> i32 {
    let came_with = [
        (c"qemu_plugin_scoreboard_new", 2),
        (c"qemu_plugin_register_vcpu_insn_exec_cond_cb", 3),
        (c"qemu_plugin_read_memory_vaddr", 4),
        (c"qemu_plugin_write_memory_vaddr", 5),
        (c"qemu_plugin_set_pc", 6),
    ];
    for (name, level) in came_with {
        if !has(name) {
            return level - 1;
        }
    }
    match release {
        Some(release) if (release.major, release.minor) < (11, 1) => 6,
        _ => 7,
    }
}

/// The release of the running QEMU, from the version text in the program's read-only data.
pub(crate) fn release() -> Option<Release> {
    extern "C" fn visit(info: *mut libc::dl_phdr_info, _size: usize, found: *mut c_void) -> c_int {
        // SAFETY: `found` is the `&mut Option` that `release` passes; `dl_iterate_phdr` calls back synchronously.
        let found = unsafe { &mut *found.cast::<Option<Release>>() };
        // SAFETY: `info` is valid during the callback, and `dlpi_phdr` points to `dlpi_phnum` headers.
        let (base, headers) = unsafe {
            let info = &*info;
            (info.dlpi_addr, std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)))
        };
        for header in headers {
            let readable = header.p_flags & libc::PF_R != 0 && header.p_flags & libc::PF_W == 0;
            if header.p_type != libc::PT_LOAD || !readable {
                continue;
            }
            let start = (base + header.p_vaddr) as usize as *const u8;
            // SAFETY: a read-only PT_LOAD segment of the main program stays mapped for the life of the process.
            let bytes = unsafe { std::slice::from_raw_parts(start, header.p_filesz as usize) };
            if let Some(release) = parse_release(bytes) {
                *found = Some(release);
                break;
            }
        }
        // The first object is the main program: look no further.
        1
    }
    let mut found: Option<Release> = None;
    // SAFETY: `visit` has the demanded signature and touches `found` only during the call.
    unsafe { libc::dl_iterate_phdr(Some(visit), (&raw mut found).cast()) };
    found
}

fn parse_release(bytes: &[u8]) -> Option<Release> {
    let marker = b"QEMU emulator version ";
    let at = memchr::memmem::find_iter(bytes, marker).find_map(|at| {
        let text = bytes.get(at + marker.len()..)?;
        text.first()?.is_ascii_digit().then_some(text)
    })?;
    let text = at.get(..at.len().min(24))?;
    let mut numbers = text
        .split(|byte| !byte.is_ascii_digit())
        .map(|digits| std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()));
    Some(Release { major: numbers.next()??, minor: numbers.next()??, micro: numbers.next().flatten().unwrap_or(0) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(missing: &[&CStr], release: Option<(u32, u32)>) -> i32 {
        let release = release.map(|(major, minor)| Release { major, minor, micro: 0 });
        api_level(|name| !missing.contains(&name), release)
    }

    #[test]
    fn the_first_missing_symbol_decides() {
        let set_pc = c"qemu_plugin_set_pc";
        let write = c"qemu_plugin_write_memory_vaddr";
        let read = c"qemu_plugin_read_memory_vaddr";
        let cond = c"qemu_plugin_register_vcpu_insn_exec_cond_cb";
        let scoreboard = c"qemu_plugin_scoreboard_new";
        assert_eq!(level(&[set_pc, write, read, cond, scoreboard], Some((8, 2))), 1);
        assert_eq!(level(&[set_pc, write, read, cond], Some((9, 0))), 2);
        assert_eq!(level(&[set_pc, write, read], Some((9, 1))), 3);
        assert_eq!(level(&[set_pc, write], Some((10, 0))), 4);
        assert_eq!(level(&[set_pc], Some((10, 2))), 5);
        assert_eq!(level(&[], Some((11, 0))), 6);
        assert_eq!(level(&[], Some((11, 1))), 7);
        assert_eq!(level(&[], Some((12, 0))), 7);
        assert_eq!(level(&[], None), 7);
    }

    #[test]
    fn the_release_is_read_from_the_version_text() {
        let data = b"\0QEMU emulator version \0 junk QEMU emulator version 10.0.2 (Debian 1:10.0.2)\0";
        assert_eq!(parse_release(data), Some(Release { major: 10, minor: 0, micro: 2 }));
        assert_eq!(parse_release(b"QEMU emulator version 11.1"), Some(Release { major: 11, minor: 1, micro: 0 }));
        assert_eq!(parse_release(b"no version"), None);
    }
}
