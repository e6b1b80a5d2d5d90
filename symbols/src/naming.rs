//! Names that compilers make of those in the source, and which of the two a kernel goes by.
//!
//! A compiler may append to the name of a static function what it did to it (`.isra.0`, `.constprop.0`, `.part.0`, `.cold`), or with
//! Clang's link-time optimization (CONFIG_LTO_CLANG) what makes it unique: `task_fork_fair.llvm.1234567890`. Its table of symbols
//! has the whole name. What the kernel goes by, in look-ups and in the trace, changed (`cleanup_symbol_name`, `kernel/kallsyms.c`):
//!
//! | Linux | without | the whole name is found, too |
//! | --- | --- | --- |
//! | 5.13 | what follows the last `$` (8b8e6b5d3b01, "kallsyms: strip ThinLTO hashes from static functions") | yes |
//! | 5.15 | everything from the first dot (6eb4bd92c1ce, "kallsyms: strip LTO suffixes from static functions") | yes |
//! | 6.5, 6.4.7, 6.1.42 | `.llvm.` and what follows (8cc32a9bbf29, "kallsyms: strip LTO-only suffixes from promoted global functions") | yes |
//! | 6.5.1, 6.4.14, 6.1.51 | the same (33f0467fe069, "kallsyms: Fix kallsyms_selftest failure") | no |
//! | 6.11, 6.10.7 | nothing (fb6a421fb615, "kallsyms: Match symbols exactly with CONFIG_LTO_CLANG") | it alone is |
//!
//! Symbols of modules are always found by the whole name alone. Kernels that were built otherwise (by GCC, or without
//! link-time optimization) go by whole names, whatever their version.

/// What a kernel leaves away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Strips {
    Nothing,
    /// The last `$` and what follows.
    Hash,
    /// The first dot and what follows, or else a hash.
    Suffixes,
    /// `.llvm.` and what follows.
    Llvm,
}

/// Which names a kernel goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Naming {
    strips: Strips,
    /// Its own look-ups take whole names as well.
    pub(crate) takes_whole: bool,
}

impl Default for Naming {
    fn default() -> Self {
        Self { strips: Strips::Nothing, takes_whole: true }
    }
}

impl Naming {
    /// By the kernel's banner and its symbols' whole names.
    pub(crate) fn of<'a>(banner: Option<&str>, mut names: impl Iterator<Item = &'a str>) -> Self {
        let Some(version) = banner.filter(|banner| banner.contains("clang version ")).and_then(version) else {
            return Self::default();
        };
        let (strips, takes_whole) = match version {
            (..5, ..) | (5, ..13, _) => (Strips::Nothing, true),
            (5, 13 | 14, _) => (Strips::Hash, true),
            (5, ..) | (6, 0, _) | (6, 1, ..42) | (6, 2 | 3, _) | (6, 4, ..7) => (Strips::Suffixes, true),
            (6, 1, ..51) | (6, 4, ..14) | (6, 5, 0) => (Strips::Llvm, true),
            (6, ..10, _) | (6, 10, ..7) => (Strips::Llvm, false),
            _ => (Strips::Nothing, true),
        };
        // Only link-time optimization makes such names; a kernel without it has none of them.
        if names.any(is_made_by_lto) { Self { strips, takes_whole } } else { Self::default() }
    }

    /// How many bytes of a whole name the kernel goes by.
    pub(crate) fn kept(self, whole: &str) -> usize {
        let hash = || whole.rfind('$').filter(|at| *at > 0);
        let at = match self.strips {
            Strips::Nothing => None,
            Strips::Hash => hash(),
            Strips::Suffixes => whole.find('.').filter(|at| *at > 0).or_else(hash),
            Strips::Llvm => whole.find(".llvm."),
        };
        at.unwrap_or(whole.len())
    }
}

/// `(6, 6, 1)` of `Linux version 6.6.1-arch1 (...)`.
fn version(banner: &str) -> Option<(u32, u32, u32)> {
    let text = banner.strip_prefix("Linux version ")?;
    let mut numbers = text.split(|c: char| !c.is_ascii_digit());
    let mut next = || numbers.next()?.parse().ok();
    // `6.11-rc1` and `6.11.0-rc1` are both 6.11.
    let (major, minor) = (next()?, next()?);
    let patch = text.split(['-', ' ', '+']).next().and_then(|release| release.split('.').nth(2)?.parse().ok());
    Some((major, minor, patch.unwrap_or(0)))
}

/// `NAME.llvm.NUMBER` (ThinLTO), `NAME.NUMBER` (full), `NAME$HASH` (ThinLTO with CFI, before LLVM 13).
fn is_made_by_lto(name: &str) -> bool {
    if let Some((_, hash)) = name.rsplit_once('$') {
        return !hash.is_empty() && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
    }
    let Some((stem, number)) = name.rsplit_once('.') else { return false };
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    is_number && (stem.ends_with(".llvm") || !stem.is_empty() && !stem.contains('.'))
}

/// The name in the source that a compiler made `name` of: without what it appended, and without what the kernel's build puts before
/// the name of a function's padding and preamble (`__pfx_`, `__cfi_`), or the 64-bit PowerPC ELFv1 ABI before that of its code
/// (`.`).
pub(crate) fn in_source(name: &str) -> &str {
    let mut name = name.strip_prefix('.').unwrap_or(name);
    name = before_function(name).unwrap_or(name);
    while let Some((stem, last)) = name.rsplit_once('.') {
        if stem.is_empty() || !is_appended(last) {
            break;
        }
        name = stem;
    }
    match name.rsplit_once('$') {
        Some((stem, hash)) if !stem.is_empty() && hash.bytes().all(|byte| byte.is_ascii_hexdigit()) => stem,
        _ => name,
    }
}

/// The function whose padding (`__pfx_`) or preamble of checked calls (`__cfi_`) has this name.
#[must_use]
pub fn before_function(name: &str) -> Option<&str> {
    name.strip_prefix("__pfx_").or_else(|| name.strip_prefix("__cfi_")).filter(|function| !function.is_empty())
}

/// One piece of what compilers append.
fn is_appended(piece: &str) -> bool {
    const WORDS: [&str; 8] = ["isra", "constprop", "part", "cold", "llvm", "lto_priv", "cfi", "cfi_jt"];
    WORDS.contains(&piece) || (!piece.is_empty() && piece.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{GuestAddr, Lookup, SymbolTable};

    const WHOLE: &str = "task_fork_fair.llvm.10138163512894673";

    fn banner(release: &str, compiler: &str) -> String {
        format!("Linux version {release} (build@host) ({compiler}) #1 SMP PREEMPT_DYNAMIC Mon Jan  1 00:00:00 UTC 2024")
    }

    fn kernel(banner: &str, names: &[(u64, char, &'static str, Option<&'static str>)]) -> SymbolTable {
        let rows = names.iter().map(|(addr, kind, name, module)| (GuestAddr(*addr), *kind, *name, *module));
        let mut table = SymbolTable::from_rows(rows).unwrap();
        table.name_as_kernel(Some(banner));
        table
    }

    fn found(table: &SymbolTable, module: Option<&str>, name: &str) -> Vec<u64> {
        match table.lookup(module, name) {
            Lookup::None => Vec::new(),
            Lookup::One(symbol) => vec![symbol.addr.0],
            Lookup::Many(symbols) => symbols.iter().map(|symbol| symbol.addr.0).collect(),
        }
    }

    const ROWS: [(u64, char, &str, Option<&str>); 8] = [
        (0x1000, 'T', "_text", None),
        (0x1100, 't', WHOLE, None),
        (0x1200, 't', "verifier_log", None),
        (0x1300, 't', "call_rcu.cold", None),
        (0x2000, 'T', "_etext", None),
        (0x3000, 'd', "verifier_log.__already_done", None),
        (0x4000, 'B', "_end", None),
        (0x9000, 't', "helper.llvm.77", Some("ext4")),
    ];

    /// What each version takes for the function, and what it prints.
    #[test]
    fn every_version_by_its_own_rule() {
        const CLANG: &str = "clang version 17.0.6, LLD 17.0.6";
        for (release, compiler, plain, whole, printed) in [
            ("5.10.200", CLANG, false, true, WHOLE),
            ("5.15.0", CLANG, true, true, "task_fork_fair"),
            ("6.1.41", CLANG, true, true, "task_fork_fair"),
            ("6.1.42", CLANG, true, true, "task_fork_fair"),
            ("6.1.51-android14", CLANG, true, false, "task_fork_fair"),
            ("6.4.13", CLANG, true, true, "task_fork_fair"),
            ("6.5.0-rc3", CLANG, true, true, "task_fork_fair"),
            ("6.5.1", CLANG, true, false, "task_fork_fair"),
            ("6.6.30-1-lto", CLANG, true, false, "task_fork_fair"),
            ("6.10.6", CLANG, true, false, "task_fork_fair"),
            ("6.10.7", CLANG, false, true, WHOLE),
            ("6.11.0-rc4", CLANG, false, true, WHOLE),
            ("7.3.4", CLANG, false, true, WHOLE),
            (
                "6.6.30",
                "Android (11368308) clang version 18.0.0 (https://example), LLD 18.0.0",
                true,
                false,
                "task_fork_fair",
            ),
            ("6.6.30", "gcc (Debian 13.2.0-1) 13.2.0, GNU ld 2.42", false, true, WHOLE),
        ] {
            let table = kernel(&banner(release, compiler), &ROWS);
            let expected = |is: bool| if is { vec![0x1100] } else { vec![] };
            assert_eq!(found(&table, None, "task_fork_fair"), expected(plain), "{release} {compiler}");
            assert_eq!(found(&table, None, WHOLE), expected(whole), "{release} {compiler}");
            assert_eq!(table.containing(GuestAddr(0x1104)).unwrap().0.name, printed, "{release} {compiler}");
            // Modules: by the whole name.
            assert_eq!(found(&table, Some("ext4"), "helper"), [0; 0], "{release}");
            assert_eq!(found(&table, None, "helper.llvm.77"), [0x9000], "{release}");
        }
    }

    #[test]
    fn only_some_versions_leave_away_what_no_optimization_at_link_time_made() {
        let names = |release: &str| {
            let table = kernel(&banner(release, "clang version 16.0.0"), &ROWS);
            (found(&table, None, "verifier_log"), found(&table, None, "call_rcu"))
        };
        // The static variable of a function gets its name, as that kernel had it (8cc32a9bbf29 tells).
        assert_eq!(names("6.3.0"), (vec![0x1200, 0x3000], vec![0x1300]));
        assert_eq!(names("6.6.0"), (vec![0x1200], vec![]));
        let without: Vec<_> = ROWS.iter().filter(|row| !row.2.contains(".llvm.")).copied().collect();
        let table = kernel(&banner("6.3.0", "clang version 16.0.0"), &without);
        assert_eq!((found(&table, None, "verifier_log"), found(&table, None, "call_rcu")), (vec![0x1200], vec![]));
    }

    #[test]
    fn hashes_of_thin_lto_with_cfi() {
        let rows = [(0x1000, 'T', "_text", None), (0x1100, 't', "do_it$2f3a9c", None)];
        for (release, plain) in [("5.12.0", vec![]), ("5.13.0", vec![0x1100]), ("6.0.0", vec![0x1100])] {
            let table = kernel(&banner(release, "clang version 12.0.5"), &rows);
            assert_eq!((found(&table, None, "do_it"), found(&table, None, "do_it$2f3a9c")), (plain, vec![0x1100]));
        }
    }

    #[test]
    fn names_in_the_source() {
        for (made, source) in [
            ("vfs_statfs.part.0.isra.0", "vfs_statfs"),
            ("foo.constprop.12", "foo"),
            ("foo.cold", "foo"),
            ("foo.cold.17", "foo"),
            ("foo.isra.0.cold", "foo"),
            (WHOLE, "task_fork_fair"),
            ("foo.llvm.123.cfi_jt", "foo"),
            ("foo.42", "foo"),
            ("do_it$2f3a9c", "do_it"),
            ("__pfx_vfs_read", "vfs_read"),
            ("__cfi_foo.llvm.1", "foo"),
            (".vfs_read", "vfs_read"),
            (".foo.isra.0", "foo"),
            ("vfs_read", "vfs_read"),
            ("verifier_log._entry", "verifier_log._entry"),
            ("__pfx_", "__pfx_"),
            (".0", "0"),
            ("", ""),
        ] {
            assert_eq!(in_source(made), source, "{made}");
        }
    }

    #[test]
    fn other_spellings_functions_first() {
        let table = kernel(
            &banner("6.12.0", "gcc"),
            &[
                (0x1000, 'T', "_text", None),
                (0x1100, 't', "vfs_statfs.part.0.isra.0", None),
                (0x1200, 't', "vfs_statfs.cold", None),
                (0x1300, 't', "__pfx_statfs_by_dentry", None),
                (0x1310, 't', "statfs_by_dentry", None),
                (0x2000, 'T', "_etext", None),
                (0x3000, 'd', "vfs_statfs.0", None),
                (0x4000, 'B', "_end", None),
            ],
        );
        let spellings = |name: &str| table.spellings(name).iter().map(|symbol| symbol.name).collect::<Vec<_>>();
        assert_eq!(spellings("vfs_statfs"), ["vfs_statfs.part.0.isra.0", "vfs_statfs.cold", "vfs_statfs.0"]);
        assert_eq!(spellings("statfs_by_dentry.isra.0"), ["statfs_by_dentry", "__pfx_statfs_by_dentry"]);
        assert!(spellings("vfs_statf").is_empty() && spellings("").is_empty());
    }
}
