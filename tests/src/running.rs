//! A QEMU that runs. Whatever happens, it does not outlive its [`Running`].

use std::fmt;
use std::ops::Deref;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

pub use qkprobe_harness::Signal;

use crate::cache::CacheError;
use crate::result::BootResult;

/// Why there is no [`BootResult`].
#[derive(Debug)]
pub enum BootError {
    /// Something of the set-up is missing.
    Cache(CacheError),
    /// What the harness says; the console's end is in its text.
    Guest(qkprobe_harness::Error),
}

impl fmt::Display for BootError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cache(error) => error.fmt(f),
            Self::Guest(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for BootError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Cache(error) => Some(error),
            Self::Guest(error) => Some(error),
        }
    }
}

impl From<CacheError> for BootError {
    fn from(error: CacheError) -> Self {
        Self::Cache(error)
    }
}

impl From<qkprobe_harness::Error> for BootError {
    fn from(error: qkprobe_harness::Error) -> Self {
        Self::Guest(error)
    }
}

/// The harness's [`Running`](qkprobe_harness::Running), with a limit of its time and the init program's results.
#[derive(Debug)]
pub struct Running {
    inner: qkprobe_harness::Running,
    timeout: Duration,
}

impl Deref for Running {
    type Target = qkprobe_harness::Running;

    fn deref(&self) -> &Self::Target {
        &self.inner
    }
}

impl Running {
    pub(crate) fn new(inner: qkprobe_harness::Running, timeout: Duration) -> Self {
        Self { inner, timeout }
    }

    /// The boot's own folder: `trace`, `summary.json`. It is removed with the [`BootResult`].
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.inner.folder()
    }

    /// Waits until `text` is on the console, or was there before.
    ///
    /// # Errors
    /// The time is over, or QEMU ended.
    pub fn wait_for_console(&mut self, text: &str, timeout: Duration) -> Result<(), BootError> {
        Ok(self.inner.wait_for_console(text, timeout)?)
    }

    /// Sends a signal. A QEMU that has ended gets none.
    ///
    /// # Errors
    /// Never.
    pub fn signal(&mut self, signal: Signal) -> Result<(), BootError> {
        self.inner.signal(signal);
        Ok(())
    }

    /// Whether QEMU has ended, and how.
    ///
    /// # Errors
    /// Never.
    pub fn try_wait(&mut self) -> Result<Option<ExitStatus>, BootError> {
        Ok(self.inner.status())
    }

    /// Waits for QEMU's end and collects what it left.
    ///
    /// # Errors
    /// It takes longer than the boot's timeout (counted from the start); QEMU is ended then.
    pub fn finish(self) -> Result<BootResult, BootError> {
        let mut finished = self.inner.finish(self.timeout)?;
        if std::env::var_os("QKPROBE_KEEP").is_some() {
            let kept = finished.folder.keep();
            eprintln!("kept {}: {}", finished.folder.path().display(), finished.command);
            kept.unwrap_or_else(|error| eprintln!("it could not get its name: {error}"));
        }
        Ok(BootResult::collect(finished))
    }
}
