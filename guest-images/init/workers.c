/* Commands that run other commands: beside each other, in the background, or expecting them to fail. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "qk.h"

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
	int count = number(line->word[at + 1]), bad = 0, senseless = 0;
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
		senseless += all[i].result.status == SENSELESS;
	}
	if (senseless)
		result->status = SENSELESS;
	else if (bad)
		failed(result, "%d of %d", bad, count);
	else
		done(result, "count=%d ms=%.1f", count, ms);
	munmap(all, sizeof(*all) * MAX_WORKERS);
	munmap(go, sizeof(*go));
}

/* on CPU CMD...: here, on this CPU only */
void cmd_on(const struct line *line, int at, struct result *result)
{
	cpu_set_t before;

	sched_getaffinity(0, sizeof(before), &before);
	pin(number(line->word[at + 1]));
	run(line, at + 2, result);
	sched_setaffinity(0, sizeof(before), &before);
}

void cmd_threads(const struct line *line, int at, struct result *result)
{
	workers(line, at, 1, result);
}

void cmd_procs(const struct line *line, int at, struct result *result)
{
	workers(line, at, 0, result);
}

static struct {
	pid_t pid;
	unsigned number;
	struct result *result;
} background[MAX_WORKERS];
static int backgrounds;

void cmd_background(const struct line *line, int at, struct result *result)
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

void cmd_wait(const struct line *line, int at, struct result *result)
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

void cmd_expect_fail(const struct line *line, int at, struct result *result)
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

/* Where `migrate` reads: a number that a probe can ask for. */
#define MIGRATE_FD 77

struct sleeper {
	int in, out;
	pid_t tid;
	unsigned long moved;
};

static void *sleep_and_move(void *argument)
{
	struct sleeper *sleeper = argument;
	char byte = 0;

	pin(0);
	__atomic_store_n(&sleeper->tid, syscall(SYS_gettid), __ATOMIC_SEQ_CST);
	for (int before = sched_getcpu(), now; read(sleeper->in, &byte, 1) == 1; before = now) {
		now = sched_getcpu();
		sleeper->moved += now != before;
		if (write(sleeper->out, &byte, 1) != 1)
			break;
	}
	return NULL;
}

/* migrate N: a thread sleeps in read(); while it does, it is moved to the next CPU, and woken there. N times */
void cmd_migrate(const struct line *line, int at, struct result *result)
{
	unsigned long n = number(line->word[at + 1]), i;
	struct sleeper sleeper = { .in = MIGRATE_FD };
	int there[2], back[2];
	pthread_t thread;
	char byte = 0, tid[24];

	if (pipe(there) || pipe(back) || dup2(there[0], MIGRATE_FD) < 0) {
		failed_errno(result);
		return;
	}
	sleeper.out = back[1];
	pthread_create(&thread, NULL, sleep_and_move, &sleeper);
	while (!__atomic_load_n(&sleeper.tid, __ATOMIC_SEQ_CST))
		sched_yield();
	snprintf(tid, sizeof(tid), "%d", sleeper.tid);
	for (i = 0; i < n; i++) {
		cpu_set_t next;

		while (task_state("self", tid) != 'S')
			sched_yield();
		CPU_ZERO(&next);
		CPU_SET((i + 1) % sysconf(_SC_NPROCESSORS_ONLN), &next);
		if (sched_setaffinity(sleeper.tid, sizeof(next), &next) || write(there[1], &byte, 1) != 1 ||
		    read(back[0], &byte, 1) != 1)
			break;
	}
	if (i == n)
		done(result, "n=%lu", n);
	else
		failed_errno(result);
	close(there[1]);
	pthread_join(thread, NULL);
	if (result->status == OK)
		done(result, "n=%lu moved=%lu", n, sleeper.moved);
	close(there[0]);
	close(back[0]);
	close(back[1]);
	close(MIGRATE_FD);
}
