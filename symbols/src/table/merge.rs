//! Symbols of two sources in one table: of a kernel and its modules, of an ELF file and its kallsyms.

use std::collections::HashSet;

use super::{Builder, NO_MODULE, Naming, Symbol, SymbolTable};
use crate::error::ErrorKind;

impl SymbolTable {
    /// Does `other`, the kernel's own table, have names that this one has not at that address? Those of the type `?` do not
    /// count: nothing of their section is loaded, and tables of ELF files leave them out.
    pub(crate) fn lacks(&self, other: &SymbolTable) -> bool {
        let has =
            |symbol: &Symbol<'_>| self.rows_named(symbol.whole_name).any(|(_, entry)| entry.addr == symbol.addr.0);
        !other.iter().filter(|symbol| symbol.kind != '?').all(|symbol| has(&symbol))
    }

    /// Adds the symbols of another source, e.g. those of modules. Rows that both have (same name, address and
    /// module) count once; at one address, `self` comes first.
    ///
    /// # Errors
    /// More names than a table holds.
    pub fn merge(&mut self, other: &SymbolTable) -> Result<(), ErrorKind> {
        let mut builder = Builder::default();
        let known_bounds = |table: &SymbolTable| {
            !table.extents.is_empty() || table.entries.iter().all(|entry| entry.module != NO_MODULE)
        };
        if known_bounds(self) && known_bounds(other) {
            builder.extents(self.extents.iter().chain(&other.extents).copied());
        }
        for symbol in self.iter() {
            builder.push(symbol.addr.0, symbol.kind, symbol.whole_name, symbol.module)?;
        }
        let known: HashSet<_> = self.iter().map(|symbol| (symbol.addr, symbol.whole_name, symbol.module)).collect();
        for symbol in other.iter() {
            if !known.contains(&(symbol.addr, symbol.whole_name, symbol.module)) {
                builder.push(symbol.addr.0, symbol.kind, symbol.whole_name, symbol.module)?;
            }
        }
        // Of the two, the one whose kernel is known.
        let naming = if self.naming == Naming::default() { other.naming } else { self.naming };
        *self = builder.finish();
        self.set_naming(naming);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::table::tests::{addrs, table};

    #[test]
    fn merging_adds_modules_and_drops_repeated_rows() {
        let mut kernel = table(&[(0x1000, 'T', "_stext", None), (0x2000, 'T', "vfs_read", None)]);
        let live = table(&[
            (0x2000, 'T', "vfs_read", None),
            (0x2000, 'T', "vfs_read_alias", None),
            (0x9000, 't', "helper", Some("ext4")),
        ]);
        kernel.merge(&live).unwrap();
        let rows: Vec<_> = kernel.iter().map(|symbol| (symbol.addr.0, symbol.name, symbol.module)).collect();
        assert_eq!(
            rows,
            [
                (0x1000, "_stext", None),
                (0x2000, "vfs_read", None),
                (0x2000, "vfs_read_alias", None),
                (0x9000, "helper", Some("ext4")),
            ]
        );
        assert_eq!(addrs(&kernel.lookup(None, "helper")), [0x9000]);
    }

    #[test]
    fn what_another_table_lacks() {
        let own = table(&[(0x1000, 'T', "_stext", None), (0x2000, 't', "helper", None), (0x3000, '?', "odd", None)]);
        let more = [(0x1000, 'D', "_stext", None), (0x2000, 'T', "alias", None), (0x2000, 'T', "helper", None)];
        assert!(!table(&more).lacks(&own), "kinds may differ, and a `?` may be missing");
        assert!(table(&more[..2]).lacks(&own));
        assert!(table(&[(0x1000, 'T', "_stext", None), (0x2004, 't', "helper", None)]).lacks(&own), "elsewhere");
    }
}
