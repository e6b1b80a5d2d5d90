//! The filter's grammar, read left to right as the kernel reads it, so that the first mistake is the kernel's.
//!
//! 1. Quotes and parentheses are counted over the whole text.
//! 2. Terms are joined by `&&` (stronger) and `||`; `!` and parentheses nest.
//! 3. A term is FIELD OP VALUE.

use std::borrow::Cow;

use qkprobe_arch::GuestAddr;

use super::FilterError;
use super::cpus::CpuSet;
use super::eval::{Node, Op, Operand, Test, Value};
use crate::arg::TypeKind;
use crate::command::{Definition, Kind};
use crate::number::{self, Radix};
use crate::suggest;
use crate::target::{SymbolLookup, Target};

/// How deep `(` and `!` may nest; the kernel has no such limit.
const MAX_DEPTH: usize = 64;
/// Strings must be shorter.
const MAX_STRING: usize = 256;
/// Numbers must be shorter.
const MAX_NUMBER: usize = 24;
/// Longest filter: a page in the kernel.
const MAX_TEXT: usize = 4096;

/// `<=` before `<`: the first that fits is taken.
const OPS: [(&str, Op); 8] = [
    ("~", Op::Glob),
    ("!=", Op::Ne),
    ("==", Op::Eq),
    ("<=", Op::Le),
    ("<", Op::Lt),
    (">=", Op::Ge),
    (">", Op::Gt),
    ("&", Op::And),
];

/// Fields that every event of the kernel has, and this tracer does not know yet.
const TASK_FIELDS: [&str; 8] =
    ["COMM", "comm", "common_type", "common_flags", "common_preempt_count", "common_pid", "common_tgid", "common_comm"];

struct Parser<'a> {
    text: &'a str,
    at: usize,
    definition: &'a Definition,
    target: &'a dyn Target,
}

/// What a term's name stands for.
struct Subject {
    operand: Operand,
    kind: Option<TypeKind>,
    bytes: u8,
    signed: bool,
}

pub(super) fn parse(text: &str, definition: &Definition, target: &dyn Target) -> Result<Node, FilterError> {
    let mut parser = Parser { text, at: 0, definition, target };
    if text.len() > MAX_TEXT {
        return Err(parser.error(0, "Error").help(format!("a filter has at most {MAX_TEXT} bytes")));
    }
    parser.count_braces()?;
    let node = parser.any_of(0)?;
    parser.skip_blanks();
    if parser.peek().is_some() {
        return Err(parser.error(parser.at, "Too many terms in predicate expression"));
    }
    Ok(node)
}

impl FilterError {
    fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

impl<'a> Parser<'a> {
    fn error(&self, column: usize, text: &'static str) -> FilterError {
        FilterError { text: Cow::Borrowed(text), column, command: self.text.to_owned(), help: None }
    }

    /// An error inside a term: the kernel counts these columns from one.
    fn term_error(&self, at: usize, text: &'static str) -> FilterError {
        self.error(at + 1, text)
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_blanks(&mut self) {
        while self.peek().is_some_and(|byte| byte.is_ascii_whitespace() || byte == 0x0b) {
            self.at += 1;
        }
    }

    fn skip_word(&mut self) -> &'a str {
        let rest = self.rest();
        let len = rest.bytes().take_while(u8::is_ascii_alphanumeric).count();
        self.at += len;
        &rest[..len]
    }

    /// The check before all others.
    fn count_braces(&self) -> Result<(), FilterError> {
        let mut open = Vec::new();
        let mut quote = None;
        let mut terms = false;
        for (at, byte) in self.text.bytes().enumerate() {
            match (quote, byte) {
                (Some((mark, _)), _) if mark == byte => quote = None,
                (Some(_), _) => {}
                (None, b'\'' | b'"') => {
                    quote = Some((byte, at));
                    terms = true;
                }
                (None, b'(') => open.push(at),
                (None, b')') => {
                    open.pop().ok_or_else(|| self.error(at, "Too few '('"))?;
                }
                (None, b'&' | b'|') => {}
                (None, byte) => terms |= !byte.is_ascii_whitespace(),
            }
        }
        if let Some((_, at)) = quote {
            return Err(self.error(at, "Missing matching quote"));
        }
        if let Some(at) = open.last() {
            return Err(self.error(*at, "Too many '('"));
        }
        if terms { Ok(()) } else { Err(self.error(0, "Error").help("a filter is FIELD OP VALUE; 0 removes it")) }
    }

    fn any_of(&mut self, depth: usize) -> Result<Node, FilterError> {
        let mut nodes = vec![self.all_of(depth)?];
        while self.accept("||") {
            nodes.push(self.all_of(depth)?);
        }
        Ok(if nodes.len() == 1 { nodes.remove(0) } else { Node::Or(nodes) })
    }

    fn all_of(&mut self, depth: usize) -> Result<Node, FilterError> {
        let mut nodes = vec![self.one(depth)?];
        while self.accept("&&") {
            nodes.push(self.one(depth)?);
        }
        Ok(if nodes.len() == 1 { nodes.remove(0) } else { Node::And(nodes) })
    }

    /// Takes a connective; anything else that may not follow a term is left for the caller to refuse.
    fn accept(&mut self, connective: &str) -> bool {
        self.skip_blanks();
        let found = self.rest().starts_with(connective);
        if found {
            self.at += connective.len();
        }
        found
    }

    fn one(&mut self, depth: usize) -> Result<Node, FilterError> {
        if depth > MAX_DEPTH {
            let error = self.error(self.at, "Too many terms in predicate expression");
            return Err(error.help(format!("parentheses nest at most {MAX_DEPTH} deep")));
        }
        self.skip_blanks();
        match self.rest().as_bytes() {
            [b'(', ..] => {
                self.at += 1;
                let node = self.any_of(depth + 1)?;
                self.skip_blanks();
                if self.peek() != Some(b')') {
                    return Err(self.error(self.at, "Too many terms in predicate expression"));
                }
                self.at += 1;
                Ok(node)
            }
            [b'!', b'=' | b'~', ..] => Err(self.error(0, "Error")),
            [b'!', ..] => {
                self.at += 1;
                Ok(Node::Not(Box::new(self.one(depth + 1)?)))
            }
            [] => Err(self.error(self.at, "Meaningless filter expression").help("a term is missing at the end")),
            _ => self.term().map(Node::Test),
        }
    }

    fn term(&mut self) -> Result<Test, FilterError> {
        let start = self.at;
        let rest = self.rest();
        let len = rest.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').count();
        if len == 0 {
            return Err(self.error(0, "Error").help("a term begins with the name of an argument"));
        }
        self.at += len;
        let name = &self.text[start..self.at];
        let subject = self.subject(name)?;
        let wants_function = self.rest().starts_with(".function");
        for suffix in [".ustring", ".function"] {
            if self.rest().starts_with(suffix) {
                self.at += suffix.len();
            }
        }
        self.skip_blanks();
        let Some((op_text, op)) = OPS.iter().find(|(text, _)| self.rest().starts_with(text)) else {
            let error = self.term_error(self.at, "Invalid operator");
            return Err(match self.rest().as_bytes() {
                [b'=', b'~', ..] => error.help("a pattern is compared by ~: FIELD ~ \"/etc/*\""),
                [b'=', ..] => error.help("equality is written =="),
                _ => error.help(format!("operators are: {}", OPS.map(|(text, _)| text).join(" "))),
            });
        };
        self.at += op_text.len();
        self.skip_blanks();
        let value = if wants_function {
            self.function(&subject, *op)?
        } else if self.rest().starts_with("CPUS") {
            self.cpus(&subject, *op)?
        } else {
            match self.peek() {
                Some(b'\'' | b'"') => self.string(&subject, *op)?,
                Some(b'0'..=b'9' | b'-') => self.number(&subject, *op)?,
                _ => return Err(self.term_error(self.at, "Invalid value (did you forget quotes)?")),
            }
        };
        Ok(Test { operand: subject.operand, op: *op, value })
    }

    fn subject(&self, name: &str) -> Result<Subject, FilterError> {
        let word = self.definition.program.word_bytes();
        let number = |operand, bytes, signed| Subject { operand, kind: None, bytes, signed };
        let mut fields = self.definition.args.iter().zip(&self.definition.program.fields);
        if let Some((arg, field)) = fields.find(|(arg, _)| arg.name == name) {
            // As in the kernel an array of numbers is the number that its bytes are, and no comparison passes where numbers are
            // never so long; an array of strings is its first.
            let operand = match &arg.literal {
                Some(text) => Operand::Literal(text.clone()),
                None if field.is_array && !field.kind.is_string() => {
                    Operand::Whole(*field, self.definition.program.order())
                }
                None => Operand::Field(*field),
            };
            let signed = field.kind == TypeKind::Signed;
            let bytes = field.bytes.saturating_mul(field.count.max(1));
            return Ok(Subject { operand, kind: Some(field.kind), bytes, signed });
        }
        let is_return = matches!(self.definition.kind, Kind::Kretprobe { .. });
        match name {
            "CPU" | "cpu" => Ok(number(Operand::Cpu, 4, true)),
            "__probe_ip" if !is_return => Ok(number(Operand::Ip, word, false)),
            "__probe_ret_ip" if is_return => Ok(number(Operand::Ip, word, false)),
            _ => Err(self.unknown_field(name, is_return)),
        }
    }

    fn unknown_field(&self, name: &str, is_return: bool) -> FilterError {
        let error = self.term_error(self.at, "Field not found");
        if TASK_FIELDS.contains(&name) {
            return error.help(format!("'{name}' is not available yet: it needs the guest's current task"));
        }
        if name == "__probe_func" && is_return {
            return error.help("'__probe_func' is the same in all records of this probe: filter on __probe_ret_ip");
        }
        let own = if is_return { "__probe_ret_ip" } else { "__probe_ip" };
        let known: Vec<&str> = self.definition.args.iter().map(|arg| arg.name.as_str()).chain([own, "CPU"]).collect();
        match suggest::nearest(name, known.iter().copied()) {
            Some(near) => error.help(format!("did you mean {near}?")),
            None => error.help(format!("this event has: {}", known.join(" "))),
        }
    }

    fn is_string(subject: &Subject) -> bool {
        subject.kind.is_some_and(TypeKind::is_string)
    }

    fn function(&mut self, subject: &Subject, op: Op) -> Result<Value, FilterError> {
        if Self::is_string(subject) || subject.bytes != self.definition.program.word_bytes() {
            return Err(self.term_error(self.at, "Illegal operation for field type"));
        }
        if !matches!(op, Op::Eq | Op::Ne) {
            return Err(self.term_error(self.at, "Invalid operator"));
        }
        if self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            let text = self.skip_word();
            if text.len() >= MAX_NUMBER {
                return Err(self.term_error(self.at, "Operand too long"));
            }
            let word_bytes = usize::from(self.definition.program.word_bytes());
            let addr = number::unsigned(text, Radix::ByPrefix, word_bytes);
            let addr = addr.ok_or_else(|| self.term_error(self.at, "Invalid value (did you forget quotes)?"))?;
            return self.function_around(GuestAddr(addr), None);
        }
        let rest = self.rest();
        let len = rest.find(|c: char| c.is_ascii_whitespace()).unwrap_or(rest.len());
        // The kernel reads up to the next blank; a parenthesis or a connective cannot be a part of a name either.
        let len = rest.find(['(', ')', '&', '|']).unwrap_or(len).min(len);
        self.at += len;
        let name = &rest[..len];
        let (module, symbol) = name.split_once(':').map_or((None, name), |(module, symbol)| (Some(module), symbol));
        // Of several the first, as `kallsyms_lookup_name` has it.
        let addr = match self.target.symbol(module, symbol) {
            SymbolLookup::One { addr, .. } => Some(addr),
            SymbolLookup::Many(addrs) => addrs.first().copied(),
            SymbolLookup::None => None,
        };
        let hint = || self.target.hint(symbol).filter(|_| !symbol.is_empty());
        let addr = addr.ok_or_else(|| self.function_not_found(hint()))?;
        self.function_around(addr, hint())
    }

    /// The function that an address lies in.
    fn function_around(&self, addr: GuestAddr, hint: Option<String>) -> Result<Value, FilterError> {
        let named = self.target.name_of(addr).ok_or_else(|| self.function_not_found(hint))?;
        Ok(Value::Function { start: addr.0.wrapping_sub(named.offset), size: named.size })
    }

    fn function_not_found(&self, help: Option<String>) -> FilterError {
        FilterError { help, ..self.term_error(self.at, "Function not found") }
    }

    fn cpus(&mut self, subject: &Subject, op: Op) -> Result<Value, FilterError> {
        if Self::is_string(subject) || !matches!(op, Op::Eq | Op::Ne | Op::And) {
            return Err(self.term_error(self.at, "Illegal operation for field type"));
        }
        self.at += "CPUS".len();
        if self.peek() != Some(b'{') {
            return Err(self.term_error(self.at + 1, "Missing '{'"));
        }
        self.at += 1;
        let rest = self.rest();
        let Some(len) = rest.find('}') else {
            return Err(self.term_error(self.text.len(), "Missing '}'"));
        };
        self.at += len;
        let set = CpuSet::parse(&rest[..len]).ok_or_else(|| self.term_error(self.at, "Invalid cpulist"))?;
        self.at += 1;
        Ok(Value::Cpus(set))
    }

    fn string(&mut self, subject: &Subject, op: Op) -> Result<Value, FilterError> {
        if !matches!(op, Op::Eq | Op::Ne | Op::Glob) {
            return Err(self.term_error(self.at, "Illegal operation for field type"));
        }
        if !Self::is_string(subject) {
            return Err(self.term_error(self.at, "Expecting numeric field"));
        }
        let quote = char::from(self.peek().unwrap_or(b'"'));
        self.at += 1;
        let rest = self.rest();
        let Some(len) = rest.find(quote) else {
            return Err(self.term_error(self.text.len(), "Missing matching quote"));
        };
        self.at += len;
        if len >= MAX_STRING {
            return Err(self.term_error(self.at, "Operand too long"));
        }
        self.at += 1;
        let text = &rest[..len];
        Ok(match (op, text.strip_prefix('!')) {
            (Op::Glob, Some(pattern)) => Value::Pattern { pattern: pattern.as_bytes().to_vec(), inverted: true },
            (Op::Glob, None) => Value::Pattern { pattern: text.as_bytes().to_vec(), inverted: false },
            _ => Value::Text(text.as_bytes().to_vec()),
        })
    }

    fn number(&mut self, subject: &Subject, op: Op) -> Result<Value, FilterError> {
        if Self::is_string(subject) {
            let error = self.term_error(self.at, "Expecting string field");
            return Err(error.help("a string is compared with \"TEXT\""));
        }
        if op == Op::Glob {
            return Err(self.term_error(self.at, "Illegal operation for field type"));
        }
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        self.skip_word();
        let text = &self.text[start..self.at];
        if text.len() >= MAX_NUMBER {
            return Err(self.term_error(self.at, "Operand too long"));
        }
        let value = if subject.signed {
            number::signed(text, 8).map(i64::cast_unsigned)
        } else {
            number::unsigned(text, Radix::ByPrefix, 8)
        };
        let value = value.ok_or_else(|| self.term_error(start, "Illegal integer value"))?;
        Ok(Value::Number { value, bytes: subject.bytes, signed: subject.signed })
    }
}
