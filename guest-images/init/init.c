/*
 * The init program of the test guests: PID 1 of an initramfs that runs the script /qk.script, one command per line,
 * and powers the machine off. See ../README.md for the commands.
 *
 * What it reports goes to the console, one write() per line, so that a test can read it:
 *
 *     QK 3 ok getppid n=1000 ns=812.4       line 3 of the script was done
 *     QK 4 FAIL write: ENOENT               it was not; the script goes on
 *     QK 5.1 ok getppid n=1000 ns=790.0     the second of the threads that line 5 started
 *     QK end                                the last thing before the power goes off
 *
 * A line that makes no sense (unknown command, missing argument) ends the script: the test itself is wrong.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/klog.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "qk.h"

void print(const char *format, ...)
{
	char text[512];
	va_list args;

	va_start(args, format);
	int length = vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	if (length >= (int)sizeof(text))
		length = sizeof(text) - 1;
	if (write(STDOUT_FILENO, text, length) < 0)
		return; /* no console: nobody to tell */
}

void done(struct result *result, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(result->text, sizeof(result->text), format, args);
	va_end(args);
	result->status = OK;
}

void failed(struct result *result, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(result->text, sizeof(result->text), format, args);
	va_end(args);
	result->status = FAILED;
}

void failed_errno(struct result *result)
{
	const char *name = strerrorname_np(errno);

	failed(result, "%s", name ? name : "unknown errno");
}

void report(unsigned number, int part, const struct result *result)
{
	char id[32];

	if (part < 0)
		snprintf(id, sizeof(id), "%u", number);
	else
		snprintf(id, sizeof(id), "%u.%d", number, part);
	if (result->status == OK)
		print("QK %s ok %s%s%s\n", id, result->command, result->text[0] ? " " : "", result->text);
	else
		print("QK %s FAIL %s: %s\n", id, result->command, result->text);
}

uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

unsigned long number(const char *text)
{
	return strtoul(text, NULL, 0);
}

void done_timed(struct result *result, unsigned long n, uint64_t start)
{
	done(result, "n=%lu ns=%.1f", n, n ? (double)(now_ns() - start) / n : 0.0);
}

static const struct {
	const char *name;
	int arguments; /* at least */
	command *function;
} commands[] = {
	{ "append", 2, cmd_append },
	{ "background", 1, cmd_background },
	{ "busy", 1, cmd_busy },
	{ "call", 2, cmd_call },
	{ "cat", 1, cmd_cat },
	{ "epoll", 2, cmd_epoll },
	{ "exec", 1, cmd_exec },
	{ "expect-fail", 1, cmd_expect_fail },
	{ "fork", 1, cmd_fork },
	{ "getppid", 1, cmd_getppid },
	{ "kallsyms", 1, cmd_kallsyms },
	{ "memtouch", 2, cmd_memtouch },
	{ "migrate", 1, cmd_migrate },
	{ "on", 2, cmd_on },
	{ "openclose", 2, cmd_openclose },
	{ "openhex", 2, cmd_openhex },
	{ "openmany", 2, cmd_openmany },
	{ "openptr", 1, cmd_openptr },
	{ "panic", 0, cmd_panic },
	{ "pipe", 1, cmd_pipe },
	{ "poweroff", 0, cmd_poweroff },
	{ "procs", 2, cmd_procs },
	{ "readtext", 2, cmd_readtext },
	{ "recurse", 2, cmd_recurse },
	{ "say", 1, cmd_say },
	{ "sethost", 1, cmd_sethost },
	{ "sleep", 1, cmd_sleep },
	{ "tasks", 0, cmd_tasks },
	{ "threads", 2, cmd_threads },
	{ "time", 2, cmd_time },
	{ "uname", 0, cmd_uname },
	{ "until", 3, cmd_until },
	{ "untiltext", 3, cmd_untiltext },
	{ "usercode", 2, cmd_usercode },
	{ "wait", 0, cmd_wait },
	{ "write", 1, cmd_write },
	{ "write-loop", 3, cmd_write_loop },
	{ "write-trunc", 1, cmd_write_trunc },
};

void run(const struct line *line, int at, struct result *result)
{
	const char *name = line->word[at];

	result->status = SENSELESS;
	snprintf(result->command, sizeof(result->command), "%s", name);
	snprintf(result->text, sizeof(result->text), "no such command, or too few arguments");
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
		if (!strcmp(commands[i].name, name) && line->words - at > commands[i].arguments) {
			commands[i].function(line, at, result);
			return;
		}
}

static void split(struct line *line)
{
	char *at = strcpy(line->split, line->text);

	for (line->words = 0; line->words < MAX_WORDS;) {
		at += strspn(at, " \t");
		if (!*at)
			break;
		line->rest[line->words] = line->text + (at - line->split);
		line->word[line->words++] = at;
		at += strcspn(at, " \t");
		if (*at)
			*at++ = '\0';
	}
}

static void run_script(const char *path)
{
	static struct line line;
	FILE *script = fopen(path, "r");

	if (!script) {
		print("QK 0 FAIL script: no %s\n", path);
		return;
	}
	while (fgets(line.text, sizeof(line.text), script)) {
		struct result result = { .status = OK };

		line.number++;
		if (!strchr(line.text, '\n')) {
			print("QK %u FAIL script: the line is too long, or has no end\n", line.number);
			break;
		}
		line.text[strcspn(line.text, "\n")] = '\0';
		split(&line);
		if (!line.words || line.word[0][0] == '#')
			continue;
		run(&line, 0, &result);
		report(line.number, -1, &result);
		if (result.status == SENSELESS)
			break;
	}
	fclose(script);
}

/* The second port is /dev/ttyS1 on every machine. Where the hypervisor's terminal is the console, it is the next of those. */
static void second_port(void)
{
	char name[64] = "";
	FILE *active = fopen("/sys/class/tty/console/active", "r");

	if (active && fgets(name, sizeof(name), active) && !strncmp(name, "hvc0", 4)) {
		unlink("/dev/ttyS1"); /* of a driver without a device */
		if (symlink("hvc1", "/dev/ttyS1"))
			print("QK 0 FAIL /dev/ttyS1: %s\n", strerrorname_np(errno));
	}
	if (active)
		fclose(active);
}

int main(int argc, char **argv)
{
	if (argc > 1 && !strcmp(argv[1], "noop"))
		return 0;
	static const char *const mounts[][2] = {
		{ "proc", "/proc" },
		{ "sysfs", "/sys" },
		{ "devtmpfs", "/dev" },
		{ "tracefs", "/sys/kernel/tracing" },
		{ "debugfs", "/sys/kernel/debug" },
	};
	for (size_t i = 0; i < sizeof(mounts) / sizeof(mounts[0]); i++) {
		mkdir(mounts[i][1], 0755);
		/* What this kernel lacks, a script that needs it will miss. */
		mount(mounts[i][0], mounts[i][1], mounts[i][0], 0, NULL);
	}
	second_port();
	/* Warnings and worse still show; chatter would cut our lines in two. */
	klogctl(8, NULL, 5);
	print("QK begin\n");
	run_script("/qk.script");
	power_off();
}
