//! Big-endian and 32-bit guests: the same programs with another byte order and word.
#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::collections::HashMap;

use qkprobe_arch::{ByteOrder, GuestAddr, RegisterId};

use crate::arg::{ArgType, Deref, Parsed, Source, TypeKind};
use crate::program::{Element, HitContext, Input, Program, Space, compile, element};

struct Memory(HashMap<u64, u8>);

impl HitContext for Memory {
    fn register(&mut self, _id: RegisterId) -> Option<u64> {
        Some(0x1_ffff_fff8)
    }

    fn read(&mut self, _space: Space, addr: GuestAddr, out: &mut [u8]) -> bool {
        for (addr, byte) in (addr.0..).zip(out) {
            let Some(found) = self.0.get(&addr) else { return false };
            *byte = *found;
        }
        true
    }

    fn slide(&mut self, addr: GuestAddr) -> Option<GuestAddr> {
        Some(addr)
    }
}

fn program(args: &[(ArgType, &[i64])], word_bytes: usize, order: ByteOrder) -> Program {
    let parsed: Vec<_> = args
        .iter()
        .map(|(_, offsets)| Parsed {
            source: Source::Register(RegisterId(0)),
            derefs: offsets.iter().map(|offset| Deref { offset: *offset, space: Space::Kernel }).collect(),
            slot: 0,
        })
        .collect();
    let inputs: Vec<_> =
        args.iter().zip(&parsed).map(|((ty, _), parsed)| Input { ty: *ty, parsed, symbol: None }).collect();
    let mut program = compile(&qkprobe_arch::x86::X86_64, &inputs, &[]);
    program.word_bytes = word_bytes;
    program.order = order;
    program.mask = if word_bytes == 8 { u64::MAX } else { u64::from(u32::MAX) };
    program
}

fn number(bytes: u8, count: Option<u8>) -> ArgType {
    ArgType { kind: TypeKind::Hex, bytes, bits: None, count }
}

#[test]
fn thirty_two_bits_big_endian() {
    // The register's upper half does not exist; 0xfffffff8 + 16 wraps to 8.
    let bytes = [0x00, 0x00, 0x00, 0x20, 0x12, 0x34, 0x56, 0x78, 0xab, 0xcd];
    let mut memory: HashMap<u64, u8> = (8..).zip(bytes).collect();
    memory.extend((0x20..).zip(*b"text\0"));
    memory.extend((0xffff_fff8..0x1_0000_0000).map(|addr| (addr, 1)));
    memory.extend((0..8).map(|addr| (addr, 2)));
    let text = ArgType { kind: TypeKind::String, bytes: 4, bits: None, count: None };
    let args: [(ArgType, &[i64]); 7] = [
        (number(4, None), &[]),
        (number(4, None), &[20]),
        (number(2, None), &[24]),
        (number(8, None), &[20 - 4]),
        (number(2, Some(2)), &[20]),
        (number(4, Some(4)), &[0]),
        (text, &[16, 0]),
    ];
    let program = program(&args, 4, ByteOrder::Big);
    let mut out = vec![0; program.max_len()];
    // The string is read in one piece, which the fake's memory must hold.
    memory.extend((0x25..0x200).map(|addr| (addr, 0)));
    let len = program.run(&mut Memory(memory), &mut out);
    let record = &out[..len];
    let get = |field: usize, index| element(&program.fields[field], record, index);
    assert_eq!(get(0, 0), Element::Number(0xffff_fff8));
    assert_eq!(get(1, 0), Element::Number(0x1234_5678));
    assert_eq!(get(2, 0), Element::Number(0xabcd));
    assert_eq!(get(3, 0), Element::Number(0x20_1234_5678));
    assert_eq!((get(4, 0), get(4, 1)), (Element::Number(0x1234), Element::Number(0x5678)));
    // An array over the end of the address space goes on at 0.
    assert_eq!((get(5, 1), get(5, 2)), (Element::Number(0x0101_0101), Element::Number(0x0202_0202)));
    assert_eq!(get(6, 0), Element::Bytes(b"text"));
}

#[test]
fn sixty_four_bits_big_endian() {
    let memory = (0x1_ffff_fff8..).zip([0, 0, 0, 0, 0, 0, 0x40, 0x00]).chain((0x4000..).zip([1, 2, 3, 4])).collect();
    let program = program(&[(number(8, None), &[0]), (number(4, None), &[0, 0])], 8, ByteOrder::Big);
    let mut out = vec![0; program.max_len()];
    let len = program.run(&mut Memory(memory), &mut out);
    assert_eq!(element(&program.fields[0], &out[..len], 0), Element::Number(0x4000));
    assert_eq!(element(&program.fields[1], &out[..len], 0), Element::Number(0x0102_0304));
}
