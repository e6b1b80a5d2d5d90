//! The plugin's arguments: `-plugin libqkprobe.so,kernel=vmlinuz,probe='p:open do_sys_openat2',...`.
//!
//! QEMU splits at commas (a comma inside is doubled) and turns a bare word into `word=on`. Several arguments may be
//! given more than once; the command line wins over the TOML file where both say something.

use std::path::PathBuf;

use qkprobe_lang::{Action, Backpressure, Config, Format, ProbeConfig};

/// The arguments and what each is for, for messages.
const KNOWN: [(&str, &str); 13] = [
    ("kernel", "kernel=FILE: vmlinux, bzImage, System.map or a copy of /proc/kallsyms"),
    ("probe", "probe='p:NAME PLACE ARG... [if FILTER] [do OPTION...]': a kprobe_events definition, and what it does"),
    ("count", "count='p:NAME PLACE': the same, but only counts"),
    ("watch", "watch='p:GROUP/NAME PLACE ARG...': a probe for the tool that starts QEMU: no client sees or changes it"),
    ("filter", "filter='EXPR': for the probe= before it"),
    ("config", "config=FILE.toml: probes and settings"),
    ("out", "out=FILE: where the records go; default: standard error"),
    ("format", "format=ftrace|json"),
    ("summary", "summary=FILE: the summary as JSON, at exit"),
    ("backpressure", "backpressure=lossless|drop: whether a vCPU waits for the writer"),
    ("control", "control=SOCKET: a socket to control the run by"),
    ("verify", "verify=on|off: compare each probed instruction's copy with what the guest does"),
    ("slide", "slide=0xN: runtime minus linked address, for symbols without text"),
];

/// Everything the user said, from the command line and from the TOML files.
#[derive(Debug, Default)]
pub(crate) struct Settings {
    pub(crate) kernels: Vec<PathBuf>,
    pub(crate) probes: Vec<ProbeConfig>,
    /// Probes of the tool that starts QEMU.
    pub(crate) watches: Vec<ProbeConfig>,
    pub(crate) out: Option<PathBuf>,
    pub(crate) format: Option<Format>,
    pub(crate) summary: Option<PathBuf>,
    pub(crate) backpressure: Option<Backpressure>,
    pub(crate) slide: Option<u64>,
    pub(crate) control: Option<PathBuf>,
    pub(crate) verify: bool,
}

impl Settings {
    /// Parses `key=value` arguments as QEMU hands them over.
    ///
    /// # Errors
    /// One message that names the argument, the reason, and what to write instead.
    pub(crate) fn parse(args: &[String]) -> Result<Self, String> {
        let mut settings = Self::default();
        let mut last_probe = None;
        let (mut verify, mut verify_of_file) = (None, None);
        for arg in args {
            let (key, value) = arg.split_once('=').unwrap_or((arg, "on"));
            // For all keys but one, `on` is QEMU's word for "no value".
            if value == "on" && key != "verify" && KNOWN.iter().any(|(known, _)| *known == key) {
                return Err(format!("{key}: needs a value: {}", usage(key)));
            }
            if value.is_empty() {
                return Err(format!("{key}=: the value is empty: {}", usage(key)));
            }
            match key {
                "kernel" => settings.kernels.push(value.into()),
                "probe" | "count" => {
                    let origin = format!("{key}={value}");
                    let mut probe =
                        ProbeConfig::from_line(value, origin.clone()).map_err(|error| format!("{origin}\n{error}"))?;
                    if key == "count" {
                        probe.action = Action::Count;
                    }
                    last_probe = Some(settings.probes.len());
                    settings.probes.push(probe);
                }
                "watch" => settings.watches.push(ProbeConfig::new(value, format!("watch={value}"))),
                "filter" => {
                    let probe = last_probe.take().and_then(|at| settings.probes.get_mut(at));
                    let probe = probe.ok_or("filter=: stands after the probe= or count= that it filters, once")?;
                    if probe.filter.is_some() {
                        return Err(format!("filter={value}: the definition before it says 'if' already"));
                    }
                    probe.filter = Some(value.to_owned());
                }
                "config" => {
                    let said = settings.read_config(value)?;
                    verify_of_file = verify_of_file.or(said);
                }
                "out" => settings.out = Some(value.into()),
                "summary" => settings.summary = Some(value.into()),
                "control" => settings.control = Some(value.into()),
                "verify" => verify = Some(choice(key, value, &[("on", true), ("off", false)])?),
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
        settings.verify = verify.or(verify_of_file).unwrap_or(false);
        Ok(settings)
    }

    /// Takes from a file what nothing before it has said; returns what it says about `verify`, which the command line
    /// may still overrule.
    fn read_config(&mut self, path: &str) -> Result<Option<bool>, String> {
        let text =
            qkprobe_lang::read_text(path.as_ref()).map_err(|error| format!("config={path}: cannot read: {error}"))?;
        let Config { kernel, out, format, summary, backpressure, slide, control, verify, probes } =
            Config::parse(path, &text).map_err(|error| error.to_string())?;
        self.kernels.extend(kernel);
        self.probes.extend(probes);
        self.out = self.out.take().or(out);
        self.format = self.format.or(format);
        self.summary = self.summary.take().or(summary);
        self.backpressure = self.backpressure.or(backpressure);
        self.slide = self.slide.or(slide);
        self.control = self.control.take().or(control);
        Ok(verify)
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
    fn a_definition_brings_its_filter_and_its_options() {
        let settings = Settings::parse(&args(&["probe=p:a f x=%di if x == 1 do skip times=3", "count=p:b g do user"]));
        let settings = settings.expect("valid");
        assert_eq!(settings.probes[0].def, "p:a f x=%di");
        assert_eq!(settings.probes[0].filter.as_deref(), Some("x == 1"));
        assert_eq!(settings.probes[0].effects.fault.times, 3);
        assert_eq!(settings.probes[1].action, Action::Count);
        assert!(error(&["probe=p:a f if x==1", "filter=x==2"]).contains("says 'if' already"));
        assert_eq!(
            error(&["probe=p:a f do skpi"]),
            "probe=p:a f do skpi
error: No such option: 'skpi'
  Command: p:a f do skpi
                    ^
  help: did you mean skip?"
        );
    }

    #[test]
    fn on_is_a_value_of_verify_alone() {
        let verify = |list: &[&str]| Settings::parse(&args(list)).expect("valid").verify;
        assert!(verify(&["verify"]) && verify(&["verify=on"]));
        assert!(!verify(&["verify=off"]) && !verify(&[]));
        assert!(error(&["verify=yes"]).contains("must be one of on, off"));
        assert!(error(&["control"]).contains("needs a value"));
        let settings = Settings::parse(&args(&["control=/tmp/c.sock"])).expect("valid");
        assert_eq!(settings.control, Some("/tmp/c.sock".into()));
    }

    #[test]
    fn the_command_line_wins_over_the_file() {
        let file = std::env::temp_dir().join(format!("qkprobe-args-{}.toml", std::process::id()));
        std::fs::write(&file, "verify = true\ncontrol = \"c.sock\"\n").expect("written");
        let config = format!("config={}", file.display());
        let by_file = Settings::parse(&args(&[&config]));
        let before = Settings::parse(&args(&["verify=off", "control=mine", &config]));
        let behind = Settings::parse(&args(&[&config, "verify=off", "control=mine"]));
        std::fs::remove_file(&file).expect("removed");
        let by_file = by_file.expect("valid");
        assert!(by_file.verify);
        assert_eq!(by_file.control, Some(std::env::temp_dir().join("c.sock")));
        for settings in [before.expect("valid"), behind.expect("valid")] {
            assert!(!settings.verify);
            assert_eq!(settings.control, Some("mine".into()));
        }
    }

    #[test]
    fn a_mistake_is_told_with_what_to_write() {
        assert!(error(&["prob=x"]).starts_with("prob: no such argument"));
        assert!(error(&["probe=on"]).contains("needs a value"));
        assert!(error(&["format=xml"]).contains("must be one of ftrace, json"));
        assert!(error(&["filter=a==1"]).contains("stands after"));
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
