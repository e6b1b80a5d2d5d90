//! What `run` shows: the trace, the guest's console and a status line, apart from each other.

use std::fs::File;
use std::io::{self, IsTerminal as _, Write as _};

use anstyle::{AnsiColor, Style};
use qkprobe_harness::escape;

use crate::Failure;
use crate::args::Color;

/// A console line without an end is shown when it has so many bytes.
const MAX_LINE: usize = 4096;

/// Where everything goes.
#[derive(Debug)]
pub(crate) struct Screen {
    stdout_style: Style,
    stderr_style: Style,
    /// The status line is wanted, and there is a terminal for it.
    live: bool,
    shown: bool,
    status: String,
    /// A console line that is not complete.
    pending: Vec<u8>,
    console: Option<File>,
    /// Standard output has no reader any more.
    pub(crate) closed: bool,
}

/// Whether a stream gets colour.
pub(crate) fn is_colored(color: Color, is_terminal: bool) -> bool {
    match color {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
    }
}

impl Screen {
    pub(crate) fn new(color: Color, quiet: bool, console: Option<File>) -> Self {
        let style = |is_terminal, style| if is_colored(color, is_terminal) { style } else { Style::new() };
        let (out, err) = (io::stdout().is_terminal(), io::stderr().is_terminal());
        Self {
            stdout_style: style(out, AnsiColor::Cyan.on_default()),
            stderr_style: style(err, Style::new().dimmed()),
            live: err && !quiet,
            shown: false,
            status: String::new(),
            pending: Vec::new(),
            console,
            closed: false,
        }
    }

    /// A line of the trace. The plugin has escaped what is the guest's; this does so again, at no harm.
    pub(crate) fn trace(&mut self, line: &str) {
        self.clear();
        let style = self.stdout_style;
        let line = escape::line(line.as_bytes());
        if writeln!(io::stdout().lock(), "{style}{line}{style:#}").is_err() {
            self.closed = true;
        }
        self.redraw();
    }

    /// Bytes of the guest's console.
    pub(crate) fn console(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        if let Some(file) = &mut self.console {
            return file.write_all(bytes).map_err(|error| Failure::new(format!("--console: {error}")));
        }
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.pending.extend_from_slice(piece);
            if piece.ends_with(b"\n") || self.pending.len() >= MAX_LINE {
                self.flush();
            }
        }
        Ok(())
    }

    /// Shows a console line that has no end yet.
    pub(crate) fn flush(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let line = escape::console_line(&self.pending);
        self.pending.clear();
        let style = self.stderr_style;
        self.note(&format!("{style}guest | {line}{style:#}"));
    }

    /// A line of this program's own, or of QEMU.
    pub(crate) fn note(&mut self, line: &str) {
        self.clear();
        // Without a reader nobody misses it.
        let _ = writeln!(io::stderr().lock(), "{line}");
        self.redraw();
    }

    /// Replaces the status line.
    pub(crate) fn set_status(&mut self, status: String) {
        self.clear();
        self.status = status;
        self.redraw();
    }

    /// Takes the status line away.
    pub(crate) fn end(&mut self) {
        self.flush();
        self.clear();
        self.live = false;
    }

    fn clear(&mut self) {
        if self.shown {
            let _ = write!(io::stderr().lock(), "\r\x1b[K");
            self.shown = false;
        }
    }

    fn redraw(&mut self) {
        if self.live && !self.status.is_empty() {
            let width = terminal_width();
            let line: String = self.status.chars().take(width.saturating_sub(1)).collect();
            let mut err = io::stderr().lock();
            let _ = write!(err, "{line}");
            let _ = err.flush();
            self.shown = true;
        }
    }
}

/// Columns of the terminal behind standard error.
fn terminal_width() -> usize {
    let size = rustix::termios::tcgetwinsize(io::stderr()).ok();
    size.map(|size| usize::from(size.ws_col)).filter(|columns| *columns > 0).unwrap_or(80)
}
