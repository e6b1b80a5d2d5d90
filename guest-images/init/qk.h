/*
 * What the parts of the init program share: init.c runs the script, load.c makes the kernel do something many times,
 * files.c reads and writes, machine.c asks and tells the machine, workers.c runs commands beside each other.
 */
#ifndef QK_H
#define QK_H

#include <stdint.h>
#include <stddef.h>

#define MAX_WORKERS 64
#define MAX_WORDS 32
#define MAX_LINE 2048

/* What became of one command. Lives in shared memory when the command runs in another process. */
struct result {
	enum { OK, FAILED, SENSELESS } status;
	char command[24];
	char text[256];
};

/* One command: words for commands that take words, the text from word i on for those that take the rest of the line. */
struct line {
	unsigned number;
	char text[MAX_LINE];
	int words;
	char *word[MAX_WORDS];
	const char *rest[MAX_WORDS];
	char split[MAX_LINE];
};

/* A command: `at` is its word in the line. */
typedef void command(const struct line *line, int at, struct result *result);

/* Runs the command that begins at word `at`. */
command run;

/* Writes a line to the console at once. */
__attribute__((format(printf, 1, 2))) void print(const char *format, ...);

/* The three ends of a command, besides SENSELESS. */
__attribute__((format(printf, 2, 3))) void done(struct result *result, const char *format, ...);
__attribute__((format(printf, 2, 3))) void failed(struct result *result, const char *format, ...);
void failed_errno(struct result *result);
void done_timed(struct result *result, unsigned long n, uint64_t start);

/* Prints a result; part is the worker's number, or -1 for the line itself. */
void report(unsigned number, int part, const struct result *result);

uint64_t now_ns(void);
unsigned long number(const char *text);

/* Writes text and a newline; flags are open()'s, besides O_WRONLY. -1 and errno on failure, of close() too. */
int write_text(const char *path, int flags, const char *text);

/* A task's state as /proc/PROCESS/task/TASK/stat has it: 'R', 'S', ...; 0 if there is none. */
char task_state(const char *process, const char *task);

/* Ends the script and the machine. */
__attribute__((noreturn)) void power_off(void);

/* load.c */
command cmd_getppid, cmd_openclose, cmd_fork, cmd_exec, cmd_pipe, cmd_usercode, cmd_call, cmd_memtouch, cmd_busy,
	cmd_sleep, cmd_time, cmd_epoll, cmd_recurse;
/* files.c */
command cmd_write, cmd_write_trunc, cmd_append, cmd_write_loop, cmd_cat, cmd_kallsyms, cmd_readtext, cmd_untiltext;
command cmd_openhex, cmd_openmany, cmd_openptr, cmd_until;
/* machine.c */
command cmd_say, cmd_uname, cmd_sethost, cmd_panic, cmd_poweroff, cmd_tasks;
/* workers.c */
command cmd_on, cmd_threads, cmd_procs, cmd_background, cmd_wait, cmd_expect_fail, cmd_migrate;

#endif
