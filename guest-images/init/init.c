/*
 * The init program of the test guests: PID 1 of an initramfs that runs the script /qk.script, one command per line, and powers the
 * machine off. See ../README.md for the commands.
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
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/klog.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define MAX_WORKERS 64
#define MAX_WORDS 32

/* What became of one command. Lives in shared memory when the command runs in another process. */
struct result {
	enum { OK, FAILED, SENSELESS } status;
	char command[24];
	char text[256];
};

/* One command: words for commands that take words, the text from word i on for those that take the rest of the line. */
struct line {
	unsigned number;
	char text[1024];
	int words;
	char *word[MAX_WORDS];
	const char *rest[MAX_WORDS];
	char split[1024];
};

static void run(const struct line *line, int first, struct result *result);

/* ---- reporting ---- */

__attribute__((format(printf, 1, 2))) static void print(const char *format, ...)
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

__attribute__((format(printf, 2, 3))) static void done(struct result *result, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(result->text, sizeof(result->text), format, args);
	va_end(args);
	result->status = OK;
}

__attribute__((format(printf, 2, 3))) static void failed(struct result *result, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(result->text, sizeof(result->text), format, args);
	va_end(args);
	result->status = FAILED;
}

static void failed_errno(struct result *result)
{
	const char *name = strerrorname_np(errno);

	failed(result, "%s", name ? name : "unknown errno");
}

/* part is the worker's number, or -1 for the line itself */
static void report(unsigned number, int part, const struct result *result)
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

/* ---- helpers ---- */

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static unsigned long number(const char *text)
{
	return strtoul(text, NULL, 0);
}

static void done_timed(struct result *result, unsigned long n, uint64_t start)
{
	done(result, "n=%lu ns=%.1f", n, n ? (double)(now_ns() - start) / n : 0.0);
}

/* The guest's own idea of where a symbol is; 0 if there is none. */
static unsigned long symbol(const char *name)
{
	char text[512], type, found[256];
	unsigned long address, result = 0;
	FILE *file = fopen("/proc/kallsyms", "r");

	while (file && !result && fgets(text, sizeof(text), file))
		if (sscanf(text, "%lx %c %255s", &address, &type, found) == 3 && !strcmp(found, name))
			result = address;
	if (file)
		fclose(file);
	return result;
}

static void *shared(size_t size)
{
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	return memory == MAP_FAILED ? NULL : memory;
}

static void pin(int worker)
{
	cpu_set_t one;

	CPU_ZERO(&one);
	CPU_SET(worker % sysconf(_SC_NPROCESSORS_ONLN), &one);
	sched_setaffinity(0, sizeof(one), &one);
}

/* ---- commands that make the kernel do something, many times ---- */

static void cmd_getppid(const struct line *line, int at, struct result *result)
{
	unsigned long n = number(line->word[at + 1]);
	uint64_t start = now_ns();

	for (unsigned long i = 0; i < n; i++)
		syscall(SYS_getppid);
	done_timed(result, n, start);
}

static void cmd_openclose(const struct line *line, int at, struct result *result)
{
	unsigned long n = number(line->word[at + 1]), opened = 0;
	const char *path = line->word[at + 2];
	uint64_t start = now_ns();

	for (unsigned long i = 0; i < n; i++) {
		int fd = syscall(SYS_openat, AT_FDCWD, path, O_RDONLY, 0);

		if (fd >= 0) {
			close(fd);
			opened++;
		}
	}
	done(result, "n=%lu ok=%lu err=%lu ns=%.1f", n, opened, n - opened, n ? (double)(now_ns() - start) / n : 0.0);
}

static void children(unsigned long n, int exec, struct result *result)
{
	uint64_t start = now_ns();

	for (unsigned long i = 0; i < n; i++) {
		int status;
		pid_t pid = fork();

		if (pid == 0) {
			if (exec)
				execl("/init", "init", "noop", (char *)NULL);
			_exit(exec ? 127 : 0);
		}
		if (pid < 0 || waitpid(pid, &status, 0) != pid) {
			failed_errno(result);
			return;
		}
		if (status) {
			failed(result, "child ended with status %#x", status);
			return;
		}
	}
	done_timed(result, n, start);
}

static void cmd_fork(const struct line *line, int at, struct result *result)
{
	children(number(line->word[at + 1]), 0, result);
}

static void cmd_exec(const struct line *line, int at, struct result *result)
{
	children(number(line->word[at + 1]), 1, result);
}

static void cmd_pipe(const struct line *line, int at, struct result *result)
{
	unsigned long n = number(line->word[at + 1]), i;
	int there[2], back[2];
	char byte = 0;

	if (pipe(there) || pipe(back)) {
		failed_errno(result);
		return;
	}
	pid_t pid = fork();
	if (pid == 0) {
		close(there[1]);
		while (read(there[0], &byte, 1) == 1 && write(back[1], &byte, 1) == 1)
			;
		_exit(0);
	}
	uint64_t start = now_ns();
	for (i = 0; i < n && write(there[1], &byte, 1) == 1 && read(back[0], &byte, 1) == 1; i++)
		;
	if (i == n)
		done_timed(result, n, start);
	else
		failed_errno(result);
	close(there[1]);
	waitpid(pid, NULL, 0);
	close(there[0]);
	close(back[0]);
	close(back[1]);
}

/* Calls user code that lies at exactly this address: nops and a return. */
static void cmd_usercode(const struct line *line, int at, struct result *result)
{
	unsigned long address = number(line->word[at + 1]), n = number(line->word[at + 2]);
	unsigned long page = sysconf(_SC_PAGESIZE), base = address & -page;
#if defined(__x86_64__) || defined(__i386__)
	static const uint8_t code[] = { 0x90, 0x90, 0x90, 0x90, 0xc3 };
#elif defined(__powerpc__)
	static const uint32_t code[] = { 0x60000000, 0x60000000, 0x4e800020 };
#elif defined(__sparc__)
	static const uint32_t code[] = { 0x01000000, 0x81c3e008, 0x01000000 }; /* nop; retl; nop */
#else
#error "usercode: what are a nop and a return here?"
#endif
	if (mmap((void *)base, 2 * page, PROT_READ | PROT_WRITE | PROT_EXEC,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) != (void *)base) {
		failed_errno(result);
		return;
	}
	memcpy((void *)address, code, sizeof(code));
	__builtin___clear_cache((char *)address, (char *)address + sizeof(code));
	void (*function)(void) = (void (*)(void))address;
#if defined(__powerpc64__) && _CALL_ELF != 2
	/* A function pointer is the address of a descriptor: code, TOC, environment. */
	unsigned long descriptor[3] = { address, 0, 0 };
	function = (void (*)(void))descriptor;
#endif
	uint64_t start = now_ns();
	for (unsigned long i = 0; i < n; i++)
		function();
	done_timed(result, n, start);
	munmap((void *)base, 2 * page);
}

static void cmd_memtouch(const struct line *line, int at, struct result *result)
{
	unsigned long words = number(line->word[at + 1]) * (1 << 20) / sizeof(long), n = number(line->word[at + 2]);
	volatile unsigned long *memory = malloc(words * sizeof(long));

	if (!memory || !words) {
		failed(result, "ENOMEM");
		return;
	}
	/* Once without the clock: the page faults. */
	for (unsigned long i = 0; i < words; i++)
		memory[i] = i;
	uint64_t start = now_ns();
	for (unsigned long round = 0; round < n; round++)
		for (unsigned long i = 0; i < words; i++)
			memory[i] += round;
	done_timed(result, n * words, start);
	free((void *)memory);
}

static void cmd_busy(const struct line *line, int at, struct result *result)
{
	uint64_t end = now_ns() + number(line->word[at + 1]) * UINT64_C(1000000);
	volatile uint32_t state = 1;
	unsigned long rounds = 0;

	for (; now_ns() < end; rounds++)
		for (int i = 0; i < 1000; i++)
			state = state * 1664525 + 1013904223;
	done(result, "rounds=%lu", rounds);
}

static void cmd_sleep(const struct line *line, int at, struct result *result)
{
	usleep(number(line->word[at + 1]) * 1000);
	done(result, "ms=%s", line->word[at + 1]);
}

/* ---- commands that talk to files ---- */

static int write_text(const char *path, int flags, const char *text)
{
	char buffer[1100];
	int length = snprintf(buffer, sizeof(buffer), "%s\n", text);
	int fd = open(path, O_WRONLY | flags, 0644);

	if (fd < 0)
		return -1;
	ssize_t written = write(fd, buffer, length);
	int error = written < 0 ? errno : 0;
	/* Some files of tracefs speak up only here. */
	if (close(fd) && !error)
		error = errno;
	errno = error;
	return error ? -1 : 0;
}

static void write_file(const struct line *line, int at, int flags, struct result *result)
{
	if (write_text(line->word[at + 1], flags, line->words > at + 2 ? line->rest[at + 2] : ""))
		failed_errno(result);
	else
		done(result, "file=%s", line->word[at + 1]);
}

static void cmd_write(const struct line *line, int at, struct result *result)
{
	write_file(line, at, 0, result);
}

static void cmd_write_trunc(const struct line *line, int at, struct result *result)
{
	write_file(line, at, O_TRUNC | O_CREAT, result);
}

static void cmd_append(const struct line *line, int at, struct result *result)
{
	write_file(line, at, O_APPEND, result);
}

/* write-loop MS FILE TEXT1 ; TEXT2 */
static void cmd_write_loop(const struct line *line, int at, struct result *result)
{
	uint64_t end = now_ns() + number(line->word[at + 1]) * UINT64_C(1000000);
	char text[2][512] = { "", "" };
	unsigned long toggles = 0, errors = 0;
	const char *rest = line->rest[at + 3], *middle = strstr(rest, " ; ");

	if (!middle) {
		result->status = SENSELESS;
		return;
	}
	snprintf(text[0], sizeof(text[0]), "%.*s", (int)(middle - rest), rest);
	snprintf(text[1], sizeof(text[1]), "%s", middle + 3);
	for (; now_ns() < end; toggles++)
		if (write_text(line->word[at + 2], 0, text[toggles % 2]))
			errors++;
	done(result, "toggles=%lu errors=%lu", toggles, errors);
}

static int copy(int from, int to)
{
	char buffer[4096], last = '\n';
	ssize_t have;

	while ((have = read(from, buffer, sizeof(buffer))) > 0) {
		last = buffer[have - 1];
		for (ssize_t put = 0, wrote; put < have; put += wrote) {
			wrote = write(to, buffer + put, have - put);
			if (wrote < 0)
				return -1;
		}
	}
	if (last != '\n' && write(to, "\n", 1) < 0)
		return -1;
	return have < 0 ? -1 : 0;
}

static void cmd_cat(const struct line *line, int at, struct result *result)
{
	int fd = open(line->word[at + 1], O_RDONLY);

	if (fd < 0) {
		failed_errno(result);
		return;
	}
	print("QK %u begin\n", line->number);
	int error = copy(fd, STDOUT_FILENO) ? errno : 0;
	print("QK %u end-of-file\n", line->number);
	close(fd);
	errno = error;
	if (error)
		failed_errno(result);
	else
		done(result, "file=%s", line->word[at + 1]);
}

/* Copies /proc/kallsyms to another serial port, byte for byte. */
static void cmd_kallsyms(const struct line *line, int at, struct result *result)
{
	int from = open("/proc/kallsyms", O_RDONLY), to = open(line->word[at + 1], O_WRONLY | O_NOCTTY);
	struct termios raw;

	if (from >= 0 && to >= 0 && !tcgetattr(to, &raw)) {
		cfmakeraw(&raw);
		tcsetattr(to, TCSANOW, &raw);
	}
	if (from < 0 || to < 0 || copy(from, to) || (isatty(to) && tcdrain(to)))
		failed_errno(result);
	else
		done(result, "port=%s", line->word[at + 1]);
	close(from);
	close(to);
}

/* readtext START LENGTH, or START END: numbers or symbols. The guest's own view of its memory, by /proc/kcore. */
static void cmd_readtext(const struct line *line, int at, struct result *result)
{
	char *no_number;
	unsigned long start = strtoul(line->word[at + 1], &no_number, 0);
	if (*no_number)
		start = symbol(line->word[at + 1]);
	unsigned long length = strtoul(line->word[at + 2], &no_number, 0);
	if (*no_number)
		length = symbol(line->word[at + 2]) - start;
	int fd = open("/proc/kcore", O_RDONLY);
	ElfW(Ehdr) header;
	ElfW(Phdr) segment;
	uint64_t hash = UINT64_C(0xcbf29ce484222325); /* FNV-1a */
	unsigned long offset = 0;

	if (fd < 0 || pread(fd, &header, sizeof(header), 0) != sizeof(header)) {
		failed_errno(result);
		return;
	}
	for (int i = 0; i < header.e_phnum && !offset; i++) {
		if (pread(fd, &segment, sizeof(segment), header.e_phoff + i * sizeof(segment)) != sizeof(segment))
			break;
		if (segment.p_type == PT_LOAD && start >= segment.p_vaddr && start - segment.p_vaddr < segment.p_memsz)
			offset = segment.p_offset + (start - segment.p_vaddr);
	}
	for (unsigned long at_byte = 0; offset && at_byte < length;) {
		uint8_t buffer[65536];
		unsigned long want = length - at_byte < sizeof(buffer) ? length - at_byte : sizeof(buffer);
		ssize_t have = pread(fd, buffer, want, offset + at_byte);

		if (have <= 0)
			offset = 0;
		for (ssize_t i = 0; i < have; i++)
			hash = (hash ^ buffer[i]) * UINT64_C(0x100000001b3);
		at_byte += have > 0 ? have : 0;
	}
	close(fd);
	if (offset)
		done(result, "start=%#lx length=%lu fnv1a=%016llx", start, length, (unsigned long long)hash);
	else
		failed(result, "no memory at %#lx", start);
}

/* ---- the machine ---- */

static void cmd_say(const struct line *line, int at, struct result *result)
{
	done(result, "%s", line->rest[at + 1]);
}

static void cmd_uname(const struct line *line, int at, struct result *result)
{
	struct utsname name;

	(void)line, (void)at;
	uname(&name);
	done(result, "release=%s machine=%s cpus=%ld", name.release, name.machine, sysconf(_SC_NPROCESSORS_ONLN));
}

static void cmd_sethost(const struct line *line, int at, struct result *result)
{
	if (sethostname(line->word[at + 1], strlen(line->word[at + 1])))
		failed_errno(result);
	else
		done(result, "name=%s", line->word[at + 1]);
}

static void cmd_panic(const struct line *line, int at, struct result *result)
{
	(void)line, (void)at;
	write_text("/proc/sysrq-trigger", 0, "c");
	failed(result, "still alive");
}

static void __attribute__((noreturn)) power_off(void)
{
	print("QK end\n");
	tcdrain(STDOUT_FILENO);
	reboot(RB_POWER_OFF);
	for (;;)
		pause();
}

static void cmd_poweroff(const struct line *line, int at, struct result *result)
{
	(void)line, (void)at, (void)result;
	power_off();
}

/* ---- commands that run commands ---- */

struct worker {
	pthread_t thread;
	pthread_barrier_t *go;
	const struct line *line;
	int at, index;
	struct result result;
};

static void *work(void *argument)
{
	struct worker *worker = argument;

	pin(worker->index);
	pthread_barrier_wait(worker->go);
	run(worker->line, worker->at, &worker->result);
	return NULL;
}

/* threads T CMD..., procs T CMD...: all start together, worker i on CPU i modulo their number */
static void workers(const struct line *line, int at, int threads, struct result *result)
{
	int count = number(line->word[at + 1]), bad = 0;
	struct worker *all = shared(sizeof(*all) * MAX_WORKERS);
	pthread_barrier_t *go = shared(sizeof(*go));
	pthread_barrierattr_t across;
	pid_t pids[MAX_WORKERS];

	if (count < 1 || count > MAX_WORKERS || !all || !go) {
		result->status = SENSELESS;
		return;
	}
	pthread_barrierattr_init(&across);
	pthread_barrierattr_setpshared(&across, PTHREAD_PROCESS_SHARED);
	pthread_barrier_init(go, &across, count);
	uint64_t start = now_ns();
	for (int i = 0; i < count; i++) {
		all[i] = (struct worker){ .go = go, .line = line, .at = at + 2, .index = i };
		if (threads)
			pthread_create(&all[i].thread, NULL, work, &all[i]);
		else if ((pids[i] = fork()) == 0) {
			work(&all[i]);
			_exit(0);
		}
	}
	for (int i = 0; i < count; i++) {
		if (threads)
			pthread_join(all[i].thread, NULL);
		else
			waitpid(pids[i], NULL, 0);
	}
	double ms = (now_ns() - start) / 1e6;
	for (int i = 0; i < count; i++) {
		report(line->number, i, &all[i].result);
		bad += all[i].result.status != OK;
	}
	if (bad)
		failed(result, "%d of %d", bad, count);
	else
		done(result, "count=%d ms=%.1f", count, ms);
	munmap(all, sizeof(*all) * MAX_WORKERS);
	munmap(go, sizeof(*go));
}

static void cmd_threads(const struct line *line, int at, struct result *result)
{
	workers(line, at, 1, result);
}

static void cmd_procs(const struct line *line, int at, struct result *result)
{
	workers(line, at, 0, result);
}

static struct {
	pid_t pid;
	unsigned number;
	struct result *result;
} background[MAX_WORKERS];
static int backgrounds;

static void cmd_background(const struct line *line, int at, struct result *result)
{
	struct result *theirs = shared(sizeof(*theirs));

	if (backgrounds == MAX_WORKERS || !theirs) {
		failed(result, "too many");
		return;
	}
	snprintf(theirs->command, sizeof(theirs->command), "%s", line->word[at + 1]);
	theirs->status = FAILED;
	strcpy(theirs->text, "died");
	pid_t pid = fork();
	if (pid == 0) {
		run(line, at + 1, theirs);
		_exit(0);
	}
	background[backgrounds].pid = pid;
	background[backgrounds].number = line->number;
	background[backgrounds++].result = theirs;
	done(result, "pid=%d", pid);
}

static void cmd_wait(const struct line *line, int at, struct result *result)
{
	int count = backgrounds, bad = 0;

	(void)line, (void)at;
	for (int i = 0; i < count; i++) {
		waitpid(background[i].pid, NULL, 0);
		report(background[i].number, 0, background[i].result);
		bad += background[i].result->status != OK;
		munmap(background[i].result, sizeof(struct result));
	}
	backgrounds = 0;
	if (bad)
		failed(result, "%d of %d", bad, count);
	else
		done(result, "count=%d", count);
}

static void cmd_expect_fail(const struct line *line, int at, struct result *result)
{
	struct result theirs = { .status = OK };

	run(line, at + 1, &theirs);
	if (theirs.status == SENSELESS)
		result->status = SENSELESS;
	else if (theirs.status == OK)
		failed(result, "%s did not fail", theirs.command);
	else
		done(result, "%s errno=%s", theirs.command, theirs.text);
}

/* ---- the script ---- */

static const struct command {
	const char *name;
	int arguments; /* at least */
	void (*function)(const struct line *line, int at, struct result *result);
} commands[] = {
	{ "append", 2, cmd_append },
	{ "background", 1, cmd_background },
	{ "busy", 1, cmd_busy },
	{ "cat", 1, cmd_cat },
	{ "exec", 1, cmd_exec },
	{ "expect-fail", 1, cmd_expect_fail },
	{ "fork", 1, cmd_fork },
	{ "getppid", 1, cmd_getppid },
	{ "kallsyms", 1, cmd_kallsyms },
	{ "memtouch", 2, cmd_memtouch },
	{ "openclose", 2, cmd_openclose },
	{ "panic", 0, cmd_panic },
	{ "pipe", 1, cmd_pipe },
	{ "poweroff", 0, cmd_poweroff },
	{ "procs", 2, cmd_procs },
	{ "readtext", 2, cmd_readtext },
	{ "say", 1, cmd_say },
	{ "sethost", 1, cmd_sethost },
	{ "sleep", 1, cmd_sleep },
	{ "threads", 2, cmd_threads },
	{ "uname", 0, cmd_uname },
	{ "usercode", 2, cmd_usercode },
	{ "wait", 0, cmd_wait },
	{ "write", 1, cmd_write },
	{ "write-loop", 3, cmd_write_loop },
	{ "write-trunc", 1, cmd_write_trunc },
};

/* Runs the command that begins at word `first`. */
static void run(const struct line *line, int first, struct result *result)
{
	const char *name = line->word[first];

	result->status = SENSELESS;
	snprintf(result->command, sizeof(result->command), "%s", name);
	snprintf(result->text, sizeof(result->text), "no such command, or too few arguments");
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
		if (!strcmp(commands[i].name, name) && line->words - first > commands[i].arguments) {
			commands[i].function(line, first, result);
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
	/* Warnings and worse still show; chatter would cut our lines in two. */
	klogctl(8, NULL, 5);
	print("QK begin\n");
	run_script("/qk.script");
	power_off();
}
