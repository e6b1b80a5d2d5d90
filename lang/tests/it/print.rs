//! Records as text and as JSON.

use crate::fake::{FakeGuest, FakeKernel, VFS_READ, define, record};

const PAGE: u64 = 0xffff_8880_0000_1000;

fn both(line: &str, guest: &mut FakeGuest) -> (String, String) {
    let definition = define(line);
    let record = record(&definition, guest);
    let (mut text, mut json) = (Vec::new(), Vec::new());
    definition.print_ftrace(&record, &FakeKernel, &mut text);
    definition.print_json(&record, &FakeKernel, &mut json);
    (String::from_utf8(text).expect("UTF-8"), String::from_utf8(json).expect("UTF-8"))
}

#[test]
fn as_the_kernel_prints() {
    let mut guest =
        FakeGuest::new().set("di", 0xff11_0000_048e_8b40).set("dx", 1024).set("si", PAGE).poke(PAGE, b"head\0");
    let (text, json) =
        both("p:ev1 vfs_read file=%di cnt=%dx:u64 c=+0(%si):string i=\\5 i2=\\-5:s8 st=\\\"hi\"", &mut guest);
    assert_eq!(text, " file=0xff110000048e8b40 cnt=1024 c=\"head\" i=0x5 i2=-5 st=\"hi\"");
    assert_eq!(json, r#""file":"0xff110000048e8b40","cnt":1024,"c":"head","i":"0x5","i2":-5,"st":"hi""#);
}

#[test]
fn all_kinds() {
    let mut guest =
        FakeGuest::new().set("di", VFS_READ + 4).set("si", u64::MAX).set("dx", PAGE).poke(PAGE, b"A\x1b\xff");
    let line = "p vfs_read %si:u64 %si:s64 %di:symbol %di:symstr +0(%dx):char[3] +0(%cx):u8[2] +0(\\8):string";
    let (text, json) = both(line, &mut guest);
    assert_eq!(
        text,
        " arg1=18446744073709551615 arg2=-1 arg3=vfs_read+0x4/0x370 arg4=\"vfs_read+0x4/0x370\" \
         arg5={'A','\\x1b','\\xff'} arg6={(fault),(fault)} arg7=(fault)"
    );
    assert_eq!(
        json,
        concat!(
            r#""arg1":18446744073709551615,"arg2":-1,"arg3":"vfs_read+0x4/0x370","arg4":"vfs_read+0x4/0x370","#,
            r#""arg5":["A","\u001b","\uefff"],"arg6":[null,null],"arg7":null"#
        )
    );
}

#[test]
fn hostile_strings() {
    let mut guest = FakeGuest::new().set("di", PAGE).poke(PAGE, b"a\"\\\n\x1b[31m\xc3\xa9\xe9\0");
    let (text, json) = both("p vfs_read s=+0(%di):string", &mut guest);
    assert_eq!(text, " s=\"a\\\"\\\\\\n\\x1b[31m\u{e9}\\xe9\"");
    assert_eq!(json, "\"s\":\"a\\\"\\\\\\n\\u001b[31m\u{e9}\\uefe9\"");
}

#[test]
fn a_broken_record_shows_faults() {
    let definition = define("p vfs_read %di a=+0(%di):string[2] \\\"x\"");
    for record in [&[][..], &[0], &[0; 9], &[0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255]] {
        let mut out = Vec::new();
        definition.print_ftrace(record, &FakeKernel, &mut out);
        let text = String::from_utf8(out).expect("UTF-8");
        assert!(text.ends_with("a={(fault),(fault)} arg3=\"x\""), "{text}");
    }
}
