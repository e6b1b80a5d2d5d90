//! Probes against an image, without a guest: parsed, resolved, filters and effects compiled.
//!
//! What only a running QEMU knows (whether it can change registers, say) is not asked here.

use std::sync::Arc;

use qkprobe_lang::{Command, Definition, Events, Filter, ProbeConfig};

use crate::target::ImageTarget;

/// A probe that is fine.
#[derive(Clone, Debug)]
pub struct Checked {
    /// What the line says.
    pub definition: Arc<Definition>,
    /// The probe as it was written.
    pub config: ProbeConfig,
}

/// Checks all of `probes`, in their order; `-:` lines take back what stands before them. Goes on behind a mistake.
///
/// # Errors
/// Every mistake, in the kernel's words, with its origin above it.
pub fn check(probes: &[ProbeConfig], target: &ImageTarget<'_>) -> Result<Vec<Checked>, Vec<String>> {
    let mut events = Events::new();
    let mut good: Vec<Checked> = Vec::new();
    let mut bad = Vec::new();
    for config in probes {
        match one(config, target, &events) {
            Ok(Command::Nothing) => {}
            Ok(Command::Delete(delete)) => {
                for gone in events.matching(&delete) {
                    events.remove(&gone);
                    good.retain(|checked| !Arc::ptr_eq(&checked.definition, &gone));
                }
            }
            Ok(Command::Add(definition)) => {
                let definition = Arc::new(definition);
                events.insert(Arc::clone(&definition));
                good.push(Checked { definition, config: config.clone() });
            }
            Err(text) => bad.push(format!("{}\n{text}", config.origin)),
        }
    }
    if bad.is_empty() { Ok(good) } else { Err(bad) }
}

fn one(config: &ProbeConfig, target: &ImageTarget<'_>, events: &Events) -> Result<Command, String> {
    let command = qkprobe_lang::parse(&config.def, target, events).map_err(|error| error.to_string())?;
    if let Command::Add(definition) = &command {
        if let Some(filter) = &config.filter {
            Filter::compile(filter, definition).map_err(|error| error.to_string())?;
        }
        config.compile_effects(definition, target).map_err(|error| error.to_string())?;
    }
    Ok(command)
}
