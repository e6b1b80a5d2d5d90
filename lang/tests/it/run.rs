//! Programs at a hit: values, types, faults, and how often the guest is asked.

use qkprobe_lang::{MAX_STRING_BYTES, MAX_TAIL_BYTES};

use crate::fake::{BANNER, FakeGuest, FakeKernel, VFS_READ, define, record, show};

const PAGE: u64 = 0xffff_8880_0000_1000;

#[test]
fn registers_and_casts() {
    let mut guest = FakeGuest::new().set("di", 0x1234_5678_9abc_def0).set("sp", 0xffff_c900_0000_3f00);
    assert_eq!(
        show("p vfs_read %di %di:u8 %di:s8 %di:s16 %di:x32 %di:u64 $stack b=%di:b4@4/8 c=%di:b12@20/32", &mut guest),
        " arg1=0x123456789abcdef0 arg2=240 arg3=-16 arg4=-8464 arg5=0x9abcdef0 arg6=1311768467463790320 \
         arg7=0xffffc90000003f00 b=15 c=2475"
    );
    // Eight uses of two registers.
    assert_eq!(guest.register_reads, 2);
    assert_eq!(guest.memory_reads, 0);
}

#[test]
fn constants() {
    let mut guest = FakeGuest::new();
    assert_eq!(
        show("p vfs_read i=\\5 i2=\\-5:s8 h=\\0xffffffffffffffff u=\\-1:u64 st=\\\"hi\" c=\\65:char", &mut guest),
        " i=0x5 i2=-5 h=0xffffffffffffffff u=18446744073709551615 st=\"hi\" c='A'"
    );
}

#[test]
fn pointers() {
    let mut guest = FakeGuest::new()
        .set("di", PAGE)
        .poke(PAGE, &(PAGE + 0x100).to_le_bytes())
        .poke(PAGE + 0x108, &0xdead_beef_u64.to_le_bytes())
        .poke(PAGE + 0x110, b"inner\0");
    assert_eq!(
        show("p vfs_read +8(+0(%di)) +8(+0(%di)):u16 -8(+0(%di)):x32 +16(+0(%di)):string", &mut guest),
        " arg1=0xdeadbeef arg2=48879 arg3=0x0 arg4=\"inner\""
    );
    assert_eq!(show("p vfs_read +8(+0(%si))", &mut guest), " arg1=(fault)");
    assert_eq!(show("p vfs_read +0(+0(\\0)):string", &mut guest), " arg1=(fault)");
}

#[test]
fn image_symbols_move_with_the_slide() {
    let mut guest = FakeGuest { slide: Some(0x20_0000), ..FakeGuest::new() }
        .poke(BANNER + 0x20_0000, b"%s version\0")
        .poke(0x1000, b"fixed\0");
    assert_eq!(
        show("p vfs_read @linux_proc_banner:string @linux_proc_banner+3:string @0x1000:string", &mut guest),
        " arg1=\"%s version\" arg2=\"version\" arg3=\"fixed\""
    );
    guest.slide = None;
    assert_eq!(show("p vfs_read @linux_proc_banner:u8 x=@0x1000:char", &mut guest), " arg1=(fault) x='f'");
}

#[test]
fn stack_words() {
    // The stack is 16 KiB; sp lies 0x80 below its end.
    let sp = 0xffff_c900_0000_3f80;
    let mut guest = FakeGuest::new().set("sp", sp).poke(sp, &[1]).poke(sp + 8, &[7]).poke(sp + 15 * 8, &[9]);
    assert_eq!(
        show("p vfs_read $stack0 $stack1 $stack15 $stack16 $stack2048 $arg7", &mut guest),
        " arg1=0x1 arg2=0x7 arg3=0x9 arg4=0x0 arg5=0x0 arg6=0x7"
    );
    assert_eq!(guest.register_reads, 1);
}

#[test]
fn arguments_and_results() {
    let mut guest = FakeGuest::new().set("di", 1).set("si", 2).set("ax", 235);
    guest.saved = vec![22, 11];
    assert_eq!(show("p vfs_read $arg1 $arg2", &mut guest), " arg1=0x1 arg2=0x2");
    let definition = define("r vfs_read $retval:s64 b=$arg2 a=$arg1 again=+0($arg2)");
    let entry = definition.entry.as_ref().expect("an entry program");
    let mut saved = vec![0; entry.max_len()];
    let len = entry.run(&mut guest, &mut saved);
    let words: Vec<_> = (0..3).map(|index| entry.number(&saved[..len], index)).collect();
    assert_eq!(words, [Some(2), Some(1), None]);
    let record = record(&definition, &mut guest);
    let mut out = Vec::new();
    definition.print_ftrace(&record, &FakeKernel, &mut out);
    assert_eq!(String::from_utf8(out).expect("text"), " arg1=235 b=0x16 a=0xb again=(fault)");
}

#[test]
fn where_the_guest_goes_next() {
    let mut guest = FakeGuest { next_pc: Some(VFS_READ + 9), ..FakeGuest::new() };
    let shown = show("p vfs_read+4 $nextpc s=$nextpc:symstr x=$nextpc:x64", &mut guest);
    assert_eq!(shown, " arg1=vfs_read+0x9/0x370 s=\"vfs_read+0x9/0x370\" x=0xffffffff81445489");
    guest.next_pc = Some(PAGE);
    guest = guest.poke(PAGE, &[0x0f, 0x05]);
    assert_eq!(show("r vfs_read code=+0($nextpc):x8[2]", &mut guest), " code={0xf,0x5}");
    guest.next_pc = None;
    assert_eq!(show("p vfs_read+4 $nextpc c=+0($nextpc)", &mut guest), " arg1=(fault) c=(fault)");
    let program = define("p vfs_read $nextpc").program;
    assert!(program.needs_next_pc() && !program.needs_entry_time() && !program.reads_memory());
}

#[test]
fn how_long_a_function_took() {
    let mut guest = FakeGuest { times: Some((4_394_937_000, 1_250)), ..FakeGuest::new() }.set("ax", 7);
    guest.saved = vec![11];
    let line = "r vfs_read $retval a=$arg1 $latency t=$entrytime x=$latency:x16";
    assert_eq!(show(line, &mut guest), " arg1=0x7 a=0xb arg3=1250 t=4394937000 x=0x4e2");
    let definition = define(line);
    assert!(definition.program.needs_entry_time() && !definition.program.needs_next_pc());
    let record = record(&definition, &mut guest);
    let filter = qkprobe_lang::Filter::compile("arg3 > 1000 && t != 0", &definition, &FakeKernel).expect("good");
    assert!(filter.matches(&record, &qkprobe_lang::Common { ip: 0, cpu: 0 }, &FakeKernel));
    assert_eq!(show(line, &mut FakeGuest::new()), " arg1=(fault) a=(fault) arg3=(fault) t=(fault) x=(fault)");
}

#[test]
fn a_missing_register_is_a_fault() {
    assert_eq!(show("p vfs_read %di x=\\1", &mut FakeGuest::new()), " arg1=(fault) x=0x1");
}

#[test]
fn arrays_of_numbers() {
    let mut guest = FakeGuest::new().set("di", PAGE).poke(PAGE, &[1, 2, 3, 4, 0x41, 0x42, 0xff, 0xfe]);
    let shown = show("p vfs_read a=+0(%di):u8[4] b=+4(%di):char[2] c=+6(%di):s8[2] d=+0(%di):x16[1]", &mut guest);
    assert_eq!(shown, " a={1,2,3,4} b={'A','B'} c={-1,-2} d={0x201}");
    assert_eq!(guest.memory_reads, 4);
    // Over the end of the page: the last whole element is good, the others are not.
    let mut guest =
        FakeGuest::new().set("di", PAGE + 4096 - 10).poke(PAGE + 4096 - 10, &[1, 0, 0, 0, 2, 0, 0, 0, 3, 0]);
    assert_eq!(show("p vfs_read +0(%di):u32[4]", &mut guest), " arg1={1,2,(fault),(fault)}");
    assert_eq!(guest.memory_reads, 2);
    guest = guest.poke(PAGE + 4096, &[0, 0, 4, 0, 0, 0]);
    assert_eq!(show("p vfs_read +0(%di):u32[4]", &mut guest), " arg1={1,2,3,4}");
    // Not aligned, over the page's end, alone.
    assert_eq!(show("p vfs_read +8(%di):u32 +0(%di):b4@0/8[2]", &mut guest), " arg1=3 arg2={1,0}");
}

#[test]
fn strings() {
    let mut guest = FakeGuest::new().set("di", PAGE).poke(PAGE, b"head\0tail");
    assert_eq!(
        show("p vfs_read +0(%di):string +5(%di):ustring +u4(%di):string", &mut guest),
        " arg1=\"head\" arg2=\"tail\" arg3=\"\""
    );
    assert_eq!((guest.memory_reads, guest.user_reads), (3, 2));
    // Over the page's end.
    let mut guest = FakeGuest::new().set("di", PAGE + 4090).poke(PAGE + 4090, b"abcdefgh\0");
    assert_eq!(show("p vfs_read +0(%di):string", &mut guest), " arg1=\"abcdefgh\"");
    assert_eq!(guest.memory_reads, 2);
    // Cut off by an unmapped page.
    let mut guest = FakeGuest::new().set("di", PAGE + 4090).poke(PAGE + 4090, b"abcdef");
    assert_eq!(show("p vfs_read +0(%di):string x=\\1", &mut guest), " arg1=(fault) x=0x1");
    // Without end.
    let mut guest = FakeGuest::new().set("di", PAGE + 100).poke(PAGE, &[b'x'; 3 * 4096]);
    let definition = define("p vfs_read +0(%di):string +0(%di):string");
    let record = record(&definition, &mut guest);
    assert_eq!(record.len(), 1 + 8 + 2 * (MAX_STRING_BYTES - 1));
}

#[test]
fn arrays_of_strings() {
    let mut guest = FakeGuest::new()
        .set("di", PAGE)
        .poke(PAGE, &(PAGE + 0x100).to_le_bytes())
        .poke(PAGE + 8, &0_u64.to_le_bytes())
        .poke(PAGE + 16, &(PAGE + 0x200).to_le_bytes())
        .poke(PAGE + 0x100, b"one\0")
        .poke(PAGE + 0x200, b"two\0");
    assert_eq!(show("p vfs_read +0(%di):string[3]", &mut guest), " arg1={\"one\",(fault),\"two\"}");
    assert_eq!(guest.user_reads, 0);
    assert_eq!(show("p vfs_read +0(%di):ustring[1]", &mut guest), " arg1={\"one\"}");
    assert_eq!(guest.user_reads, 1);
}

#[test]
fn the_tail_is_bounded() {
    let definition = define("p vfs_read +0(%di):string[64] +0(%si):string");
    assert_eq!(definition.program.max_len(), 9 + 65 * 4 + MAX_TAIL_BYTES);
    let mut guest = FakeGuest::new().set("di", PAGE).set("si", PAGE + 4096);
    for index in 0..64 {
        guest = guest.poke(PAGE + index * 8, &(PAGE + 4096).to_le_bytes());
    }
    guest = guest.poke(PAGE + 4096, &[b'y'; 2 * 4096]);
    let record = record(&definition, &mut guest);
    assert!(record.len() <= definition.program.max_len());
    let mut out = Vec::new();
    definition.print_ftrace(&record, &FakeKernel, &mut out);
    assert!(out.ends_with(b"\"} arg2=\"\""), "the last string found no room");
}

#[test]
fn layout() {
    let mut guest = FakeGuest::new().set("di", PAGE).set("dx", 0x0102_0304).poke(PAGE, b"ab\0");
    let definition = define("p vfs_read %dx:u16 +0(%di):string +0(%si):u32 \\\"lit\" %dx:u8");
    assert_eq!(definition.program.max_len(), 1 + 2 + 4 + 4 + 1 + 4096);
    // Bitmap: element 2 faulted. The string's 2 bytes start at 12.
    assert_eq!(record(&definition, &mut guest), [0b100, 4, 3, 12, 0, 2, 0, 0, 0, 0, 0, 4, b'a', b'b']);
    assert_eq!(definition.program.run(&mut guest, &mut [0; 100]), 0, "too short a buffer");
    let empty = define("p vfs_read");
    assert!(empty.program.is_empty() && empty.program.max_len() == 0 && empty.program.run(&mut guest, &mut []) == 0);
}

#[test]
fn symbols_are_stored_as_addresses() {
    let mut guest = FakeGuest::new().set("di", VFS_READ + 4).set("si", 0x1234);
    assert_eq!(
        show("p vfs_read %di:symbol %di:symstr %si:symbol %si:symstr", &mut guest),
        " arg1=vfs_read+0x4/0x370 arg2=\"vfs_read+0x4/0x370\" arg3=0x1234 arg4=\"0x1234\""
    );
    assert_eq!(define("p vfs_read %di:symstr +0(%di):string").program.registers().len(), 1);
}

#[test]
fn many_registers() {
    let names = ["r15", "r14", "r13", "r12", "bp", "bx", "r11", "r10", "r9", "r8", "ax", "cx", "dx", "si", "di"];
    let mut guest = FakeGuest::new();
    let mut line = "p vfs_read".to_owned();
    let mut expected = String::new();
    for (index, name) in names.iter().enumerate() {
        guest = guest.set(name, index as u64);
        line += &format!(" {name}=%{name}:u8");
        expected += &format!(" {name}={index}");
    }
    assert_eq!(show(&line, &mut guest), expected);
    assert_eq!(guest.register_reads, 15);
}
