//! Where the text goes. Whole lines only: what was cut by an error is completed or ended before the next line.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

/// The file or stream behind `out=`.
#[derive(Debug)]
pub(crate) struct Sink {
    target: Target,
    /// The last write ended inside a line.
    torn: bool,
}

#[derive(Debug)]
enum Target {
    /// A descriptor of our own: the standard library takes a closed standard error for one that swallows everything.
    Stderr(Option<File>),
    File {
        file: File,
        path: PathBuf,
    },
}

impl Sink {
    /// Standard error, or a new file.
    ///
    /// # Errors
    /// What creating the file says.
    pub(crate) fn open(path: Option<&Path>) -> Result<Self, String> {
        let target = match path {
            None => Target::Stderr(io::stderr().as_fd().try_clone_to_owned().ok().map(File::from)),
            Some(path) => {
                let file = File::create(path)
                    .map_err(|error| format!("out={}: cannot create the file: {error}", path.display()))?;
                Target::File { file, path: path.to_owned() }
            }
        };
        Ok(Self { target, torn: false })
    }

    pub(crate) fn name(&self) -> String {
        match &self.target {
            Target::Stderr(_) => "standard error".to_owned(),
            Target::File { path, .. } => path.display().to_string(),
        }
    }

    /// Writes whole lines.
    ///
    /// # Errors
    /// The first error, with the number of bytes that were written before it.
    pub(crate) fn write_lines(&mut self, lines: &[u8]) -> Result<(), (usize, io::Error)> {
        if self.torn {
            self.write(b"\n").map_err(|(_, error)| (0, error))?;
            self.torn = false;
        }
        self.write(lines).inspect_err(|(written, _)| {
            self.torn = *written != 0 && lines.get(written - 1) != Some(&b'\n');
        })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), (usize, io::Error)> {
        let mut written = 0;
        while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
            let result = match &mut self.target {
                Target::Stderr(Some(file)) => file.write(rest),
                Target::Stderr(None) => Err(io::Error::from_raw_os_error(libc::EBADF)),
                Target::File { file, .. } => file.write(rest),
            };
            match result {
                Ok(0) => return Err((written, io::ErrorKind::WriteZero.into())),
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err((written, error)),
            }
        }
        Ok(())
    }
}
