//! Several files about one kernel: what boots may name nothing, and its symbols lie elsewhere.

use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind};
use crate::image::{self, KernelImage};

impl KernelImage {
    /// Reads files about one kernel: its image, and more symbols (System.map, a copy of /proc/kallsyms with modules, another
    /// image). Text and machine are those of the first file that has any; the symbols are those of all. An image
    /// without symbols is fine where another file has them.
    ///
    /// # Errors
    /// One of the files cannot be read, is no kernel image or corrupt; or none has symbols.
    pub fn load_all(first: &Path, more: &[PathBuf]) -> Result<Self, Error> {
        let load = |path: &Path| image::load(path).map_err(|kind| error(path, kind));
        let mut all = load(first)?;
        for path in more {
            all.add(load(path)?).map_err(|kind| error(path, kind))?;
        }
        all.named().map_err(|kind| error(first, kind))
    }

    /// A second file: its symbols, and its text when the first had none.
    fn add(&mut self, next: Self) -> Result<(), ErrorKind> {
        let symbols = match self.segments.is_empty() {
            true => std::mem::replace(self, next).symbols,
            false => next.symbols,
        };
        if self.symbols.is_empty() {
            self.symbols = symbols;
            self.symbols.name_as_kernel(self.banner.as_deref());
            return Ok(());
        }
        self.symbols.merge(&symbols)
    }

    /// Refuses an image for which no file has had symbols.
    pub(crate) fn named(mut self) -> Result<Self, ErrorKind> {
        match self.unnamed.take().filter(|_| self.symbols.is_empty()) {
            Some(kind) => Err(kind),
            None => Ok(self),
        }
    }
}

fn error(path: &Path, kind: ErrorKind) -> Error {
    Error { file: path.display().to_string(), kind }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Layout, PerCpu, stripped_kernel};
    use crate::{GuestAddr, Lookup, Machine};

    /// A kernel without kallsyms, its System.map, and one more symbol.
    fn files() -> (tempfile::TempDir, PathBuf, PathBuf, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            path
        };
        let mut bytes = stripped_kernel(Layout::Behind, PerCpu::Plain, 5);
        // Without its tokens a kallsyms table is none.
        let tokens = memchr::memmem::find(&bytes, b"3\x004\x005\0").unwrap();
        bytes[tokens] = b'!';
        let image = file("vmlinux", &bytes);
        let map = file("System.map", b"ffffffff81000000 T _stext\nffffffff81000200 T start_kernel\n");
        let module = file("kallsyms", b"ffffffffc0000000 t in_module\t[mod]\n");
        (folder, image, map, module)
    }

    #[test]
    fn an_image_without_symbols_has_those_of_another_file() {
        let (_folder, image, map, module) = files();
        let alone = KernelImage::load(&image).unwrap_err().to_string();
        assert!(alone.contains("has no symbol table, and no kallsyms table was found"), "{alone}");
        for (first, more) in [(&image, [map.clone(), module.clone()]), (&map, [image.clone(), module.clone()])] {
            let all = KernelImage::load_all(first, &more).unwrap();
            assert_eq!((all.machine, all.segments.len(), all.symbols.len()), (Machine::X86_64, 1, 3));
            let Lookup::One(start) = all.symbols.lookup(None, "start_kernel") else { panic!("one") };
            assert_eq!(start.addr, GuestAddr(0xffff_ffff_8100_0200));
            assert!(all.symbols.has_module("mod"));
            assert!(all.banner.is_some_and(|banner| banner.starts_with("Linux version ")));
        }
        let none = KernelImage::load_all(&image, std::slice::from_ref(&image)).unwrap_err();
        assert!(matches!(none.kind, ErrorKind::NoSymbols(_)), "{none}");
        let missing = KernelImage::load_all(&image, &["/nonexistent/System.map".into()]).unwrap_err().to_string();
        assert!(missing.starts_with("kernel image /nonexistent/System.map: cannot be read"), "{missing}");
    }
}
