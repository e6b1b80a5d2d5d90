/* Commands about the machine as a whole. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/reboot.h>
#include <sys/utsname.h>
#include <termios.h>
#include <unistd.h>

#include "qk.h"

void cmd_say(const struct line *line, int at, struct result *result)
{
	done(result, "%s", line->rest[at + 1]);
}

void cmd_uname(const struct line *line, int at, struct result *result)
{
	struct utsname name;

	(void)line, (void)at;
	uname(&name);
	done(result, "release=%s machine=%s cpus=%ld", name.release, name.machine, sysconf(_SC_NPROCESSORS_ONLN));
}

void cmd_sethost(const struct line *line, int at, struct result *result)
{
	if (sethostname(line->word[at + 1], strlen(line->word[at + 1])))
		failed_errno(result);
	else
		done(result, "name=%s", line->word[at + 1]);
}

void cmd_panic(const struct line *line, int at, struct result *result)
{
	(void)line, (void)at;
	write_text("/proc/sysrq-trigger", 0, "c");
	failed(result, "still alive");
}

void __attribute__((noreturn)) power_off(void)
{
	print("QK end\n");
	tcdrain(STDOUT_FILENO);
	reboot(RB_POWER_OFF);
	for (;;)
		pause();
}

void cmd_poweroff(const struct line *line, int at, struct result *result)
{
	(void)line, (void)at, (void)result;
	power_off();
}

char task_state(const char *process, const char *task)
{
	char path[64], stat[512];

	snprintf(path, sizeof(path), "/proc/%.20s/task/%.20s/stat", process, task);
	FILE *file = fopen(path, "r");
	size_t length = file ? fread(stat, 1, sizeof(stat) - 1, file) : 0;

	if (file)
		fclose(file);
	stat[length] = '\0';
	/* The name, in parentheses, may hold anything. */
	char *name = strrchr(stat, ')');
	return name && name[1] ? name[2] : '\0';
}

/* tasks: how many there are, and how many of them sleep */
void cmd_tasks(const struct line *line, int at, struct result *result)
{
	unsigned all = 0, asleep = 0;
	DIR *proc = opendir("/proc");
	struct dirent *process, *thread;

	(void)line, (void)at;
	if (!proc) {
		failed_errno(result);
		return;
	}
	while ((process = readdir(proc))) {
		char path[64];

		if (strspn(process->d_name, "0123456789") != strlen(process->d_name))
			continue;
		snprintf(path, sizeof(path), "/proc/%.20s/task", process->d_name);
		DIR *threads = opendir(path);
		while (threads && (thread = readdir(threads))) {
			if (thread->d_name[0] == '.')
				continue;
			char state = task_state(process->d_name, thread->d_name);
			all += state != '\0';
			asleep += state == 'S' || state == 'D' || state == 'I';
		}
		if (threads)
			closedir(threads);
	}
	closedir(proc);
	done(result, "all=%u asleep=%u", all, asleep);
}
