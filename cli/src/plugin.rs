//! Which plugin: the one that belongs to this command.

use std::path::{Path, PathBuf};

use crate::error::Error;

const FILE: &str = "libqkprobe.so";

/// The plugin's file: `given`, then `QKPROBE_PLUGIN`, then beside this program, then `../lib/qkprobe/`. For a program that cargo
/// built, the `release` folder of the same target folder comes before those: a debug build of the plugin is many times slower.
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
    // TARGET/debug/qkprobe, or TARGET/debug/deps/TEST.
    let profile = if folder.ends_with("deps") { folder.parent() } else { Some(folder) };
    let is_cargos = |profile: &&Path| folder.ends_with("deps") || profile.ends_with("debug");
    let target = profile.filter(is_cargos).and_then(Path::parent);
    let mut list: Vec<PathBuf> = target.map(|target| target.join("release").join(FILE)).into_iter().collect();
    list.push(folder.join(FILE));
    list.extend(folder.parent().map(|above| above.join("lib/qkprobe").join(FILE)));
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
        assert_eq!(list("/usr/bin/qkprobe"), ["/usr/bin/libqkprobe.so", "/usr/lib/qkprobe/libqkprobe.so"]);
        let built = ["/t/debug/qkprobe", "/t/debug/deps/it-1", "/t/release/deps/it-1", "/t/release/qkprobe"];
        for program in built {
            assert_eq!(list(program)[0], "/t/release/libqkprobe.so", "{program}");
        }
        assert_eq!(list("/t/debug/qkprobe")[1], "/t/debug/libqkprobe.so");
        assert!(matches!(find(Some(Path::new("/nonexistent/p.so"))), Err(Error::Io { .. })));
    }
}
