//! What the control socket asks of the plugin.

use std::fmt::Write as _;

use qkprobe_arch::GuestAddr;
use qkprobe_lang::{Config, Delete, ProbeConfig, SymbolNames as _};

use super::Listed;
use super::prepare::Refused;
use crate::control::{AddedProbe, Backend, Held, Listing, NewProbe, Profile, Refusal, Removed, Selector, Status};
use crate::record::Output;
use crate::registry::Place;
use crate::running::Plugin;

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        Self::new(refused.errno, refused.message)
    }
}

/// The options are the keys of a `[[probe]]` table, so they are read as one.
fn config_of(probe: &NewProbe) -> Result<ProbeConfig, Refusal> {
    let origin = || "control".to_owned();
    if probe.options.is_empty() {
        return ProbeConfig::from_line(&probe.line, origin())
            .map_err(|error| Refusal::new(error.errno, error.to_string()));
    }
    let mut table = toml::Table::new();
    table.insert("def".to_owned(), probe.line.clone().into());
    for (key, value) in &*probe.options {
        let value = toml::Value::try_from(value).map_err(|error| Refusal::invalid(format!("{key}: {error}")))?;
        table.insert(key.clone(), value);
    }
    let mut file = toml::Table::new();
    file.insert("probe".to_owned(), toml::Value::Array(vec![toml::Value::Table(table)]));
    let config = Config::parse("control", &file.to_string()).map_err(|error| Refusal::invalid(error.to_string()))?;
    let mut config = config.probes.into_iter().next().ok_or_else(|| Refusal::invalid("no probe"))?;
    config.origin = origin();
    Ok(config)
}

impl Plugin {
    fn selected(&self, selector: &Selector) -> Result<Vec<u32>, Refusal> {
        let Selector { group, event, head } = selector.clone();
        let delete = Delete { group, event, head };
        let matches = |probe: &Listed| match &probe.output.definition {
            Some(definition) => delete.matches(definition),
            None => false,
        };
        let outputs = self.probes.lock().select(matches);
        if outputs.is_empty() && !is_all(selector) {
            return Err(Refusal::new(libc::ENOENT, format!("No such probe event: {selector}")));
        }
        Ok(outputs)
    }

    /// Where a probe is: as the guest runs it, if that is known.
    pub(crate) fn shown_address(&self, output: &Output) -> Option<String> {
        let slide = self.locator.as_ref().and_then(|locator| locator.slide()).filter(|_| output.in_image).unwrap_or(0);
        output.address.map(|addr| format!("{:#x}", addr.wrapping_add(slide)))
    }

    fn named(&self, addr: GuestAddr) -> Option<String> {
        let mut name = String::new();
        self.names.name(addr.0, &mut name).then(|| super::prepare::plain(&name))
    }
}

fn is_all(selector: &Selector) -> bool {
    *selector == Selector::default()
}

impl Backend for &'static Plugin {
    fn add(&self, probes: &[NewProbe]) -> Result<Vec<AddedProbe>, Refusal> {
        let configs = probes.iter().map(config_of).collect::<Result<Vec<_>, _>>()?;
        let added = Plugin::add(self, &configs)?;
        let in_image = |probe: &Listed| matches!(probe.place, Some(Place::Image(_)));
        let follows = added.iter().any(|added| self.probes.lock().list.get(&added.output).is_some_and(in_image));
        let settled = self.settle();
        let found = follows && settled && self.wait_for_kernel();
        let probes = self.probes.lock();
        let shown = added.iter().filter_map(|added| {
            let probe = probes.list.get(&added.output)?;
            Some(AddedProbe {
                group: probe.output.group.clone(),
                event: probe.output.name.clone(),
                kind: probe.kind,
                address: self.shown_address(&probe.output),
                armed: settled && (found || !in_image(probe)) && added.id.is_some() && probe.enabled,
            })
        });
        Ok(shown.collect())
    }

    fn delete(&self, selector: &Selector) -> Result<Vec<Removed>, Refusal> {
        let outputs = self.selected(selector)?;
        let gone = self.remove(&outputs)?;
        let shown = gone.into_iter().map(|gone| Removed {
            group: gone.output.group.clone(),
            event: gone.output.name.clone(),
            hits: gone.totals.hits,
            missed: gone.totals.missed,
            dropped: gone.totals.dropped,
        });
        Ok(shown.collect())
    }

    fn set_enabled(&self, selector: &Selector, on: bool) -> Result<usize, Refusal> {
        let outputs = self.selected(selector)?;
        Plugin::set_enabled(self, &outputs, on);
        Ok(outputs.len())
    }

    fn list(&self) -> Vec<Listing> {
        let probes = self.probes.lock();
        let shown = probes.of_users().map(|(_, probe)| {
            let gone = probe.id.and_then(|id| self.registry.site_of(id)).is_some_and(|site| site.is_gone());
            let flags = [(gone, "GONE"), (!probe.enabled, "DISABLED"), (probe.id.is_none(), "PENDING")];
            let output = &probe.output;
            // The kernel shows no size.
            let symbol = output.place.split('/').next().unwrap_or_default().to_owned();
            Listing {
                address: self.shown_address(output),
                letter: if probe.kind == "r" { "r" } else { "k" },
                symbol,
                module: output.module.clone(),
                flags: flags.iter().filter(|(set, _)| *set).map(|(_, flag)| *flag).collect(),
                group: output.group.clone(),
                event: output.name.clone(),
                definition: output.definition.as_ref().map_or_else(String::new, |definition| definition.to_string()),
            }
        });
        shown.collect()
    }

    fn profile(&self) -> Vec<Profile> {
        let probes = self.probes.lock();
        let shown = probes.of_users().map(|(index, probe)| {
            let totals = self.totals(index, probe);
            Profile {
                group: probe.output.group.clone(),
                event: probe.output.name.clone(),
                hits: totals.hits,
                missed: totals.missed,
                filtered: totals.filtered,
                dropped: totals.dropped,
                reexecuted: totals.reexecuted,
                pending: totals.pending(),
                abandoned: totals.abandoned,
            }
        });
        shown.collect()
    }

    fn held(&self) -> Vec<Held> {
        let held = self.holds.list();
        let probes = self.probes.lock();
        let shown = held.into_iter().map(|held| {
            let output = probes.list.get(&held.output).map(|probe| &probe.output);
            Held {
                vcpu: held.vcpu,
                group: output.map_or_else(String::new, |output| output.group.clone()),
                event: output.map_or_else(String::new, |output| output.name.clone()),
                address: format!("{}", held.addr),
                symbol: self.named(held.addr),
            }
        });
        shown.collect()
    }

    fn go_on(&self, vcpu: Option<u32>) -> usize {
        self.holds.go_on(vcpu)
    }

    fn status(&self) -> Status {
        let slide = self.locator.as_ref().and_then(|locator| locator.slide());
        Status {
            qemu: self.machine.qemu.clone(),
            api: self.machine.api.level,
            target: self.machine.target.clone(),
            kernel_found: self.is_located(),
            slide: slide.map(|slide| {
                let mut text = String::new();
                let _ = write!(text, "{slide:#x}");
                text
            }),
            armed_sites: self.registry.counts().armed,
            settled: self.is_settled(),
            probes: self.probes.lock().of_users().count(),
            problem: self.problem.lock().clone(),
        }
    }

    fn quit(&self, status: u8) {
        self.quit_machine(status, None);
    }
}
