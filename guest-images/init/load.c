/* Commands that make the kernel, or the CPU, do something many times and say how long it took. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "qk.h"

void cmd_getppid(const struct line *line, int at, struct result *result)
{
	unsigned long n = number(line->word[at + 1]);
	uint64_t start = now_ns();

	for (unsigned long i = 0; i < n; i++)
		syscall(SYS_getppid);
	done_timed(result, n, start);
}

void cmd_openclose(const struct line *line, int at, struct result *result)
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

void cmd_fork(const struct line *line, int at, struct result *result)
{
	children(number(line->word[at + 1]), 0, result);
}

void cmd_exec(const struct line *line, int at, struct result *result)
{
	children(number(line->word[at + 1]), 1, result);
}

void cmd_pipe(const struct line *line, int at, struct result *result)
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
void cmd_usercode(const struct line *line, int at, struct result *result)
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
	volatile unsigned long descriptor[3] = { address, 0, 0 }; /* the compiler does not see that a call reads it */
	function = (void (*)(void))descriptor;
#endif
	uint64_t start = now_ns();
	for (unsigned long i = 0; i < n; i++)
		function();
	done_timed(result, n, start);
	munmap((void *)base, 2 * page);
}

/* call ADDRESS N: calls what is there already, with no argument (0), as a function of the vsyscall page takes it */
void cmd_call(const struct line *line, int at, struct result *result)
{
	unsigned long n = number(line->word[at + 2]);
	long (*function)(long) = (long (*)(long))number(line->word[at + 1]);
	uint64_t start = now_ns();

	for (unsigned long i = 0; i < n; i++)
		function(0);
	done_timed(result, n, start);
}

void cmd_memtouch(const struct line *line, int at, struct result *result)
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

void cmd_busy(const struct line *line, int at, struct result *result)
{
	uint64_t end = now_ns() + number(line->word[at + 1]) * UINT64_C(1000000);
	volatile uint32_t state = 1;
	unsigned long rounds = 0;

	for (; now_ns() < end; rounds++)
		for (int i = 0; i < 1000; i++)
			state = state * 1664525 + 1013904223;
	done(result, "rounds=%lu", rounds);
}

void cmd_sleep(const struct line *line, int at, struct result *result)
{
	usleep(number(line->word[at + 1]) * 1000);
	done(result, "ms=%s", line->word[at + 1]);
}

/* A place in the middle of what a process has, far from everything else. */
#if !defined(__LP64__)
#define TIME_PAGES 0x60000000
#elif defined(__x86_64__)
#define TIME_PAGES 0x700000000000
#else
#define TIME_PAGES 0x70000000000 /* powerpc with 4K pages has 64 TB; UltraSPARC has a hole from 0x80000000000 on */
#endif

/* The system call that stores the time; sparc64 has only the one that stores microseconds too. */
static long store_time(void *place)
{
#ifdef SYS_time
	return syscall(SYS_time, place);
#else
	return syscall(SYS_gettimeofday, place, NULL);
#endif
}

/*
 * time N WHERE: the system call, which stores its result at a fixed address. N pages of their own that nobody has touched
 * (`fresh`), that were only read (`zero`: the store ends their sharing), that were written (`touched`), that no store may
 * go to (`readonly`), or no page (`unmapped`).
 */
void cmd_time(const struct line *line, int at, struct result *result)
{
	unsigned long n = number(line->word[at + 1]), stored = 0, faults = 0;
	const char *where = line->word[at + 2];
	unsigned long page = sysconf(_SC_PAGESIZE);
	char *base = (char *)TIME_PAGES;
	int protection = strcmp(where, "readonly") ? PROT_READ | PROT_WRITE : PROT_READ;

	if (mmap(base, n * page, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) != base) {
		failed_errno(result);
		return;
	}
	/* One page at a time: the kernel must not put a huge one there. */
	madvise(base, n * page, MADV_NOHUGEPAGE);
	for (unsigned long i = 0; i < n; i++) {
		volatile char *place = base + i * page;

		if (!strcmp(where, "zero") || !strcmp(where, "readonly"))
			(void)*place;
		else if (!strcmp(where, "touched"))
			*place = 1;
	}
	if (!strcmp(where, "unmapped"))
		munmap(base, n * page);
	uint64_t start = now_ns();
	for (unsigned long i = 0; i < n; i++) {
		long seconds = store_time(base + i * page);

		stored += seconds >= 0;
		faults += seconds < 0 && errno == EFAULT;
	}
	done(result, "n=%lu ok=%lu efault=%lu ns=%.1f", n, stored, faults, n ? (double)(now_ns() - start) / n : 0.0);
	munmap(base, n * page);
}

/*
 * epoll N DEPTH: DEPTH epoll instances, each of which watches the one before; then, N times, a new one that watches the
 * last. The kernel looks for loops through all of them, by recursion.
 */
void cmd_epoll(const struct line *line, int at, struct result *result)
{
	unsigned long n = number(line->word[at + 1]), depth = number(line->word[at + 2]);
	struct epoll_event event = { .events = EPOLLIN };
	int fds[16];

	if (depth < 1 || depth >= sizeof(fds) / sizeof(fds[0])) {
		result->status = SENSELESS;
		return;
	}
	for (unsigned long i = 0; i < depth; i++) {
		fds[i] = epoll_create1(0);
		if (fds[i] < 0 || (i && epoll_ctl(fds[i], EPOLL_CTL_ADD, fds[i - 1], &event))) {
			failed_errno(result);
			return;
		}
	}
	uint64_t start = now_ns();
	for (unsigned long i = 0; i < n; i++) {
		int last = epoll_create1(0);

		if (epoll_ctl(last, EPOLL_CTL_ADD, fds[depth - 1], &event)) {
			failed_errno(result);
			return;
		}
		close(last);
	}
	done_timed(result, n, start);
	while (depth)
		close(fds[--depth]);
}

/* Its own frame at every depth: what it multiplies with lives across the call. At the bottom the kernel is entered. */
__attribute__((noinline, noclone)) static uint32_t recurse(unsigned long depth, uint32_t seed)
{
	volatile uint32_t mine = seed * 2654435761u + depth;
	uint32_t below = depth ? recurse(depth - 1, mine) : (uint32_t)(syscall(SYS_getppid) & 0) + seed;

	return below * 31 + mine;
}

/* The same without depth: seeds on the way down, sums on the way up. */
static uint32_t unrolled(unsigned long depth, uint32_t seed, uint32_t *mine)
{
	uint32_t sum = seed;

	for (unsigned long left = depth + 1; left--; seed = mine[left]) {
		mine[left] = seed * 2654435761u + left;
		sum = seed; /* in the end the innermost call's */
	}
	for (unsigned long left = 0; left <= depth; left++)
		sum = sum * 31 + mine[left];
	return sum;
}

/*
 * recurse DEPTH N: N times DEPTH calls inside one another, with a system call in the innermost. Where registers are
 * windows (sparc64) they are spilled on the way down, some of them by the kernel, and filled on the way up.
 */
void cmd_recurse(const struct line *line, int at, struct result *result)
{
	unsigned long depth = number(line->word[at + 1]), n = number(line->word[at + 2]), wrong = 0;
	static uint32_t mine[10001];

	if (depth >= sizeof(mine) / sizeof(mine[0])) {
		result->status = SENSELESS;
		return;
	}
	uint64_t start = now_ns();
	for (unsigned long i = 0; i < n; i++)
		wrong += recurse(depth, i) != unrolled(depth, i, mine);
	if (wrong)
		failed(result, "%lu of %lu came back wrong", wrong, n);
	else
		done_timed(result, n, start);
}
