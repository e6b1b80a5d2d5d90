//! Look-up by name: of the kernel's own symbols, then of modules, and through function descriptors.
//!
//! In the 64-bit PowerPC ELFv1 ABI (big-endian kernels) `vfs_read` names a function descriptor, three words of data, and
//! the code is `.vfs_read`. Who names a function means its code: the kernel's own kprobes look for the name with a dot
//! first (`arch/powerpc/kernel/kprobes.c`, `kprobe_lookup_name`), and so does [`SymbolTable::lookup`].

use super::{Entry, NO_MODULE, Symbol, SymbolTable};

/// What a name means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup<'a> {
    /// No such name.
    None,
    /// One address.
    One(Symbol<'a>),
    /// Several addresses, ascending; also when some of them are data.
    Many(Vec<Symbol<'a>>),
}

impl SymbolTable {
    /// What `name` means. Without a module the kernel's own symbols win, and modules are searched only when it has
    /// none of that name, as `kallsyms_lookup_name` does. Rows of equal name and address count once. A name of data for
    /// which there is code with a dot before the name means that code.
    #[must_use]
    pub fn lookup(&self, module: Option<&str>, name: &str) -> Lookup<'_> {
        let wanted = |core: bool| {
            move |entry: Entry| match module {
                Some(module) => self.module(entry) == Some(module),
                None => (entry.module == NO_MODULE) == core,
            }
        };
        match self.code_or_data(name, wanted(true)) {
            Lookup::None if module.is_none() => self.code_or_data(name, wanted(false)),
            found => found,
        }
    }

    /// The rows of this name that are `wanted`, or if none of them is code, the code that the name stands for.
    fn code_or_data(&self, name: &str, wanted: impl Fn(Entry) -> bool + Copy) -> Lookup<'_> {
        let direct = self.gather(self.rows_found(name).filter(|(_, entry)| wanted(*entry)));
        let is_code = match &direct {
            Lookup::None => name.is_empty() || name.starts_with('.'),
            Lookup::One(symbol) => symbol.text,
            Lookup::Many(symbols) => symbols.iter().any(|symbol| symbol.text),
        };
        if is_code {
            return direct;
        }
        let dotted = format!(".{name}");
        // By the letter: code that only a module would run (.exit.text) lies outside of the marks.
        let is_code = |symbol: &Symbol<'_>| matches!(symbol.kind, 'T' | 't' | 'W' | 'w');
        match self.gather(self.rows_found(&dotted).filter(|(_, entry)| wanted(*entry))) {
            Lookup::One(code) if is_code(&code) => Lookup::One(code),
            Lookup::Many(code) if code.iter().all(is_code) => Lookup::Many(code),
            _ => direct,
        }
    }

    fn gather<'a>(&'a self, rows: impl Iterator<Item = (usize, Entry)>) -> Lookup<'a> {
        let mut found = Lookup::None;
        for (index, _) in rows {
            let Some(symbol) = self.symbol(index) else { continue };
            let same = |other: &Symbol<'_>| other.addr == symbol.addr && other.module == symbol.module;
            found = match found {
                Lookup::None => Lookup::One(symbol),
                Lookup::One(first) if same(&first) => found,
                Lookup::One(first) => Lookup::Many(vec![first, symbol]),
                Lookup::Many(mut all) => {
                    if !all.last().is_some_and(same) {
                        all.push(symbol);
                    }
                    Lookup::Many(all)
                }
            };
        }
        found
    }
}
