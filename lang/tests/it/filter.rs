//! Filters: grammar, carets, and what passes.

use qkprobe_arch::{Arch, GuestAddr};
use qkprobe_lang::{Command, Common, Events, Filter, NamedAddr, PlaceError, SymbolLookup, Target, parse};

use crate::fake::{FakeGuest, FakeKernel, VFS_READ, define, record};

const PAGE: u64 = 0xffff_8880_0000_1000;
const LINE: &str = "p:f vfs_read cnt=%dx:u64 c=+0(%si):string n=%dx:s8 k=+0(%si):u8[2] l=\\\"lit\" fn=%di sy=%di:symstr bad=+0(\\8):u32 \
    w=+0(%si):u8[4] h=+0(%si):s16[2] q=+4(%si):u8[8] three=+0(%si):u8[3] ss=+16(%si):string[2] kb=+0(\\8):u8[4]";

#[test]
fn refused() {
    let definition = define(LINE);
    for (row, text) in [
        ("nosuch^==1", "Field not found"),
        ("cnt==1 && nosuch^==1", "Field not found"),
        ("c==^5", "Expecting string field"),
        ("cnt~^\"x\"", "Expecting numeric field"),
        ("cnt^", "Invalid operator"),
        ("cnt ^= 1", "Invalid operator"),
        ("cnt==^", "Invalid value (did you forget quotes)?"),
        ("c == ^cat", "Invalid value (did you forget quotes)?"),
        ("c < ^\"x\"", "Illegal operation for field type"),
        ("cnt ~ ^5", "Illegal operation for field type"),
        ("k == ^\"x\"", "Expecting numeric field"),
        ("k ~ ^\"x*\"", "Expecting numeric field"),
        ("k ~ ^1", "Illegal operation for field type"),
        ("k.function == ^vfs_read", "Illegal operation for field type"),
        ("ss == ^1", "Expecting string field"),
        ("ss.function == ^vfs_read", "Illegal operation for field type"),
        ("cnt==^08", "Illegal integer value"),
        ("cnt==^-1", "Illegal integer value"),
        ("cnt==^5x", "Illegal integer value"),
        ("cnt==000000000000000000000001^", "Operand too long"),
        ("cnt < ^CPUS{1}", "Illegal operation for field type"),
        ("CPU & CPUS{a^}", "Invalid cpulist"),
        ("CPU & CPUS{1^", "Missing '}'"),
        ("n.function == ^vfs_read", "Illegal operation for field type"),
        ("fn.function < ^vfs_read", "Invalid operator"),
        ("fn.function ==^", "Function not found"),
        ("fn.function == nosuchfn^", "Function not found"),
        ("fn.function == nosuchmod:vfs_read^", "Function not found"),
        ("fn.function != vfs_raed^", "Function not found"),
        ("__probe_ip.function == 0x1000^", "Function not found"),
        ("fn.function == 0x1x^", "Invalid value (did you forget quotes)?"),
    ] {
        // The kernel counts columns inside a term from one: its caret stands one behind these marks.
        let marked = row.find('^').expect("a caret");
        let filter = row.replacen('^', "", 1);
        let error = Filter::compile(&filter, &definition, &FakeKernel).expect_err(row);
        assert_eq!(error.text, text, "{row}");
        assert_eq!(error.column, marked + 1, "{row}\n{error}");
    }
    for (filter, column, text) in [
        ("(cnt==1", 0, "Too many '('"),
        ("cnt==1 && ((cnt==2)", 10, "Too many '('"),
        ("cnt==1)", 6, "Too few '('"),
        ("c==\"x", 3, "Missing matching quote"),
        ("cnt==1 cnt==2", 7, "Too many terms in predicate expression"),
        ("cnt==1 & cnt==2", 7, "Too many terms in predicate expression"),
        ("(cnt==1)(cnt==2)", 8, "Too many terms in predicate expression"),
        ("cnt==1 &&", 9, "Meaningless filter expression"),
        ("", 0, "Error"),
        ("()", 0, "Error"),
        ("== 1", 0, "Error"),
        ("!= 1", 0, "Error"),
        ("c < \"x\"", 5, "Illegal operation for field type"),
        ("CPU & CPUS1", 12, "Missing '{'"),
        // Two behind the end: the kernel looks at what follows the word, and counts from one.
        ("CPU & CPUS", 12, "Missing '{'"),
    ] {
        let error = Filter::compile(filter, &definition, &FakeKernel).expect_err(filter);
        assert_eq!((error.column, error.text.as_ref()), (column, text), "{error}");
    }
    let error = Filter::compile("cmt == 1", &definition, &FakeKernel).expect_err("a typo");
    assert_eq!(
        error.to_string(),
        "event filter parse error: error: Field not found
  Command: cmt == 1
               ^
  help: did you mean cnt?"
    );
}

#[test]
fn nesting_is_bounded() {
    let definition = define(LINE);
    let nest = |depth: usize| format!("{}cnt==1{}", "(".repeat(depth), ")".repeat(depth));
    assert!(Filter::compile(&nest(60), &definition, &FakeKernel).is_ok());
    assert!(Filter::compile(&nest(1000), &definition, &FakeKernel).is_err());
    assert!(Filter::compile(&format!("{}cnt==1", "!".repeat(4000)), &definition, &FakeKernel).is_err());
    let long = vec!["cnt==1"; 400].join("||");
    assert!(Filter::compile(&long, &definition, &FakeKernel).is_ok());
}

#[test]
fn what_passes() {
    let definition = define(LINE);
    let guest =
        FakeGuest::new().set("dx", 1020).set("di", VFS_READ + 0x10).set("si", PAGE).poke(PAGE, b"/etc/ld.so.conf\0");
    let guest = &mut guest.poke(PAGE + 16, &[PAGE.to_le_bytes(), (PAGE + 5).to_le_bytes()].concat());
    let record = record(&definition, guest);
    let common = Common { ip: VFS_READ + 4, cpu: 3 };
    let passes = |filter: &str| match Filter::compile(filter, &definition, &FakeKernel) {
        Ok(filter) => filter.matches(&record, &common, &FakeKernel),
        Err(error) => panic!("{error}"),
    };
    for filter in [
        "0",
        "none",
        "cnt == 1020",
        "cnt==0x3fc",
        "cnt != 1",
        "cnt > 1000 && cnt < 1021",
        "cnt >= 1020 && cnt <= 1020",
        "cnt & 0x1c",
        "n == -4",
        "n < 0",
        "n <= -4 && n > -5",
        "n == 0x3fc",
        "c == \"/etc/ld.so.conf\"",
        "c == '/etc/ld.so.conf'",
        "c != \"x\"",
        "c ~ \"/etc/*\"",
        "c ~ \"*.conf\"",
        "c ~ \"*ld*\"",
        "c ~ \"/etc/l?.s[a-o].conf\"",
        "c ~ \"!/usr/*\"",
        "!(c ~ \"/usr/*\")",
        "!c == \"x\"",
        "l == \"lit\"",
        "CPU == 3",
        "CPU < 4 && cpu >= 3",
        "CPU & CPUS{0-3}",
        "CPU == CPUS{3}",
        "CPU != CPUS{2-3}",
        "cnt & CPUS{1000-1023}",
        "__probe_ip == 0xffffffff81445484",
        "__probe_ip.function == vfs_read",
        "fn.function == vfs_read",
        "fn.function != vfs_write && fn.function == 0xffffffff81445480",
        "sy == \"vfs_read+0x10/0x370\"",
        "sy ~ \"vfs_*\"",
        "cnt == 1 || c ~ \"*conf\" && cnt == 1020",
        "(cnt == 1 || CPU == 3) && !(cnt == 2)",
        "!!(cnt == 1020)",
        "!bad == 0",
        "cnt==1||cnt==1020",
        // An array of numbers is the number that its bytes are: "/etc".
        "w == 0x6374652f",
        "w != 1 && w > 0x6374652e && w & 0x60000000",
        "h == 0x6374652f && h > 0",
        "q == 0x632e6f732e646c2f",
        // No number has 3 bytes: no comparison passes.
        "!three == 1 && !three != 1",
        "!kb == 0",
        // An array of strings is its first.
        "ss == \"/etc/ld.so.conf\"",
        "ss ~ \"/etc/*\" && ss != \"ld.so.conf\"",
        // A function is the symbol around an address, whichever of its addresses is given.
        "fn.function == 0xffffffff81445490",
    ] {
        assert!(passes(filter), "{filter}");
    }
    for filter in [
        "cnt == 1",
        "cnt & 3",
        "n > 0",
        "c == \"/etc/ld.so.conf2\"",
        "c ~ \"/etc\"",
        "c ~ \"!/etc/*\"",
        "CPU == 2",
        "CPU & CPUS{0-2}",
        "CPU == CPUS{2-3}",
        "fn.function == vfs_write",
        "cnt == 1020 && (CPU == 1 || CPU == 2)",
        "cnt == 1 && cnt == 2 || cnt == 3",
        "bad == 0",
        "bad != 0",
        "bad < 1",
        "w == 0x2f",
        "w == 1",
        "h < 0",
        "q == 0",
        "three == 1",
        "three != 1",
        "three < 1",
        "kb != 0",
        "ss ~ \"ld*\"",
        "fn.function == 0xffffffff81446200",
    ] {
        assert!(!passes(filter), "{filter}");
    }
    let filter = Filter::compile("cnt==1", &definition, &FakeKernel).expect("good");
    assert!(!filter.matches(&[], &common, &FakeKernel), "no record, no match");
}

/// A guest whose memory has the highest byte first.
struct BigEndian;

impl Target for BigEndian {
    fn arch(&self) -> &dyn Arch {
        qkprobe_arch::by_name("ppc64").expect("this build has it")
    }

    fn symbol(&self, module: Option<&str>, name: &str) -> SymbolLookup {
        FakeKernel.symbol(module, name)
    }

    fn data_symbol(&self, name: &str) -> Option<GuestAddr> {
        FakeKernel.data_symbol(name)
    }

    fn has_module(&self, module: &str) -> bool {
        FakeKernel.has_module(module)
    }

    fn check_place(&self, addr: GuestAddr) -> Result<GuestAddr, PlaceError> {
        FakeKernel.check_place(addr)
    }

    fn is_function_entry(&self, addr: GuestAddr) -> bool {
        FakeKernel.is_function_entry(addr)
    }

    fn name_of(&self, addr: GuestAddr) -> Option<NamedAddr> {
        FakeKernel.name_of(addr)
    }
}

#[test]
fn an_array_is_a_number_in_the_guests_byte_order() {
    let parsed = parse("p vfs_read w=+0(%r3):u8[4] h=+0(%r3):u16[2] s=+0(%r3):s8[2]", &BigEndian, &Events::new());
    let Ok(Command::Add(definition)) = parsed else { panic!("{parsed:?}") };
    let mut guest = FakeGuest::new().poke(PAGE, &[0xfe, 2, 3, 4]);
    let r3 = BigEndian.arch().register("r3").expect("a register");
    guest.registers.insert(r3.0, PAGE);
    let record = record(&definition, &mut guest);
    for (filter, passes) in
        [("w == 0xfe020304", true), ("h == 0xfe020304", true), ("s == -510", true), ("w == 0x40302fe", false)]
    {
        let filter = Filter::compile(filter, &definition, &BigEndian).expect(filter);
        assert_eq!(filter.matches(&record, &Common { ip: 0, cpu: 0 }, &FakeKernel), passes, "{filter}");
    }
}

#[test]
fn return_probes() {
    let definition = define("r vfs_read $retval:s32");
    let common = Common { ip: 0x10, cpu: 0 };
    let filter = Filter::compile("__probe_ret_ip == 0x10 && arg1 < 0", &definition, &FakeKernel).expect("good");
    let mut guest = FakeGuest::new().set("ax", -2_i64 as u64);
    assert!(filter.matches(&record(&definition, &mut guest), &common, &FakeKernel));
    for bad in ["__probe_ip == 1", "__probe_func == 1"] {
        assert_eq!(Filter::compile(bad, &definition, &FakeKernel).expect_err(bad).text, "Field not found");
    }
}

#[test]
fn operators_of_other_languages_have_a_hint() {
    let definition = define("p vfs_read file=+0(%di):string n=%si");
    for (filter, help) in [
        ("file = \"/x\"", "equality is written =="),
        ("n = 3", "equality is written =="),
        ("file =~ \"/x\"", "a pattern is compared by ~: FIELD ~ \"/etc/*\""),
        ("n is 3", "operators are: ~ != == <= < >= > &"),
    ] {
        let error = Filter::compile(filter, &definition, &FakeKernel).expect_err(filter);
        assert_eq!((error.text.as_ref(), error.help.as_deref()), ("Invalid operator", Some(help)), "{filter}");
    }
}
