//! From what a user wrote to a probe of which everything is known that an image can tell.

use std::sync::Arc;

use qkprobe_arch::{GuestAddr, InsnSlot, NoSuchSymbol};
use qkprobe_lang::{Command, Definition, Effects, Events, Filter, Kind, Privilege, ProbeConfig, When};

use crate::changes;
use crate::target::ImageTarget;

/// Bytes that a return probe can keep from the call to the return: a bitmap of faults, and ten words.
pub const SAVED_BYTES: usize = 88;

/// Errno values of the kernel's that refusals carry.
const E2BIG: i32 = 7;
const EINVAL: i32 = 22;
const EILSEQ: i32 = 84;
const EOPNOTSUPP: i32 = 95;

/// Why a probe is refused: for people, with an errno of the kernel's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refused {
    /// The positive errno.
    pub errno: i32,
    /// Where the probe was written, and below it what is wrong.
    pub message: String,
}

impl Refused {
    /// A refusal of the probe that was written at `origin`.
    #[must_use]
    pub fn new(errno: i32, origin: &str, what: impl std::fmt::Display) -> Self {
        Self { errno, message: format!("{origin}\n{what}") }
    }
}

/// What a line came to.
#[derive(Debug)]
pub enum Step {
    /// It is empty, or a comment.
    Nothing,
    /// `-:` takes these events back.
    Deleted(Vec<Arc<Definition>>),
    /// A probe, whose definition becomes one of the events.
    Added(Box<Resolved>),
}

/// A probe against which the image has nothing.
#[derive(Debug)]
pub struct Resolved {
    /// What the line says.
    pub definition: Arc<Definition>,
    /// The address, and whether it is one of the image; `None` while the probe's module is not there.
    pub place: Option<(GuestAddr, bool)>,
    /// What decides whether a hit counts; `None` for one that lets all pass.
    pub filter: Option<Filter>,
    /// What the probe does to the guest.
    pub effects: Option<Effects>,
    /// The decoded instruction of `replace`.
    pub replacement: Option<InsnSlot>,
    /// It reads the guest's memory.
    pub reads_memory: bool,
    /// Its own program reads registers or memory, or it needs both to find where it fires.
    pub needs_state: bool,
    /// The image has no instruction there, but the kernel replaces that piece of its text when it boots.
    pub unsettled: bool,
}

/// Refuses what reads the guest's memory, or has to find code in it, where something is missing to find that.
///
/// # Errors
/// What is missing.
pub fn needs_memory(unfound: Option<NoSuchSymbol>) -> Result<(), String> {
    unfound.map_or(Ok(()), |missing| Err(format!("this needs the guest's memory: {missing}")))
}

/// Resolves definitions one by one.
#[derive(Debug)]
pub struct Resolver<'a> {
    target: ImageTarget<'a>,
    /// What is missing to find the guest's memory.
    unfound: Option<NoSuchSymbol>,
}

impl<'a> Resolver<'a> {
    /// For an image, and what [`ImageTarget::paging`] misses in it.
    #[must_use]
    pub fn new(target: ImageTarget<'a>, unfound: Option<NoSuchSymbol>) -> Self {
        Self { target, unfound }
    }

    /// Takes a line that comes behind `events`, in which nothing is changed: the caller enters what it accepts.
    ///
    /// # Errors
    /// A mistake in it, or what the image has against it.
    pub fn step(&self, config: &ProbeConfig, events: &Events) -> Result<Step, Refused> {
        let command = qkprobe_lang::parse(&config.def, &self.target, events)
            .map_err(|error| Refused::new(error.errno, &config.origin, error))?;
        Ok(match command {
            Command::Nothing => Step::Nothing,
            Command::Delete(delete) => Step::Deleted(events.matching(&delete)),
            Command::Add(definition) => Step::Added(Box::new(self.resolve(config, definition)?)),
        })
    }

    fn resolve(&self, config: &ProbeConfig, definition: Definition) -> Result<Resolved, Refused> {
        let target = &self.target;
        let refused = |errno, what: String| Refused::new(errno, &config.origin, what);
        let filter = config.filter.as_deref().map(|text| Filter::compile(text, &definition, &self.target));
        let filter = filter.transpose().map_err(|error| refused(EINVAL, error.to_string()))?;
        let effects = config.compile_effects(&definition, target);
        let effects = effects.map_err(|error| refused(error.errno, error.to_string()))?;
        let place = definition.place.address.map(|addr| (addr, target.is_in_image(addr)));
        let text = place.filter(|(addr, _)| target.has_text(*addr));
        let slot = text.and_then(|(addr, _)| Some((target.slot(addr)?, addr)));
        let unsettled = text.is_some_and(|(addr, _)| target.unsettled(addr).is_some());
        if text.is_some() && slot.is_none() && !unsettled {
            let what = format!("{}: no instruction is there: data lies between the code", definition.place.text);
            return Err(refused(EILSEQ, what));
        }
        let flow = effects.as_ref().and_then(|effects| effects.flow.as_ref());
        let replacement = flow.map(|flow| changes::check_flow(flow, slot, target)).transpose();
        let replacement = replacement.map_err(|what| refused(EOPNOTSUPP, what))?.flatten();
        let entry_reads = definition.entry.as_ref().is_some_and(qkprobe_lang::Program::reads_memory);
        let reads_memory = definition.program.reads_memory() || entry_reads;
        // A return or a successor is a place whose code must be found, too.
        let is_awaited = definition.kind != Kind::Kprobe || config.when != When::Pre;
        if reads_memory || is_awaited {
            needs_memory(self.unfound).map_err(|what| refused(EOPNOTSUPP, what))?;
        }
        self.check_kind(config, &definition, slot)?;
        let reads = reads_memory || !definition.program.registers().is_empty();
        Ok(Resolved {
            place,
            filter: filter.filter(|filter| !filter.is_none()),
            effects,
            replacement,
            reads_memory,
            needs_state: reads || is_awaited,
            unsettled,
            definition: Arc::new(definition),
        })
    }

    /// What a post or a return probe takes besides.
    fn check_kind(
        &self,
        config: &ProbeConfig,
        definition: &Definition,
        slot: Option<(InsnSlot, GuestAddr)>,
    ) -> Result<(), Refused> {
        let refused = |errno, what: String| Err(Refused::new(errno, &config.origin, what));
        let arch = self.target.arch;
        match (definition.kind, config.when) {
            (Kind::Kprobe, When::Pre) => Ok(()),
            (Kind::Kprobe, When::Post) => {
                let Some(execute) = arch.as_execute() else {
                    return refused(EOPNOTSUPP, format!("post: not possible on {} yet", arch.name()));
                };
                match slot {
                    Some((slot, addr)) if !execute.has_successor(&slot, addr) => refused(
                        EOPNOTSUPP,
                        format!(
                            "post: the instruction at {} ({:02x?}) traps on purpose, or nobody can tell where it goes: nothing \
                             runs after it",
                            definition.place.text,
                            slot.bytes()
                        ),
                    ),
                    _ => Ok(()),
                }
            }
            (Kind::Kretprobe { .. }, _) => {
                if config.privilege != Privilege::Kernel {
                    return refused(EINVAL, "a return probe is for the kernel's own functions".to_owned());
                }
                if definition.entry.as_ref().map_or(0, |entry| entry.max_len()) > SAVED_BYTES {
                    return refused(E2BIG, "too many different $argN at a return: at most 10".to_owned());
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use qkprobe_symbols::{KernelImage, Machine, Segment, SymbolTable};

    use super::*;

    const TEXT: u64 = 0xffff_ffff_8100_0000;

    /// Functions of x86_64, padded to 16 bytes: their names in the order of their bytes.
    fn x86_64(functions: &[(&'static str, &[u8])]) -> KernelImage {
        let mut bytes = Vec::new();
        let mut rows = Vec::new();
        for (name, code) in functions {
            rows.push((GuestAddr(TEXT + bytes.len() as u64), 'T', *name, None));
            bytes.extend_from_slice(code);
            bytes.resize(bytes.len().next_multiple_of(16), 0x90);
        }
        let text =
            Segment { addr: GuestAddr(TEXT), phys: 0x100_0000, bytes: bytes.as_slice().into(), executable: true };
        KernelImage::from_parts(SymbolTable::from_rows(rows).unwrap(), vec![text], None, Machine::X86_64)
    }

    fn step(image: &KernelImage, arch: &str, line: &str) -> Result<Step, Refused> {
        let target = ImageTarget { arch: qkprobe_arch::by_name(arch).unwrap(), image: Some(image) };
        let config = ProbeConfig::from_line(line, "here".to_owned()).unwrap();
        Resolver::new(target, target.paging().err()).step(&config, &Events::new())
    }

    #[track_caller]
    fn refused(image: &KernelImage, arch: &str, line: &str) -> (i32, String) {
        let Refused { errno, message } = step(image, arch, line).expect_err(line);
        (errno, message.strip_prefix("here\n").expect(line).to_owned())
    }

    /// ```text
    /// stop:  0f 0b        ud2
    /// data:  06           (no instruction in 64-bit mode)
    /// flags: 85 c0        test eax,eax
    ///        89 c1        mov  ecx,eax
    ///        74 00        je   +0
    ///        c3           ret
    /// dead:  89 c1        mov  ecx,eax
    ///        31 c0        xor  eax,eax
    ///        c3           ret
    /// ```
    #[test]
    fn what_the_image_has_against_a_probe() {
        let image = x86_64(&[
            ("stop", &[0x0f, 0x0b]),
            ("data", &[0x06]),
            ("flags", &[0x85, 0xc0, 0x89, 0xc1, 0x74, 0x00, 0xc3]),
            ("dead", &[0x89, 0xc1, 0x31, 0xc0, 0xc3]),
        ]);
        let refused = |line| refused(&image, "x86_64", line);
        let (errno, text) = refused("p:a stop do post");
        assert_eq!((errno, text.starts_with("post: the instruction at stop ([0f, 0b]) traps on purpose")), (95, true));
        assert_eq!(refused("p:a data"), (84, "data: no instruction is there: data lies between the code".to_owned()));
        let (errno, text) = refused("p:a flags+2 do skip");
        assert_eq!((errno, text.starts_with("the code behind this instruction may read flags")), (95, true), "{text}");
        let (errno, text) = refused("p:a dead do replace=0f0b");
        assert_eq!((errno, text.starts_with("replace: this instruction cannot be executed")), (95, true), "{text}");
        assert_eq!(refused("r:a dead do user"), (22, "a return probe is for the kernel's own functions".to_owned()));
        let arguments: String = (1..=11).map(|n| format!(" a{n}=$arg{n}")).collect();
        assert_eq!(
            refused(&format!("r:a dead{arguments}")),
            (7, "too many different $argN at a return: at most 10".to_owned())
        );
        for good in
            ["p:a stop", "p:a flags+2 do post", "p:a dead do skip", "p:a dead do replace=nop", "r:a dead $retval"]
        {
            let Step::Added(resolved) = step(&image, "x86_64", good).expect(good) else { panic!("{good}") };
            assert!(resolved.place.is_some_and(|(addr, in_image)| addr.0 >= TEXT && in_image), "{good}");
        }
    }

    #[test]
    fn memory_that_no_symbol_leads_to() {
        let rows = [(GuestAddr(0x40_4000), 'T', "f", None)];
        let image = KernelImage::from_parts(SymbolTable::from_rows(rows).unwrap(), Vec::new(), None, Machine::Sparc64);
        let (errno, text) = refused(&image, "sparc64", "p:a f s=+0(%o0):string");
        assert_eq!((errno, text.starts_with("this needs the guest's memory: ")), (95, true), "{text}");
        assert!(matches!(step(&image, "sparc64", "p:a f"), Ok(Step::Added(_))));
    }

    #[test]
    fn lines_that_add_nothing() {
        let image = x86_64(&[("f", &[0xc3])]);
        assert!(matches!(step(&image, "x86_64", "# a comment"), Ok(Step::Nothing)));
        let text = "trace_kprobe: error: No such probe event\n  Command: -:none".to_owned();
        assert_eq!(refused(&image, "x86_64", "-:none"), (2, text));
    }
}
