//! `qkprobe symbols`.

use std::io::{self, BufWriter, Write as _};

use qkprobe_harness::escape;
use qkprobe_symbols::KernelImage;
use regex::bytes::Regex;

use super::say;
use crate::args::Symbols;
use crate::{Failure, Outcome};

/// Lists them as `nm -n` does, with sizes.
pub(crate) fn symbols(args: &Symbols) -> Outcome {
    let image = KernelImage::load(&args.image).map_err(|error| Failure::new(error.to_string()))?;
    let glob = args.glob.as_deref().map(matcher).transpose()?;
    let mut out = BufWriter::new(io::stdout().lock());
    let mut any = false;
    for symbol in image.symbols.iter() {
        if glob.as_ref().is_some_and(|glob| !glob.is_match(symbol.name.as_bytes())) || args.functions && !symbol.text {
            continue;
        }
        any = true;
        let line = if args.json {
            serde_json::json!({
                "address": format!("{:#x}", symbol.addr.0), "type": symbol.kind.to_string(), "name": symbol.name,
                "size": symbol.size, "text": symbol.text, "module": symbol.module,
            })
            .to_string()
        } else {
            let module = symbol.module.map(|module| format!(" [{module}]")).unwrap_or_default();
            let name = escape::line(format!("{}{module}", symbol.name).as_bytes());
            format!("{:016x} {} {:>8} {name}", symbol.addr.0, symbol.kind, symbol.size)
        };
        if !say(&mut out, &line)? {
            return Ok(0);
        }
    }
    // A reader that has gone is no error.
    let _ = out.flush();
    match &args.glob {
        Some(glob) if !any => {
            let near = image.symbols.similar(glob);
            let hint = near.first().map(|name| format!("; did you mean {name}?")).unwrap_or_default();
            let what = if args.functions { "function" } else { "symbol" };
            Err(Failure::new(format!("{}: no {what} matches '{glob}'{hint}", args.image.display())))
        }
        _ => Ok(0),
    }
}

/// `*` and `?` over whole names.
fn matcher(glob: &str) -> Result<Regex, Failure> {
    let pattern: String = glob
        .chars()
        .map(|c| match c {
            '*' => ".*".to_owned(),
            '?' => ".".to_owned(),
            c => regex::escape(c.encode_utf8(&mut [0; 4])),
        })
        .collect();
    Regex::new(&format!("^{pattern}$")).map_err(|error| Failure::usage(format!("'{glob}': {error}")))
}

#[cfg(test)]
mod tests {
    use super::matcher;

    #[test]
    fn globs_match_whole_names() {
        let matches = |glob: &str, name: &str| matcher(glob).expect("a glob").is_match(name.as_bytes());
        assert!(matches("do_sys_*", "do_sys_open") && matches("vfs_?ead", "vfs_read") && matches("a.b", "a.b"));
        assert!(!matches("vfs", "vfs_read") && !matches("a.b", "axb") && !matches("do_*", "x_do_y"));
    }
}
