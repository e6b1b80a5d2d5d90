/*
 * Runs the cases of cases.s on a sparc64 CPU (qemu-sparc64) and prints what they leave: see ../sparc64.rs.
 *
 * A case is copied to `slot`; `run` loads every register but %g7 from `in`, executes it, and stores them all.
 */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define SEEDS 12
enum { REGS = 32, Y = 32, CCR = 33, SAVED = 40 };

/* In the order of register numbers, then %y and %ccr; from SAVED on, what C needs back. */
static uint64_t in[64];
extern uint32_t slot[], epilogue[];
extern uint32_t cases_start[], cases_end[];
extern uint64_t buffer[32];
void run(uint64_t *registers);

#define LOAD(reg, n) "ldx [%g7 + 8 * " #n "], %" #reg "\n"
#define STORE(reg, n) "stx %" #reg ", [%g7 + 8 * " #n "]\n"
#define ALL(do) \
	do(g1, 1) do(g2, 2) do(g3, 3) do(g4, 4) do(g5, 5) do(g6, 6) \
	do(o0, 8) do(o1, 9) do(o2, 10) do(o3, 11) do(o4, 12) do(o5, 13) do(o6, 14) do(o7, 15) \
	do(l0, 16) do(l1, 17) do(l2, 18) do(l3, 19) do(l4, 20) do(l5, 21) do(l6, 22) do(l7, 23) \
	do(i0, 24) do(i1, 25) do(i2, 26) do(i3, 27) do(i4, 28) do(i5, 29) do(i6, 30) do(i7, 31)

asm(".section .slot, \"awx\", @progbits\n"
    ".globl run, slot, epilogue\n"
    "run: save %sp, -192, %sp\n"
    "stx %g7, [%i0 + 8 * 40]\n"
    "mov %i0, %g7\n"
    STORE(sp, 41) STORE(fp, 42) STORE(i7, 43) STORE(g2, 44) STORE(g3, 45) STORE(g6, 46)
    LOAD(l0, 32) "wr %l0, 0, %y\n"
    LOAD(l0, 33) "wr %l0, 0, %ccr\n"
    ALL(LOAD)
    "ba,pt %xcc, slot\nnop\n"
    ".org 0x400\n"
    "slot: .skip 0x400\n"
    "epilogue:\n"
    ALL(STORE)
    "rd %y, %l0\n" STORE(l0, 32)
    "rd %ccr, %l0\n" STORE(l0, 33)
    LOAD(sp, 41) LOAD(fp, 42) LOAD(i7, 43) LOAD(g2, 44) LOAD(g3, 45) LOAD(g6, 46)
    "ldx [%g7 + 8 * 40], %g7\n"
    "ret\nrestore\n"
    ".section .buffer, \"aw\", @progbits\n"
    ".globl buffer\nbuffer: .skip 256\n"
    ".text\n");

/* splitmix64 */
static uint64_t state;
static uint64_t next(void)
{
	uint64_t z = state += 0x9e3779b97f4a7c15;
	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return z ^ z >> 31;
}

/* Values at which something changes more often than at others. */
static uint64_t value(uint64_t last)
{
	static const uint64_t special[8] = { 1, -1, 0x7fffffff, 0x80000000, 0xffffffff, INT64_MAX, INT64_MIN, 0x100000000 };
	uint64_t kind = next() & 7, v = next();
	switch (kind) {
	case 0: case 1: return v;
	case 2: return v & 0xffffffff;
	case 3: return (int64_t)(int32_t)v;
	case 4: return v & 0x3f;
	case 5: return special[v & 7];
	case 6: return last;
	default: return 0;
	}
}

static void prepare(uint64_t seed)
{
	uint64_t last = 0;
	state = seed;
	for (int n = 1; n < REGS; n++)
		in[n] = last = value(last);
	in[7] = 0;
	in[Y] = next() & 0xffffffff;
	in[CCR] = next() & 0xff;
	for (int n = 0; n < 32; n++)
		buffer[n] = next();
	in[14] = (uint64_t)buffer + 0x80 - 2047;
	in[24] = (uint64_t)buffer + 0x40;
	in[25] = (uint64_t)buffer + 0x80;
	in[26] = in[26] % 8 * 8;
	in[27] = -8 * (in[27] % 8);
	in[28] = (uint64_t)slot + 0x20;
}

static const char *const names[34] = {
	"g0", "g1", "g2", "g3", "g4", "g5", "g6", "g7", "o0", "o1", "o2", "o3", "o4", "o5", "sp", "o7",
	"l0", "l1", "l2", "l3", "l4", "l5", "l6", "l7", "in0", "in1", "in2", "in3", "in4", "in5", "fp", "in7", "y", "ccr",
};

int main(void)
{
	printf("# slot %#lx buffer %#lx\n", (uint64_t)slot, (uint64_t)buffer);
	uint64_t seed = 0;
	for (const uint32_t *at = cases_start; at < cases_end;) {
		unsigned len = 0;
		while (at[len])
			len++;
		memcpy(slot, at, 4 * len);
		slot[len] = 0x10800000 | ((epilogue - (slot + len)) & 0x3fffff);
		slot[len + 1] = 0x01000000;
		for (unsigned n = 0; n <= len + 1; n++)
			asm volatile("flush %0" : : "r"(slot + n) : "memory");
		for (int n = 0; n < SEEDS; n++) {
			uint64_t before[34], memory[32];
			prepare(++seed);
			memcpy(before, in, sizeof before);
			memcpy(memory, buffer, sizeof memory);
			run(in);
			printf("%lu", seed);
			for (unsigned word = 0; word < len; word++)
				printf("%c%08x", word ? ',' : ' ', at[word]);
			for (int reg = 1; reg < 34; reg++)
				if (reg != 7 && in[reg] != before[reg])
					printf(" %s=%lx", names[reg], in[reg]);
			for (int word = 0; word < 32; word++)
				if (buffer[word] != memory[word])
					printf(" +%x=%lx", 8 * word, buffer[word]);
			printf("\n");
		}
		at += len + 1;
	}
	return 0;
}
