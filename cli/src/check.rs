//! Probes against an image, without a guest: what the plugin would say to them, as far as it needs no QEMU for that.
//!
//! What only a running QEMU knows (whether it can change registers, say) is not asked here.

use std::sync::Arc;

use qkprobe_lang::{Definition, Events, ProbeConfig};
use qkprobe_resolve::{ImageTarget, Resolver, Step};

/// A probe that is fine.
#[derive(Clone, Debug)]
pub struct Checked {
    /// What the line says.
    pub definition: Arc<Definition>,
    /// The probe as it was written.
    pub config: ProbeConfig,
    /// What the image alone cannot tell.
    pub note: Option<String>,
}

/// Checks all of `probes`, in their order; `-:` lines take back what stands before them. Goes on behind a mistake.
///
/// # Errors
/// Every mistake, in the kernel's words, with its origin above it.
pub fn check(probes: &[ProbeConfig], target: &ImageTarget<'_>) -> Result<Vec<Checked>, Vec<String>> {
    let resolver = Resolver::new(*target, target.paging().err());
    let mut events = Events::new();
    let mut good: Vec<Checked> = Vec::new();
    let mut bad = Vec::new();
    for config in probes {
        match resolver.step(config, &events) {
            Ok(Step::Nothing) => {}
            Ok(Step::Deleted(gone)) => {
                good.retain(|checked| !gone.iter().any(|gone| Arc::ptr_eq(&checked.definition, gone)));
                gone.iter().for_each(|gone| _ = events.remove(gone));
            }
            Ok(Step::Added(resolved)) => {
                events.insert(Arc::clone(&resolved.definition));
                let note = resolved.unsettled.then(|| {
                    let place = &resolved.definition.place.text;
                    format!(
                        "{}: {place} is inside an instruction of the image, which the kernel replaces when it boots: it hits if an \
                         instruction begins there then",
                        config.origin
                    )
                });
                good.push(Checked { definition: resolved.definition, config: config.clone(), note });
            }
            Err(refused) => bad.push(refused.message),
        }
    }
    if bad.is_empty() { Ok(good) } else { Err(bad) }
}
