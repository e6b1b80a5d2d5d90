//! Effects: what compiles for which definition, and what a `Set` does to a guest.

use qkprobe_arch::{GuestAddr, RegisterId};
use qkprobe_lang::{
    EffectSpec, Effects, FlowChange, Halt, HitContext, HitMachine, PAGE_BYTES, ProbeConfig, Set, Space, Target,
};

use crate::fake::{BANNER, FakeGuest, FakeKernel, define};

const PAGE: u64 = 0xffff_8880_0000_1000;

impl HitMachine for FakeGuest {
    fn set_register(&mut self, id: RegisterId, value: u64) -> bool {
        self.registers.insert(id.0, value);
        true
    }

    fn write(&mut self, _space: Space, addr: GuestAddr, bytes: &[u8]) -> bool {
        let offset = (addr.0 % PAGE_BYTES) as usize;
        assert!(!bytes.is_empty() && offset + bytes.len() <= PAGE_BYTES as usize, "{addr}: {} bytes", bytes.len());
        if self.read_only.contains(&(addr.0 / PAGE_BYTES)) {
            return false;
        }
        let Some(page) = self.pages.get_mut(&(addr.0 / PAGE_BYTES)) else { return false };
        page[offset..offset + bytes.len()].copy_from_slice(bytes);
        true
    }
}

fn id(name: &str) -> RegisterId {
    FakeKernel.arch().register(name).expect("a register")
}

/// The effects of a line's options.
fn compile(line: &str) -> Result<Option<Effects>, qkprobe_lang::Diagnostic> {
    let probe = ProbeConfig::from_line(line, String::new())?;
    probe.compile_effects(&define(&probe.def), &FakeKernel)
}

fn good(line: &str) -> Effects {
    compile(line).unwrap_or_else(|error| panic!("{error}")).expect("an effect")
}

/// The one set of a line.
fn set(line: &str) -> Set {
    let [set] = good(line).sets.to_vec().try_into().expect("one");
    set
}

#[test]
fn nothing_is_no_effect() {
    assert!(compile("p vfs_read").expect("good").is_none());
    assert!(compile("p vfs_read do post count").expect("good").is_none());
    assert!(EffectSpec::default().is_empty());
}

#[test]
fn registers_are_set() {
    for (line, register, value) in [
        ("p vfs_read do set:%ax=5", "ax", 5),
        ("p vfs_read do set:%ax=-1", "ax", 0xffff_ffff_ffff_ffff),
        ("p vfs_read do set:%ax:s64=-1", "ax", 0xffff_ffff_ffff_ffff),
        ("p vfs_read do set:$arg2=0xfff", "si", 0xfff),
        ("r vfs_read do set:$retval=-ENOENT", "ax", 0xffff_ffff_ffff_fffe),
        ("p vfs_read+9 do post set:%flags=0x246", "flags", 0x246),
        ("p vfs_read do set:$stack=0x1000", "sp", 0x1000),
    ] {
        let set = set(line);
        let mut guest = FakeGuest::new();
        assert!(set.apply(&mut guest), "{line}");
        assert_eq!(guest.registers, [(id(register).0, value)].into(), "{line}");
        assert_eq!((set.register(), set.writes_memory()), (Some(id(register)), false));
        assert_eq!(set.registers_read().count(), 0);
    }
}

#[test]
fn memory_is_set() {
    let guest = || {
        FakeGuest { slide: Some(0x20_0000), ..FakeGuest::new() }
            .set("di", PAGE)
            .set("dx", PAGE + 16)
            .poke(PAGE, &[0xaa; 32])
            .poke(PAGE + 24, &(PAGE + 0x100).to_le_bytes())
            .poke(BANNER + 0x20_0000, b"%s")
    };
    for (line, addr, bytes) in [
        ("p vfs_read do set:+8(%di):u32=0x01020304", PAGE + 8, &[4, 3, 2, 1, 0xaa][..]),
        ("p vfs_read do set:+8(%di)=-2", PAGE + 8, &[0xfe, 255, 255, 255, 255, 255, 255, 255, 0xaa]),
        ("p vfs_read do set:-8($arg3):s16=-1", PAGE + 8, &[0xff, 0xff, 0xaa]),
        ("p vfs_read do set:+1(+24($arg1)):u8=7", PAGE + 0x101, &[7, 0]),
        ("p vfs_read do set:+u0(%di):x8=0xff", PAGE, &[0xff, 0xaa]),
        ("p vfs_read do set:@linux_proc_banner+1:u8=100", BANNER + 0x20_0001, b"d\0"),
        ("p vfs_read do set:@0xffff888000001000:u8=1", PAGE, &[1, 0xaa]),
    ] {
        let set = set(line);
        let mut guest = guest();
        assert!(set.apply(&mut guest), "{line}");
        let mut found = vec![0; bytes.len()];
        assert!(guest.read(Space::Kernel, GuestAddr(addr), &mut found));
        assert_eq!(found, bytes, "{line}");
        assert_eq!((set.register(), set.writes_memory()), (None, true));
    }
    let set = set("p vfs_read do set:+1(+24($arg1)):u8=7");
    assert_eq!(set.registers_read().collect::<Vec<_>>(), [id("di")]);
    assert!(!set.apply(&mut FakeGuest::new()), "no such register");
    assert!(!set.apply(&mut FakeGuest::new().set("di", 0)), "nothing there");
}

#[test]
fn over_a_pages_end_all_or_nothing() {
    let set = set("p vfs_read do set:+0(%di):x32=0x04030201");
    let guest = || FakeGuest::new().set("di", PAGE + 4094).poke(PAGE + 4094, &[9, 9]);
    let both = |guest: &FakeGuest| {
        let page = |addr: u64| guest.pages.get(&(addr / PAGE_BYTES)).map(|page| page.as_slice());
        let second = page(PAGE + 4096).map(|page| page[..3].to_vec());
        (page(PAGE).expect("mapped")[4094..].to_vec(), second)
    };
    let mut mapped = guest().poke(PAGE + 4096, &[8, 8, 8]);
    assert!(set.apply(&mut mapped));
    assert_eq!(both(&mapped), (vec![1, 2], Some(vec![3, 4, 8])));
    let mut half = guest();
    assert!(!set.apply(&mut half));
    assert_eq!(both(&half), (vec![9, 9], None));
    let mut read_only = guest().poke(PAGE + 4096, &[8, 8, 8]);
    read_only.read_only.push(PAGE / PAGE_BYTES);
    assert!(!set.apply(&mut read_only));
    assert_eq!(both(&read_only), (vec![9, 9], Some(vec![8, 8, 8])));
}

#[test]
fn a_return_probe_uses_what_it_saved() {
    let set = set("r vfs_read buf=$arg2 do set:+8($arg2):u8=1");
    let mut guest = FakeGuest::new().poke(PAGE, &[0]);
    guest.saved = vec![PAGE];
    assert!(set.apply(&mut guest));
    assert_eq!(guest.pages[&(PAGE / PAGE_BYTES)][8], 1);
}

#[test]
fn flow_and_halt() {
    let effects = good("p vfs_read do override=-EIO quit=3 times=1 set:%dx=0 set:%cx=1");
    assert_eq!(effects.flow, Some(FlowChange::Override(0xffff_ffff_ffff_fffb)));
    assert_eq!((effects.halt, effects.fault.times, effects.sets.len()), (Some(Halt::Quit(3)), 1, 2));
    assert_eq!(good("p vfs_read+9 do skip").flow, Some(FlowChange::Skip));
    assert_eq!(good("r vfs_read do stop").halt, Some(Halt::Stop));
    assert_eq!(good("p vfs_read do replace=0f1f00").flow.expect("a flow").to_string(), "replace=0f1f00");
    assert!(!effects.needs_next_pc());
    assert!(good("p vfs_read do set:+0($nextpc):u8=0x90").needs_next_pc());
}

/// `(line with the caret's place, text)`. The definition's names stand in it, as they do in the message.
const REFUSED: [(&str, &str); 32] = [
    ("p:g/e vfs_read do set:^%rax=5", "Invalid register name"),
    ("p:g/e vfs_read do set:^%ip=5", "%ip can not be set"),
    ("p:g/e vfs_read do set:^%orig_ax=5", "%orig_ax can not be set"),
    ("p:g/e vfs_read do set:^%cs=5", "%cs can not be set"),
    ("p:g/e vfs_read do set:^%gs_base=5", "%gs_base can not be set"),
    ("p:g/e vfs_read do set:^$retval=5", "$retval is not available on probe"),
    ("p:g/e vfs_read+9 do set:^$arg1=5", "$arg* can be used only on function entry or exit"),
    ("p:g/e vfs_read do set:^$arg7=5", "$arg7 is no register"),
    ("r:g/e vfs_read do set:^$arg1=5", "$arg1 can not be set"),
    ("r:g/e vfs_read do set:^+0($arg1):u8=5", "$arg1 is not saved"),
    ("r:g/e vfs_read do set:^$latency=5", "$latency is no place to set"),
    ("p:g/e vfs_read do set:^$nextpc=5", "$nextpc is no place to set"),
    ("p:g/e vfs_read do set:^\\5=5", "\\5 is no place to set"),
    ("p:g/e vfs_read do set:^=5", "No argument expression"),
    ("p:g/e vfs_read do set:^@nosuch:u8=5", "Invalid probed address or symbol"),
    ("p:g/e vfs_read do set:+0(%di^:u8=5", "Dereference brace is not closed"),
    ("p:g/e vfs_read do set:+0(%di):^string=5", "Only a number can be set"),
    ("p:g/e vfs_read do set:+0(%di):^u8[2]=5", "Only a number can be set"),
    ("p:g/e vfs_read do set:+0(%di):^b4@0/8=5", "Only a number can be set"),
    ("p:g/e vfs_read do set:+0(%di):^symbol=5", "Only a number can be set"),
    ("p:g/e vfs_read do set:%ax:^u32=5", "A register is set as a whole"),
    ("p:g/e vfs_read do set:+0(%di):u8=^256", "The value does not fit"),
    ("p:g/e vfs_read do set:+0(%di):u8=^-1", "The value does not fit"),
    ("p:g/e vfs_read do set:+0(%di):s8=^128", "The value does not fit"),
    ("p:g/e vfs_read do set:%flags=^0x100000000", "The value does not fit"),
    ("p:g/e vfs_read do set:%ax=^x", "'x' is no number"),
    ("p:g/e vfs_read+9 do ^override=-2", "Override needs a function's entry"),
    ("r:g/e vfs_read do ^override=-2", "A return probe has no instruction to go around"),
    ("r:g/e vfs_read do ^skip", "A return probe has no instruction to go around"),
    ("r:g/e vfs_read do ^post", "A return probe is on no side of an instruction"),
    ("p:g/e vfs_read do replace=90^9090", "The instruction has 1 of the 3 bytes"),
    ("p:g/e vfs_read do replace=0f1f^", "The instruction has more than 2 bytes"),
];

#[test]
fn refused() {
    for (row, text) in REFUSED {
        let column = row.find('^').expect("a caret");
        let line = row.replacen('^', "", 1);
        let error = compile(&line).expect_err(row);
        assert_eq!((error.text.as_ref(), error.column), (text, Some(column)), "{row}\n{error}");
        assert_eq!(error.command, line);
    }
    let error = compile("p:g/e vfs_read do replace=06").expect_err("not in 64-bit mode");
    assert_eq!(error.text, "These bytes are no instruction of x86_64");
}

#[test]
fn help_says_what_to_write() {
    let help = |line: &str| compile(line).expect_err(line).help.expect("a help");
    assert_eq!(help("p vfs_read do set:%rax=5"), "kprobe events call it %ax");
    assert_eq!(help("p vfs_read do set:$arg7=5"), "it is a word of the stack: set:+8($stack)=VALUE");
    assert_eq!(
        help("r vfs_read do set:+0($arg1)=5"),
        "fetch it as well, so that it is kept from the entry on: saved=$arg1"
    );
    assert_eq!(help("p vfs_read do set:+0(%di):u8=256"), "1 bytes of this type hold 0 to 255");
    let error = compile("p:g/e vfs_read if CPU==1 do stop set:%ax=-ENOET times=2").expect_err("a typo");
    assert_eq!(
        error.to_string(),
        "error: 'ENOET' is no error of Linux
  Command: p:g/e vfs_read do set:%ax=-ENOET
                                     ^
  help: did you mean -ENOENT?"
    );
}
