//! Probes in Rust: an own plugin on top of this crate. (See `examples/` of the repository.)

pub(crate) mod handlers;

pub use handlers::{DATA_BYTES, Hit, Pre};

use crate::running::Plugin;

pub(crate) fn set_up(_plugin: &'static Plugin) -> Result<(), String> {
    Ok(())
}
