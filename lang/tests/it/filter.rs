//! Filters: grammar, carets, and what passes.

use qkprobe_lang::{Common, Filter};

use crate::fake::{FakeGuest, FakeKernel, VFS_READ, define, record};

const PAGE: u64 = 0xffff_8880_0000_1000;
const LINE: &str = "p:f vfs_read cnt=%dx:u64 c=+0(%si):string n=%dx:s8 k=+0(%si):u8[2] l=\\\"lit\" fn=%di sy=%di:symstr bad=+0(\\8):u32";

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
        ("k^ == 1", "Illegal operation for field type"),
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
    ] {
        // The kernel counts columns inside a term from one: its caret stands one behind these marks.
        let marked = row.find('^').expect("a caret");
        let filter = row.replacen('^', "", 1);
        let error = Filter::compile(&filter, &definition).expect_err(row);
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
    ] {
        let error = Filter::compile(filter, &definition).expect_err(filter);
        assert_eq!((error.column, error.text.as_ref()), (column, text), "{error}");
    }
    let error = Filter::compile("cmt == 1", &definition).expect_err("a typo");
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
    assert!(Filter::compile(&nest(60), &definition).is_ok());
    assert!(Filter::compile(&nest(1000), &definition).is_err());
    assert!(Filter::compile(&format!("{}cnt==1", "!".repeat(4000)), &definition).is_err());
    let long = vec!["cnt==1"; 400].join("||");
    assert!(Filter::compile(&long, &definition).is_ok());
}

#[test]
fn what_passes() {
    let definition = define(LINE);
    let mut guest =
        FakeGuest::new().set("dx", 1020).set("di", VFS_READ + 0x10).set("si", PAGE).poke(PAGE, b"/etc/ld.so.conf\0");
    let record = record(&definition, &mut guest);
    let common = Common { ip: VFS_READ + 4, cpu: 3 };
    let passes = |filter: &str| match Filter::compile(filter, &definition) {
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
    ] {
        assert!(!passes(filter), "{filter}");
    }
    let filter = Filter::compile("cnt==1", &definition).expect("good");
    assert!(!filter.matches(&[], &common, &FakeKernel), "no record, no match");
}

#[test]
fn return_probes() {
    let definition = define("r vfs_read $retval:s32");
    let common = Common { ip: 0x10, cpu: 0 };
    let filter = Filter::compile("__probe_ret_ip == 0x10 && arg1 < 0", &definition).expect("good");
    let mut guest = FakeGuest::new().set("ax", -2_i64 as u64);
    assert!(filter.matches(&record(&definition, &mut guest), &common, &FakeKernel));
    for bad in ["__probe_ip == 1", "__probe_func == 1"] {
        assert_eq!(Filter::compile(bad, &definition).expect_err(bad).text, "Field not found");
    }
}
