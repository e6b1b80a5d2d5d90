//! The plugin's arguments: `-plugin libqkprobe.so,kernel=vmlinuz,probe='p:open do_sys_openat2',...`.
//!
//! QEMU splits at commas (a comma inside is doubled) and turns a bare word into `word=on`. Several arguments may be
//! given more than once; the command line wins over the TOML file where both say something.

use std::path::PathBuf;

use qkprobe_lang::{Action, Backpressure, Config, Format, Privilege, ProbeConfig};

/// The arguments and what each is for, for messages.
const KNOWN: [(&str, &str); 10] = [
    ("kernel", "kernel=FILE: vmlinux, bzImage, System.map or a copy of /proc/kallsyms"),
    ("probe", "probe='p:NAME PLACE ARG...': a kprobe_events definition"),
    ("count", "count='p:NAME PLACE': the same, but only counts"),
    ("filter", "filter='EXPR': for the probe= before it"),
    ("config", "config=FILE.toml: probes and settings"),
    ("out", "out=FILE: where the records go; default: standard error"),
    ("format", "format=ftrace|json"),
    ("summary", "summary=FILE: the summary as JSON, at exit"),
    ("backpressure", "backpressure=lossless|drop: whether a vCPU waits for the writer"),
    ("slide", "slide=0xN: runtime minus linked address, for symbols without text"),
];

/// Everything the user said, from the command line and from the TOML files.
#[derive(Debug, Default)]
pub(crate) struct Settings {
    pub(crate) kernels: Vec<PathBuf>,
    pub(crate) probes: Vec<ProbeConfig>,
    pub(crate) out: Option<PathBuf>,
    pub(crate) format: Option<Format>,
    pub(crate) summary: Option<PathBuf>,
    pub(crate) backpressure: Option<Backpressure>,
    pub(crate) slide: Option<u64>,
}

impl Settings {
    /// Parses `key=value` arguments as QEMU hands them over.
    ///
    /// # Errors
    /// One message that names the argument, the reason, and what to write instead.
    pub(crate) fn parse(args: &[String]) -> Result<Self, String> {
        let mut settings = Self::default();
        let mut last_probe = None;
        for arg in args {
            let (key, value) = arg.split_once('=').unwrap_or((arg, "on"));
            if value == "on" && KNOWN.iter().any(|(known, _)| *known == key) {
                return Err(format!("{key}: needs a value: {}", usage(key)));
            }
            if value.is_empty() {
                return Err(format!("{key}=: the value is empty: {}", usage(key)));
            }
            match key {
                "kernel" => settings.kernels.push(value.into()),
                "probe" | "count" => {
                    let action = if key == "count" { Action::Count } else { Action::Trace };
                    last_probe = Some(settings.probes.len());
                    settings.probes.push(ProbeConfig {
                        def: value.to_owned(),
                        filter: None,
                        action,
                        privilege: Privilege::Kernel,
                        enabled: true,
                        origin: format!("{key}={value}"),
                    });
                }
                "filter" => {
                    let probe = last_probe.take().and_then(|at| settings.probes.get_mut(at));
                    let probe = probe.ok_or("filter=: stands behind the probe= or count= that it filters, once")?;
                    probe.filter = Some(value.to_owned());
                }
                "config" => settings.read_config(value)?,
                "out" => settings.out = Some(value.into()),
                "summary" => settings.summary = Some(value.into()),
                "format" => {
                    settings.format = Some(choice(key, value, &[("ftrace", Format::Ftrace), ("json", Format::Json)])?)
                }
                "backpressure" => {
                    let choices = [("lossless", Backpressure::Lossless), ("drop", Backpressure::Drop)];
                    settings.backpressure = Some(choice(key, value, &choices)?);
                }
                "slide" => {
                    let digits = value.strip_prefix("0x").unwrap_or(value);
                    let slide = u64::from_str_radix(digits, 16)
                        .map_err(|_| format!("slide={value}: not a hexadecimal number: {}", usage(key)))?;
                    settings.slide = Some(slide);
                }
                // QEMU's own option group keeps these for itself in some versions.
                "file" | "arg" => {}
                unknown => return Err(unknown_argument(unknown)),
            }
        }
        Ok(settings)
    }

    fn read_config(&mut self, path: &str) -> Result<(), String> {
        let text = std::fs::read_to_string(path).map_err(|error| format!("config={path}: cannot read: {error}"))?;
        let Config { kernel, out, format, summary, backpressure, slide, probes } =
            Config::parse(path, &text).map_err(|error| error.to_string())?;
        self.kernels.extend(kernel);
        self.probes.extend(probes);
        self.out = self.out.take().or(out);
        self.format = self.format.or(format);
        self.summary = self.summary.take().or(summary);
        self.backpressure = self.backpressure.or(backpressure);
        self.slide = self.slide.or(slide);
        Ok(())
    }
}

fn choice<T: Copy>(key: &str, value: &str, choices: &[(&str, T)]) -> Result<T, String> {
    let found = choices.iter().find(|(name, _)| *name == value);
    found.map(|(_, choice)| *choice).ok_or_else(|| {
        let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
        format!("{key}={value}: must be one of {}", names.join(", "))
    })
}

fn usage(key: &str) -> &'static str {
    KNOWN.iter().find(|(known, _)| *known == key).map_or("", |(_, usage)| usage)
}

fn unknown_argument(key: &str) -> String {
    let mut text = format!("{key}: no such argument. These exist:");
    for (_, usage) in KNOWN {
        text.push_str("\n  ");
        text.push_str(usage);
    }
    text.push_str("\nA comma inside a value is doubled: probe='p vfs_read a=\\1,,2'.");
    text
}

/// The file behind `-kernel` on QEMU's own command line, the default of `kernel=`.
pub(crate) fn kernel_of_command_line(args: &[String]) -> Option<PathBuf> {
    let mut args = args.iter();
    let mut found = None;
    while let Some(arg) = args.next() {
        match arg.strip_prefix('-').map(|arg| arg.strip_prefix('-').unwrap_or(arg)) {
            Some("kernel") => found = args.next().map(PathBuf::from),
            Some("machine" | "M") => {
                let value =
                    args.next().and_then(|value| value.split(',').find_map(|part| part.strip_prefix("kernel=")));
                found = value.map(PathBuf::from).or(found);
            }
            _ => {}
        }
    }
    found
}

/// Whether QEMU's command line asks for KVM and for nothing that translates.
pub(crate) fn asks_for_kvm(args: &[String]) -> bool {
    let mut accelerators: Vec<String> = Vec::new();
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.strip_prefix('-').map(|arg| arg.strip_prefix('-').unwrap_or(arg)) {
            Some("enable-kvm") => accelerators.push("kvm".into()),
            Some("accel") => {
                let value = args.next().map_or("", |value| value.split(',').next().unwrap_or(""));
                accelerators.push(value.strip_prefix("accel=").unwrap_or(value).to_owned());
            }
            Some("machine" | "M") => {
                let value = args.next().and_then(|value| value.split(',').find_map(|part| part.strip_prefix("accel=")));
                accelerators.extend(value.iter().flat_map(|value| value.split(':').map(str::to_owned)));
            }
            _ => {}
        }
    }
    !accelerators.is_empty() && accelerators.iter().all(|name| name == "kvm")
}

/// The command line of the running QEMU.
pub(crate) fn qemu_command_line() -> Vec<String> {
    let bytes = std::fs::read("/proc/self/cmdline").unwrap_or_default();
    bytes.split(|byte| *byte == 0).map(|arg| String::from_utf8_lossy(arg).into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(list: &[&str]) -> Vec<String> {
        list.iter().map(|arg| (*arg).to_owned()).collect()
    }

    fn error(list: &[&str]) -> String {
        Settings::parse(&args(list)).expect_err("must be refused")
    }

    #[test]
    fn probes_keep_their_order_and_their_filter() {
        let settings =
            Settings::parse(&args(&["probe=p:a f", "count=p:b g", "filter=x==1", "kernel=v"])).expect("valid");
        assert_eq!(settings.probes.len(), 2);
        assert_eq!(settings.probes[0].filter, None);
        assert_eq!(settings.probes[1].filter.as_deref(), Some("x==1"));
        assert_eq!(settings.probes[1].action, Action::Count);
        assert_eq!(settings.kernels, [PathBuf::from("v")]);
    }

    #[test]
    fn a_mistake_is_told_with_what_to_write() {
        assert!(error(&["prob=x"]).starts_with("prob: no such argument"));
        assert!(error(&["probe=on"]).contains("needs a value"));
        assert!(error(&["format=xml"]).contains("must be one of ftrace, json"));
        assert!(error(&["filter=a==1"]).contains("stands behind"));
        assert!(error(&["slide=xyz"]).contains("hexadecimal"));
        assert!(error(&["out="]).contains("empty"));
    }

    #[test]
    fn the_kernel_and_the_accelerator_are_read_from_qemus_command_line() {
        let line = args(&["qemu", "-M", "pc,accel=kvm:tcg", "-kernel", "/boot/vmlinuz", "-append", "x"]);
        assert_eq!(kernel_of_command_line(&line), Some("/boot/vmlinuz".into()));
        assert!(!asks_for_kvm(&line));
        assert!(asks_for_kvm(&args(&["qemu", "-accel", "kvm"])));
        assert!(asks_for_kvm(&args(&["qemu", "--enable-kvm"])));
        assert!(asks_for_kvm(&args(&["qemu", "-M", "q35,accel=kvm"])));
        assert!(!asks_for_kvm(&args(&["qemu", "-accel", "kvm", "-accel", "tcg"])));
        assert!(!asks_for_kvm(&args(&["qemu"])));
    }
}
