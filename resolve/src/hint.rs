//! What a user may have meant by a name that no symbol has.

use qkprobe_arch::Arch;
use qkprobe_symbols::{Lookup, SymbolTable};

/// What names of system calls begin with, in one kernel or another. The longest that fits is meant.
const SYSCALL_PREFIXES: [&str; 6] = ["__x64_sys_", "__ia32_sys_", "__se_sys_", "__do_sys_", "sys_", "SyS_"];

/// For people: names that are near, or why there is none.
pub(crate) fn hint(name: &str, symbols: &SymbolTable, arch: &dyn Arch) -> String {
    if name.contains(['*', '?', '[']) {
        return format!("a place is one function, not a pattern: `qkprobe symbols -f IMAGE '{name}'` lists what fits");
    }
    let mut near: Vec<String> = syscall(name, symbols, arch).into_iter().collect();
    for similar in symbols.similar(name) {
        if near.iter().all(|known| known != similar) {
            near.push(similar.to_owned());
        }
    }
    match near.as_slice() {
        [] => "if it is in a module, write MODULE:SYMBOL, and give a copy of the guest's /proc/kallsyms (--symbols FILE, or \
               another kernel=FILE)"
            .to_owned(),
        [one] => format!("did you mean {one}?"),
        [some @ .., last] => format!("did you mean {} or {last}?", some.join(", ")),
    }
}

/// What this kernel calls the function of a system call, of which a name is that of elsewhere.
fn syscall(name: &str, symbols: &SymbolTable, arch: &dyn Arch) -> Option<String> {
    let call = SYSCALL_PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix))?;
    let own = format!("{}{call}", arch.syscall_prefix());
    (symbols.lookup(None, &own) != Lookup::None).then_some(own)
}

#[cfg(test)]
mod tests {
    use qkprobe_symbols::GuestAddr;

    use super::*;

    #[test]
    fn what_was_meant() {
        let names = ["__x64_sys_openat", "do_sys_openat2", "__do_sys_openat", "vfs_read", "sys_getppid"];
        let rows = names.iter().zip(1..).map(|(name, at)| (GuestAddr(at * 0x100), 'T', *name, None));
        let symbols = SymbolTable::from_rows(rows).unwrap();
        let hint = |name: &str, arch: &str| hint(name, &symbols, qkprobe_arch::by_name(arch).unwrap());
        // A bare sys_X is the system call.
        assert!(hint("sys_openat", "x86_64").starts_with("did you mean __x64_sys_openat, "));
        assert!(hint("__ia32_sys_openat", "x86_64").starts_with("did you mean __x64_sys_openat"));
        assert!(hint("__x64_sys_getppid", "ppc64le").starts_with("did you mean sys_getppid"));
        assert_eq!(hint("vfs_raed", "x86_64"), "did you mean vfs_read?");
        assert_eq!(
            hint("vfs_*", "x86_64"),
            "a place is one function, not a pattern: `qkprobe symbols -f IMAGE 'vfs_*'` lists what fits"
        );
        assert!(
            hint("snd_pcm_open", "x86_64").starts_with("if it is in a module, write MODULE:SYMBOL, and give a copy")
        );
    }
}
