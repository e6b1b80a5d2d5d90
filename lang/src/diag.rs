//! Why a definition, or what stands behind it, is refused: the kernel's text, errno and caret column, and what to do
//! about it.

use std::borrow::Cow;
use std::fmt;

/// The speaker of the kernel's own errors.
const KERNEL: &str = "trace_kprobe";

/// `ENOENT`.
pub(crate) const ENOENT: i32 = 2;
/// `E2BIG`.
pub(crate) const E2BIG: i32 = 7;
/// `EEXIST`.
pub(crate) const EEXIST: i32 = 17;
/// `EINVAL`.
pub(crate) const EINVAL: i32 = 22;
/// `EILSEQ`.
pub(crate) const EILSEQ: i32 = 84;

/// One refused line. `Display` has the shape of an entry of the kernel's `error_log`:
///
/// ```text
/// trace_kprobe: error: Invalid register name
///   Command: p vfs_read %rax
///                       ^
///   help: this architecture calls it %ax
/// ```
///
/// The last line is this project's own, and only there when it has something to say.
/// Where the kernel has no such grammar (probe options), the first word is `qkprobe`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Whose grammar was violated: `trace_kprobe`, or `qkprobe` for what this project adds.
    pub grammar: &'static str,
    /// The kernel's error text; an own one where the kernel only returns an errno.
    pub text: Cow<'static, str>,
    /// The positive errno that the kernel's `write` fails with.
    pub errno: i32,
    /// The caret's column (in bytes) in `command`. `None` where the kernel logs nothing.
    pub column: Option<usize>,
    /// The definition, its words joined by single blanks.
    pub command: String,
    /// What to write instead, if known.
    pub help: Option<String>,
}

impl Diagnostic {
    pub(crate) fn unlogged(text: &'static str, errno: i32, words: &[&str]) -> Self {
        let text = Cow::Borrowed(text);
        Self { grammar: KERNEL, text, errno, column: None, command: words.join(" "), help: None }
    }

    /// A mistake in what this project adds to a definition. `command` is shown on one line.
    pub(crate) fn own(text: impl Into<Cow<'static, str>>, command: &str, column: usize) -> Self {
        let command = command.replace(|c: char| c.is_ascii_control(), " ");
        Self { grammar: OWN, text: text.into(), errno: EINVAL, column: Some(column), command, help: None }
    }

    pub(crate) fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    pub(crate) fn with_help_if(mut self, help: Option<String>) -> Self {
        self.help = help.or(self.help);
        self
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_error(f, self.grammar, &self.text, &self.command, self.column, self.help.as_deref())
    }
}

impl std::error::Error for Diagnostic {}

/// The grammar that is this project's own.
const OWN: &str = "qkprobe";

/// The three or four lines of an error, without a final line break.
pub(crate) fn write_error(
    f: &mut fmt::Formatter<'_>,
    source: &str,
    text: &str,
    command: &str,
    column: Option<usize>,
    help: Option<&str>,
) -> fmt::Result {
    // What is this project's own is told behind its name anyway.
    if source != OWN {
        write!(f, "{source}: ")?;
    }
    write!(f, "error: {text}\n  Command: {command}")?;
    if let Some(column) = column {
        write!(f, "\n           {:column$}^", "")?;
    }
    if let Some(help) = help {
        write!(f, "\n  help: {help}")?;
    }
    Ok(())
}

/// An entry of the kernel's table of errors, with the errno that goes with it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Problem {
    pub(crate) text: &'static str,
    pub(crate) errno: i32,
}

macro_rules! problems {
    ($($name:ident: $errno:ident $text:literal;)*) => {
        $(pub(crate) const $name: Problem = Problem { text: $text, errno: $errno };)*
    };
}

problems! {
    BAD_MAXACT_TYPE: EINVAL "Maxactive is only for function exit";
    BAD_MAXACT: EINVAL "Invalid maxactive number";
    MAXACT_TOO_BIG: EINVAL "Maxactive is too big";
    BAD_PROBE_ADDR: EINVAL "Invalid probed address or symbol";
    NON_UNIQ_SYMBOL: EINVAL "The symbol is not unique";
    BAD_RETPROBE: EINVAL "Retprobe address must be an function entry";
    BAD_ADDR_SUFFIX: EINVAL "Invalid probed address suffix";
    NO_GROUP_NAME: EINVAL "Group name is not specified";
    GROUP_TOO_LONG: EINVAL "Group name is too long";
    BAD_GROUP_NAME: EINVAL "Group name must follow the same rules as C identifiers";
    NO_EVENT_NAME: EINVAL "Event name is not specified";
    EVENT_TOO_LONG: EINVAL "Event name is too long";
    BAD_EVENT_NAME: EINVAL "Event name must follow the same rules as C identifiers";
    DIFF_PROBE_TYPE: EEXIST "Probe type is different from existing probe";
    DIFF_ARG_TYPE: EEXIST "Argument type or name is different from existing probe";
    SAME_PROBE: EEXIST "There is already the exact same probe event";
    BAD_INSN_BNDRY: EILSEQ "Probe point is not an instruction boundary";
    FAIL_REG_PROBE: EINVAL "Failed to register probe event";
    RETVAL_ON_PROBE: EINVAL "$retval is not available on probe";
    BAD_STACK_NUM: EINVAL "Invalid stack number";
    BAD_ARG_NUM: EINVAL "Invalid argument number";
    BAD_VAR: EINVAL "Invalid $-variable specified";
    BAD_REG_NAME: EINVAL "Invalid register name";
    BAD_MEM_ADDR: EINVAL "Invalid memory address";
    FILE_ON_KPROBE: EINVAL "File offset is not available with kprobe";
    BAD_IMM: EINVAL "Invalid immediate value";
    IMMSTR_NO_CLOSE: EINVAL "String is not closed with '\"'";
    DEREF_NEED_BRACE: EINVAL "Dereference needs a brace";
    BAD_DEREF_OFFS: EINVAL "Invalid dereference offset";
    DEREF_OPEN_BRACE: EINVAL "Dereference brace is not closed";
    COMM_CANT_DEREF: EINVAL "$comm can not be dereferenced";
    TOO_MANY_OPS: EINVAL "Dereference is too much nested";
    BAD_FETCH_ARG: EINVAL "Invalid fetch argument";
    ARRAY_NO_CLOSE: EINVAL "Array is not closed";
    BAD_ARRAY_SUFFIX: EINVAL "Array has wrong suffix";
    BAD_ARRAY_NUM: EINVAL "Invalid array size";
    ARRAY_TOO_BIG: EINVAL "Array number is too big";
    BAD_TYPE: EINVAL "Unknown type is specified";
    BAD_STRING: EINVAL "String accepts only memory argument";
    BAD_SYMSTRING: EINVAL "Symbol String doesn't accept data/userdata";
    NEED_STRING_TYPE: EINVAL "$comm and immediate-string only accepts string type";
    BAD_BITFIELD: EINVAL "Invalid bitfield";
    ARG_NAME_TOO_LONG: EINVAL "Argument name is too long";
    NO_ARG_NAME: EINVAL "Argument name is not specified";
    BAD_ARG_NAME: EINVAL "Argument name must follow the same rules as C identifiers";
    USED_ARG_NAME: EINVAL "This argument name is already used";
    ARG_TOO_LONG: E2BIG "Argument expression is too long";
    NO_ARG_BODY: EINVAL "No argument expression";
    // Linux 6.15 and newer; before that the kernel only returned the errno.
    TOO_MANY_ARGS: E2BIG "Too many arguments are specified";
    EVENT_TOO_BIG: E2BIG "Event too big (too many fields?)";
    NOSUP_BTFARG: EINVAL "BTF is not available or not supported";
    NO_BTFARG: ENOENT "This variable is not found at this probe point";
    NOFENTRY_ARGS: EINVAL "$arg* can be used only on function entry or exit";
    LATENCY_ON_PROBE: EINVAL "$latency is known at a function's return only: use r:";
    ENTRYTIME_ON_PROBE: EINVAL "$entrytime is known at a function's return only: use r:";
    TIME_CANT_DEREF: EINVAL "A time can not be dereferenced";
    DOUBLE_ARGS: EINVAL "$arg* can be used only once in the parameters";
}

/// The words of a definition, to place carets in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Words<'a>(pub(crate) &'a [&'a str]);

impl Words<'_> {
    /// The error `problem` with the caret `offset` bytes into word `index`. Past the last word the caret stands one
    /// column behind the blank that would follow it.
    pub(crate) fn error(self, index: usize, offset: usize, problem: Problem) -> Diagnostic {
        let length = |words: &[&str]| words.iter().map(|word| word.len() + 1).sum::<usize>();
        let column = match self.0.get(..index) {
            Some(before) if index < self.0.len() => length(before) + offset,
            _ => length(self.0),
        };
        Diagnostic {
            grammar: KERNEL,
            text: Cow::Borrowed(problem.text),
            errno: problem.errno,
            column: Some(column),
            command: self.0.join(" "),
            help: None,
        }
    }
}
