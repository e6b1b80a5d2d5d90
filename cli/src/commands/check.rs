//! `qkprobe check`.

use std::path::{Path, PathBuf};

use qkprobe_harness::boot_test::expect::Expectation;
use qkprobe_harness::boot_test::file::Expect;
use qkprobe_harness::{Boot, ImageTarget, boot_test, check};
use qkprobe_lang::ProbeConfig;
use qkprobe_symbols::KernelImage;

use super::{arch, say};
use crate::args::Check;
use crate::{Failure, Outcome};

/// What a file holds.
struct Definitions {
    probes: Vec<ProbeConfig>,
    /// The kernel and more symbols that the file itself names.
    kernel: Option<PathBuf>,
    symbols: Vec<PathBuf>,
    /// Of a boot test: its file, and what it expects of its probes.
    expect: Vec<(PathBuf, Expect)>,
}

/// All files against an image; every mistake is told.
pub(crate) fn check(args: &Check) -> Outcome {
    let mut mistakes: Vec<String> = Vec::new();
    let mut notes: Vec<String> = Vec::new();
    let mut count = 0;
    let mut given = Vec::new();
    for line in &args.def {
        match ProbeConfig::from_line(line, format!("--def '{line}'")) {
            Ok(probe) => given.push(probe),
            Err(error) => mistakes.push(format!("--def '{line}'\n{error}")),
        }
    }
    let mut groups = vec![Definitions { probes: given, kernel: None, symbols: Vec::new(), expect: Vec::new() }];
    for file in &args.files {
        match read(file) {
            Ok(definitions) => groups.push(definitions),
            Err(mistake) => mistakes.push(mistake),
        }
    }
    let mut loaded: Vec<(Vec<PathBuf>, KernelImage)> = Vec::new();
    for Definitions { probes, kernel, symbols, expect } in groups.iter().filter(|group| !group.probes.is_empty()) {
        let kernel = args.kernel.as_ref().or(kernel.as_ref()).ok_or_else(|| {
            Failure::usage("--kernel: no kernel image is named, and without one no place can be resolved")
        })?;
        let symbols: Vec<PathBuf> = args.symbols.iter().chain(symbols).cloned().collect();
        let files: Vec<PathBuf> = std::iter::once(kernel).chain(&symbols).cloned().collect();
        if !loaded.iter().any(|(paths, _)| *paths == files) {
            let image =
                KernelImage::load_all(kernel, &symbols).map_err(|error| Failure::new(format!("--kernel: {error}")))?;
            loaded.push((files.clone(), image));
        }
        let Some((_, image)) = loaded.iter().find(|(paths, _)| *paths == files) else { continue };
        let mut boot = Boot::new(kernel);
        if let Some(name) = &args.arch {
            boot = boot.arch(arch(name)?);
        }
        let row = boot.arch_for(image)?;
        let isa = row.isa().ok_or_else(|| Failure::new(format!("{}: this version cannot decode it yet", row.name)))?;
        let target = ImageTarget { arch: isa, image: Some(image) };
        match check::check(probes, &target) {
            Ok(good) => {
                count += good.len();
                notes.extend(good.iter().filter_map(|checked| checked.note.clone()));
                mistakes.extend(expect.iter().filter_map(|(path, expect)| {
                    let error = Expectation::compile(expect, &good, &target).err()?;
                    Some(format!("{}:{}\n{error}", path.display(), expect.line))
                }));
            }
            Err(bad) => mistakes.extend(bad),
        }
    }
    if mistakes.is_empty() {
        for note in notes {
            say(&mut std::io::stdout().lock(), &format!("note: {note}"))?;
        }
        let word = if count == 1 { "definition is" } else { "definitions are" };
        say(&mut std::io::stdout().lock(), &format!("{count} {word} good"))?;
        return Ok(0);
    }
    let word = if mistakes.len() == 1 { "mistake" } else { "mistakes" };
    Err(Failure::new(format!("{} {word}\n{}", mistakes.len(), mistakes.join("\n"))))
}

fn read(path: &Path) -> Result<Definitions, String> {
    let text = qkprobe_lang::read_text(path).map_err(|error| format!("{}: cannot be read: {error}", path.display()))?;
    if boot_test::is_test(&text) {
        let test = boot_test::TestFile::parse(path, &text).map_err(|error| error.to_string())?;
        let expect = test.expect.into_iter().map(|expect| (path.to_owned(), expect)).collect();
        let (kernel, symbols) = (test.guest.kernel, test.guest.symbols);
        return Ok(Definitions { probes: test.probes, kernel, symbols, expect });
    }
    let config = qkprobe_lang::Config::parse(&path.display().to_string(), &text).map_err(|it| it.to_string())?;
    let mut kernels = config.kernel.into_iter();
    let kernel = kernels.next();
    Ok(Definitions { probes: config.probes, kernel, symbols: kernels.collect(), expect: Vec::new() })
}
