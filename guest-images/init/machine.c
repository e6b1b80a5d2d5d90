/* Commands about the machine as a whole. */
#define _GNU_SOURCE
#include <errno.h>
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
