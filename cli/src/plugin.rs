//! Which plugin: the one that belongs to this command.

use std::path::{Path, PathBuf};

use crate::error::Error;

const FILE: &str = "libqkprobe.so";

/// The plugin's file: `given`, then `QKPROBE_PLUGIN`, then beside this program, then `../lib/qkprobe/`, and for a program that
/// cargo built the `release` folder of the same target folder.
///
/// # Errors
/// [`Error::NoPlugin`], or the named file is not there.
pub fn find(given: Option<&Path>) -> Result<PathBuf, Error> {
    let from_environment = std::env::var_os("QKPROBE_PLUGIN").filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(file) = given.map(Path::to_owned).or(from_environment) {
        let file = std::path::absolute(&file).map_err(Error::io(&file))?;
        return match file.metadata() {
            Ok(_) => Ok(file),
            Err(error) => Err(Error::Io { path: file, error }),
        };
    }
    let program = std::env::current_exe().and_then(|file| file.canonicalize()).unwrap_or_default();
    let candidates = candidates(&program);
    let looked = candidates.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", ");
    candidates.into_iter().find(|file| file.is_file()).ok_or(Error::NoPlugin { looked })
}

fn candidates(program: &Path) -> Vec<PathBuf> {
    let Some(folder) = program.parent() else { return Vec::new() };
    let mut list = vec![folder.join(FILE)];
    if let Some(above) = folder.parent() {
        list.push(above.join("lib/qkprobe").join(FILE));
        // TARGET/debug/qkprobe, and TARGET/debug/deps/TEST.
        list.push(above.join("release").join(FILE));
        list.extend(above.parent().filter(|_| folder.ends_with("deps")).map(|top| top.join("release").join(FILE)));
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        let list = |program: &str| -> Vec<String> {
            candidates(Path::new(program)).iter().map(|file| file.display().to_string()).collect()
        };
        assert_eq!(
            list("/usr/bin/qkprobe"),
            ["/usr/bin/libqkprobe.so", "/usr/lib/qkprobe/libqkprobe.so", "/usr/release/libqkprobe.so"]
        );
        assert_eq!(list("/t/debug/deps/it-1")[3], "/t/release/libqkprobe.so");
        assert!(matches!(find(Some(Path::new("/nonexistent/p.so"))), Err(Error::Io { .. })));
    }
}
