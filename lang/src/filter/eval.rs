//! A filter asked about a record: no allocation, no panic.
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::fmt;

use qkprobe_arch::ByteOrder;

use super::cpus::CpuSet;
use super::{Common, glob};
use crate::program::{Element, Field, element, whole};
use crate::target::SymbolNames;

/// The thing to judge.
pub(super) struct Hit<'a> {
    pub(super) record: &'a [u8],
    pub(super) common: &'a Common,
    pub(super) names: &'a dyn SymbolNames,
}

/// A boolean expression. Its depth is bounded by the parser.
#[derive(Clone, Debug)]
pub(super) enum Node {
    /// All must hold.
    And(Vec<Node>),
    /// One must hold.
    Or(Vec<Node>),
    Not(Box<Node>),
    Test(Test),
}

/// Where a test's left side comes from.
#[derive(Clone, Debug)]
pub(super) enum Operand {
    /// A field's value; of an array of strings its first.
    Field(Field),
    /// An array of numbers, as one number.
    Whole(Field, ByteOrder),
    /// A constant string of the definition.
    Literal(String),
    /// The probed or returned-to address.
    Ip,
    Cpu,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    And,
    Glob,
}

/// What a test compares with.
#[derive(Clone, Debug)]
pub(super) enum Value {
    /// A number, truncated to the field's width; `signed` says how to order.
    Number {
        value: u64,
        bytes: u8,
        signed: bool,
    },
    Text(Vec<u8>),
    /// A pattern, and whether it must not match.
    Pattern {
        pattern: Vec<u8>,
        inverted: bool,
    },
    Cpus(CpuSet),
    /// The address must lie in this function, as linked.
    Function {
        start: u64,
        size: u64,
    },
}

/// One comparison.
#[derive(Clone, Debug)]
pub(super) struct Test {
    pub(super) operand: Operand,
    pub(super) op: Op,
    pub(super) value: Value,
}

impl Node {
    pub(super) fn matches(&self, hit: &Hit<'_>) -> bool {
        match self {
            Self::And(nodes) => nodes.iter().all(|node| node.matches(hit)),
            Self::Or(nodes) => nodes.iter().any(|node| node.matches(hit)),
            Self::Not(node) => !node.matches(hit),
            Self::Test(test) => test.matches(hit),
        }
    }
}

impl Test {
    fn matches(&self, hit: &Hit<'_>) -> bool {
        let found = match &self.operand {
            Operand::Field(field) => element(field, hit.record, 0),
            Operand::Whole(field, order) => whole(field, *order, hit.record),
            Operand::Literal(text) => Element::Bytes(text.as_bytes()),
            Operand::Ip => Element::Number(hit.common.ip),
            Operand::Cpu => Element::Number(u64::from(hit.common.cpu)),
        };
        match (found, &self.value) {
            (Element::Fault, _) => false,
            (Element::Number(left), Value::Number { value, bytes, signed }) => {
                compare(self.op, left, *value, *bytes, *signed)
            }
            (Element::Number(left), Value::Cpus(set)) => match self.op {
                Op::Eq => set.is_only(left),
                Op::Ne => !set.is_only(left),
                _ => set.contains(left),
            },
            (Element::Number(left), Value::Function { start, size }) => {
                let inside = hit.names.linked(left).wrapping_sub(*start) < *size;
                inside == (self.op == Op::Eq)
            }
            // `symstr` is stored as a number and named here.
            (Element::Number(left), value) => {
                let mut text = NameBuffer::new();
                if !hit.names.name(left, &mut text) {
                    text = NameBuffer::new();
                    // Cannot fail: 18 bytes fit.
                    let _ = fmt::Write::write_fmt(&mut text, format_args!("{left:#x}"));
                }
                self.matches_text(text.bytes(), value)
            }
            (Element::Bytes(bytes), value) => self.matches_text(bytes, value),
        }
    }

    fn matches_text(&self, bytes: &[u8], value: &Value) -> bool {
        match value {
            Value::Text(text) => (bytes == text.as_slice()) == (self.op == Op::Eq),
            Value::Pattern { pattern, inverted } => glob::matches(pattern, bytes) != *inverted,
            _ => false,
        }
    }
}

fn compare(op: Op, left: u64, right: u64, bytes: u8, signed: bool) -> bool {
    // Both are truncated to the field's width, then ordered by its signedness: moved to the top, the order is kept.
    let unused = 64_u32.saturating_sub(u32::from(bytes) * 8);
    let (left, right) = (left.wrapping_shl(unused), right.wrapping_shl(unused));
    let order = if signed { left.cast_signed().cmp(&right.cast_signed()) } else { left.cmp(&right) };
    match op {
        Op::Eq => order.is_eq(),
        Op::Ne => order.is_ne(),
        Op::Lt => order.is_lt(),
        Op::Le => order.is_le(),
        Op::Gt => order.is_gt(),
        Op::Ge => order.is_ge(),
        Op::And => left & right != 0,
        Op::Glob => false,
    }
}

/// A symbol's name on the stack; what does not fit is cut.
struct NameBuffer {
    bytes: [u8; 640],
    len: usize,
}

impl NameBuffer {
    const fn new() -> Self {
        Self { bytes: [0; 640], len: 0 }
    }

    fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

impl fmt::Write for NameBuffer {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for (to, from) in self.bytes.iter_mut().skip(self.len).zip(text.bytes()) {
            *to = from;
            self.len += 1;
        }
        Ok(())
    }
}
