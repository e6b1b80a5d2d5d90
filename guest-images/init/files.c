/* Commands that read and write files, and the guest's memory by way of one. */
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <termios.h>
#include <unistd.h>

#include "qk.h"

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

int write_text(const char *path, int flags, const char *text)
{
	char buffer[MAX_LINE + 1];
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

void cmd_write(const struct line *line, int at, struct result *result)
{
	write_file(line, at, 0, result);
}

void cmd_write_trunc(const struct line *line, int at, struct result *result)
{
	write_file(line, at, O_TRUNC | O_CREAT, result);
}

void cmd_append(const struct line *line, int at, struct result *result)
{
	write_file(line, at, O_APPEND, result);
}

/* write-loop MS FILE TEXT1 ; TEXT2 */
void cmd_write_loop(const struct line *line, int at, struct result *result)
{
	uint64_t end = now_ns() + number(line->word[at + 1]) * UINT64_C(1000000);
	char text[2][MAX_LINE] = { "", "" };
	unsigned long toggles = 0, errors = 0;
	const char *rest = line->rest[at + 3], *middle = strstr(rest, " ; ");

	if (!middle) {
		result->status = SENSELESS;
		return;
	}
	snprintf(text[0], sizeof(text[0]), "%.*s", (int)(middle - rest), rest);
	snprintf(text[1], sizeof(text[1]), "%s", middle + 3);
	/* On a slow machine, too, there is something to see. */
	for (; now_ns() < end || toggles < 4; toggles++)
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

void cmd_cat(const struct line *line, int at, struct result *result)
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

/*
 * The serial ports of QEMU's Power Macintosh get stuck when something comes while they are opened or closed: there the
 * guest asks for it, and whoever is at the other end answers a question once.
 */
static int open_asking(const char *path)
{
#if defined(__powerpc__) && !defined(__powerpc64__)
	int fd = strncmp(path, "/dev/tty", 8) ? -1 : open(path, O_RDWR | O_NOCTTY);

	if (fd >= 0 && isatty(fd) && write(fd, "?", 1) == 1)
		return fd;
	if (fd >= 0)
		close(fd);
#endif
	return open(path, O_RDONLY);
}

/* until MS FILE TEXT: reads the file until it holds the text */
void cmd_until(const struct line *line, int at, struct result *result)
{
	uint64_t start = now_ns(), end = start + number(line->word[at + 1]) * UINT64_C(1000000);
	static char content[65536];

	do {
		int fd = open_asking(line->word[at + 2]);
		size_t length = 0;
		ssize_t have = 0;

		if (fd < 0) {
			failed_errno(result);
			return;
		}
		while (length < sizeof(content) - 1 && (have = read(fd, content + length, sizeof(content) - 1 - length)) > 0)
			length += have;
		close(fd);
		if (memmem(content, length, line->rest[at + 3], strlen(line->rest[at + 3]))) {
			done(result, "ms=%.1f", (now_ns() - start) / 1e6);
			return;
		}
		usleep(10000);
	} while (now_ns() < end);
	failed(result, "not within %s ms", line->word[at + 1]);
}

/* Copies /proc/kallsyms to another serial port, byte for byte. */
void cmd_kallsyms(const struct line *line, int at, struct result *result)
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

/*
 * Where the kernel's text, which is linked at `start`, lies in memory; -1 where nothing says so. Only for kernels whose
 * /proc/kcore leaves out the mapping that they run in (sparc64).
 */
static __attribute__((unused)) uint64_t physical(unsigned long start)
{
	char text[256];
	unsigned long long from, to;
	uint64_t result = -1;
	FILE *file = fopen("/proc/iomem", "r");

	while (file && result == UINT64_C(-1) && fgets(text, sizeof(text), file))
		if (strstr(text, "Kernel code") && sscanf(text, "%llx-%llx", &from, &to) == 2)
			result = from + (start - symbol("_text"));
	if (file)
		fclose(file);
	return result;
}

/* A number, a symbol, or a symbol and an offset: SYMBOL+OFFSET. */
static unsigned long address(const char *text)
{
	char *no_number, name[128];
	unsigned long start = strtoul(text, &no_number, 0);
	size_t length = strcspn(text, "+");

	if (!*no_number || length >= sizeof(name))
		return start;
	memcpy(name, text, length);
	name[length] = 0;
	start = symbol(name);
	return start && text[length] ? start + strtoul(text + length + 1, NULL, 0) : start;
}

/* Opens /proc/kcore, the guest's own view of its memory; `offset` is where `start` lies in it, 0 if it does not. */
static int open_kcore(unsigned long start, off_t *offset)
{
	int fd = open("/proc/kcore", O_RDONLY);
	ElfW(Ehdr) header;
	ElfW(Phdr) segment;
	uint64_t memory = -1;

	*offset = 0;
	if (fd < 0)
		return fd;
	if (pread(fd, &header, sizeof(header), 0) != sizeof(header)) {
		close(fd);
		return -1;
	}
#ifdef __sparc__
	memory = physical(start);
#endif
	for (int i = 0; i < header.e_phnum && !*offset; i++) {
		if (pread(fd, &segment, sizeof(segment), header.e_phoff + i * sizeof(segment)) != sizeof(segment))
			break;
		if (segment.p_type == PT_LOAD && start >= segment.p_vaddr && start - segment.p_vaddr < segment.p_memsz)
			*offset = segment.p_offset + (start - segment.p_vaddr);
		else if (segment.p_type == PT_LOAD && ~memory && memory >= segment.p_paddr && memory - segment.p_paddr < segment.p_memsz)
			*offset = segment.p_offset + (memory - segment.p_paddr);
	}
	return fd;
}

/* readtext START LENGTH, or START END: numbers or symbols. */
void cmd_readtext(const struct line *line, int at, struct result *result)
{
	char *no_number;
	unsigned long start = address(line->word[at + 1]);
	unsigned long length = strtoul(line->word[at + 2], &no_number, 0);
	if (*no_number)
		length = address(line->word[at + 2]) - start;
	off_t offset;
	int fd = open_kcore(start, &offset);
	uint64_t hash = UINT64_C(0xcbf29ce484222325); /* FNV-1a */

	if (fd < 0) {
		failed_errno(result);
		return;
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

/* untiltext MS ADDRESS BYTE: reads the byte of the kernel's text until it is this one, in hexadecimal */
void cmd_untiltext(const struct line *line, int at, struct result *result)
{
	uint64_t start = now_ns(), end = start + number(line->word[at + 1]) * UINT64_C(1000000);
	unsigned long where = address(line->word[at + 2]);
	unsigned long wanted = strtoul(line->word[at + 3], NULL, 16);
	uint8_t byte = 0;

	do {
		off_t offset;
		int fd = open_kcore(where, &offset);
		int have = fd >= 0 && offset && pread(fd, &byte, 1, offset) == 1;

		if (fd >= 0)
			close(fd);
		if (!have) {
			failed(result, "no memory at %#lx", where);
			return;
		}
		if (byte == wanted) {
			done(result, "ms=%.1f", (now_ns() - start) / 1e6);
			return;
		}
		usleep(10000);
	} while (now_ns() < end);
	failed(result, "still %02x after %s ms", byte, line->word[at + 1]);
}

/* Opens what lies at this address, whatever that is, and tells what the kernel said. */
static void open_at(const char *path, struct result *result)
{
	int fd = syscall(SYS_openat, AT_FDCWD, path, O_RDONLY, 0);
	const char *error = fd < 0 ? strerrorname_np(errno) : "0";

	if (fd >= 0)
		close(fd);
	done(result, "errno=%s", error ? error : "unknown");
}

/* openmany N PREFIX: N different names, one after the other */
void cmd_openmany(const struct line *line, int at, struct result *result)
{
	unsigned long n = number(line->word[at + 1]);

	for (unsigned long i = 0; i < n; i++) {
		char path[MAX_LINE + 24];
		int length = snprintf(path, sizeof(path), "%s%lu", line->word[at + 2], i);
		int fd = length < (int)sizeof(path) ? syscall(SYS_openat, AT_FDCWD, path, O_RDONLY, 0) : -1;

		if (fd >= 0)
			close(fd);
	}
	done(result, "n=%lu", n);
}

/* openptr ADDRESS: a pointer that may be none */
void cmd_openptr(const struct line *line, int at, struct result *result)
{
	open_at((const char *)number(line->word[at + 1]), result);
}

/*
 * openhex PLACE HEX: a name of any bytes, given in hexadecimal, and where it lies: "page", on one page; "across", half on one page and half
 * on the next; "cut", up to the end of a page, without a terminator, and no page follows.
 */
void cmd_openhex(const struct line *line, int at, struct result *result)
{
	const char *place = line->word[at + 1], *hex = line->word[at + 2];
	unsigned long page = sysconf(_SC_PAGESIZE);
	size_t length = strlen(hex) / 2, before = strcmp(place, "cut") ? strcmp(place, "across") ? page : length / 2 : length;
	char *pages = mmap(NULL, 3 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (pages == MAP_FAILED) {
		failed_errno(result);
		return;
	}
	/* The third page stays unmapped, so that nothing else follows. */
	munmap(pages + 2 * page, page);
	char *path = pages + page - before;
	for (size_t i = 0; i < length; i++) {
		unsigned byte;

		if (sscanf(hex + 2 * i, "%2x", &byte) != 1) {
			result->status = SENSELESS;
			return;
		}
		path[i] = byte;
	}
	if (!strcmp(place, "cut"))
		munmap(pages + page, page);
	open_at(path, result);
	munmap(pages, 2 * page);
}
