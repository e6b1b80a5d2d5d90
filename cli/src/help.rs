//! What every `--help` ends with: examples, which a test runs, and exit statuses.

pub(crate) const TOP: &str = "\
Examples:
  qkprobe run --kernel vmlinuz --initrd initrd.img 'p:open do_sys_openat2 file=+0($arg2):ustring'
  qkprobe doctor

Exit status: 0 done, 1 it could not be done, 2 the command line is wrong; `run` and `test` have more, see their --help.";
pub(crate) const RUN: &str = "\
Examples:
  qkprobe run --kernel vmlinuz --initrd initrd.img 'p:open do_sys_openat2 file=+0($arg2):ustring'
  qkprobe run --kernel vmlinuz --initrd initrd.img --until 'open:hits>=3' 'p:open do_sys_openat2'
  qkprobe run --kernel vmlinuz --initrd initrd.img --for 3s -c probes.toml --console console.txt -- -rtc base=utc

A definition is a line of the kernel's kprobe_events, and may go on: p[:[GROUP/]EVENT] SYM[+OFFSET] hits before an instruction,
r[:[GROUP/]EVENT] SYM when a function returns; then what is recorded ($arg1, %ax, $retval, +8($arg1):u32, +0($arg2):ustring),
`if FILTER` and `do OPTION...` (count, post, skip, stop, quit=N, override=VALUE, ...). Put it in single quotes: in double quotes
the shell takes $arg1 for its own. docs/probes.md is the reference.

Trace lines go to standard output, the guest's console (with `guest |` in front) and everything else to standard error. The last
line says how the guest ended.

Exit status:
  0        the guest turned its power off, or --for or --until was reached, or a probe's quit=0
  1        the guest could not be started; 2: the command line is wrong
  10       the guest rebooted (a kernel that panics does)
  11       QEMU was killed, or failed while it ran
  12       the guest ended before --until was reached
  13       a client ended the guest with a status that is one of these
  129, 130, 143
           ended by SIGHUP, Ctrl-C, SIGTERM
  other    what a probe's quit=N says, which cannot be one of the above";
pub(crate) const ADD: &str = "\
Examples:
  qkprobe add 'p:faults exc_page_fault do count'
  qkprobe add --guest control.sock 'p:read vfs_read count=$arg3' 'r:slow vfs_read ns=$latency if ns > 1000000'";
pub(crate) const DEL: &str = "\
Examples:
  qkprobe del faults
  qkprobe del 'kprobes/'        all of the group kprobes";
pub(crate) const ENABLE: &str = "Example:\n  qkprobe enable read";
pub(crate) const DISABLE: &str = "Example:\n  qkprobe disable read";
pub(crate) const LIST: &str = "Example:\n  qkprobe list";
pub(crate) const STAT: &str = "\
Examples:
  qkprobe stat
  qkprobe stat --every 500ms --times 2";
pub(crate) const WATCH: &str = "\
Examples:
  qkprobe watch --lines 1 read
  qkprobe watch --json --lines 1";
pub(crate) const CONTINUE: &str = "\
Example:
  qkprobe continue";
pub(crate) const QUIT: &str = "Example:\n  qkprobe quit";
pub(crate) const SYMBOLS: &str = "\
Examples:
  qkprobe symbols vmlinuz 'do_sys_open*'
  qkprobe symbols --functions --json vmlinuz vfs_read";
pub(crate) const CHECK: &str = "\
Examples:
  qkprobe check probes.toml --kernel vmlinuz
  qkprobe check --kernel vmlinuz --def 'p:open do_sys_openat2 file=+0($arg2):ustring'";
pub(crate) const DOCTOR: &str = "Example:\n  qkprobe doctor";
pub(crate) const COMPLETIONS: &str = "\
Examples:
  qkprobe completions bash          source it, or put it where bash-completion looks
  qkprobe completions zsh";
pub(crate) const MAN: &str = "Example:\n  qkprobe man man1";
