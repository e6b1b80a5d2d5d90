/* Goes through the table of snippets, and prints what each call left:
 *   QK NAME run=1 g1=... ... pstate=... traps=N spills=N fills=N fnv=...
 * Numbers are hexadecimal; `fnv` is FNV-1a (64 bits) over the data area. Then `QK end`, and the machine is off.
 */
typedef unsigned long u64;
typedef unsigned char u8;

struct snippet {
	void (*function)(void);
	const char *name;
	u64 runs;
};

extern const struct snippet table[];
void call_snippet(void (*function)(void));

u8 data[1024] __attribute__((aligned(64)));
u64 traps, spills, fills, twice;
u64 kept[4];
u8 stack[65536] __attribute__((aligned(64)));
__asm__(".globl stack_top\n.set stack_top, stack + 65536");

static const char *const names[] = {
	"g1", "g2", "g3", "g4", "g5", "o0", "o1", "o2", "o3", "o4", "o5", "o6", "o7", "l0", "l1",
	"l2", "l3", "l4", "l5", "l6", "l7", "i0", "i1", "i2", "i3", "i4", "i5", "i6", "i7", "y",
	"ccr", "asi", "fprs", "cwp", "cansave", "canrestore", "otherwin", "cleanwin", "wstate", "tl", "pil", "pstate",
	"traps", "spills", "fills",
};
#define NAMES (sizeof(names) / sizeof(names[0]))
u64 state[NAMES];

/* Physical addresses without a cache: the bus of old devices. */
#define ASI_PHYS_IO 0x15
#define SERIAL 0x1fe020003f8
#define POWER 0x1fe02007240

static void print_byte(u8 byte)
{
	u64 status;

	/* A byte that comes while QEMU cannot get rid of the last one would be lost. */
	do
		__asm__ volatile("lduba [%1] %2, %0" : "=r"(status) : "r"(SERIAL + 5), "i"(ASI_PHYS_IO));
	while (!(status & 0x20));
	__asm__ volatile("stba %0, [%1] %2" : : "r"((u64)byte), "r"(SERIAL), "i"(ASI_PHYS_IO));
}

static void print(const char *text)
{
	for (; *text; text++)
		print_byte(*text);
}

static void print_number(const char *name, u64 number)
{
	int shift = 60;

	print(name);
	print("=");
	while (shift && !(number >> shift))
		shift -= 4;
	for (; shift >= 0; shift -= 4)
		print_byte("0123456789abcdef"[number >> shift & 15]);
}

static void __attribute__((noreturn)) power_off(void)
{
	__asm__ volatile("stwa %0, [%1] %2" : : "r"(0x1000000ul), "r"(POWER), "i"(ASI_PHYS_IO));
	for (;;)
		;
}

void unexpected_trap(u64 kind, u64 pc)
{
	print("QK unexpected ");
	print_number("trap", kind);
	print_number(" pc", pc);
	print("\n");
	power_off();
}

void run_all(void)
{
	/* The firmware left the cursor in a line. */
	print("\n");
	for (const struct snippet *snippet = table; snippet->function; snippet++)
		for (u64 run = 1; run <= snippet->runs; run++) {
			u64 fnv = 0xcbf29ce484222325;

			/* Known content: a byte each of a sequence that does not repeat with the page. */
			for (u64 i = 0, byte = 0x5a; i < sizeof(data); i++, byte = byte * 73 + 41)
				data[i] = byte;
			twice = 0;
			call_snippet(snippet->function);
			for (u64 i = 0; i < sizeof(data); i++)
				fnv = (fnv ^ data[i]) * 0x100000001b3;
			print("QK ");
			print(snippet->name);
			print_number(" run", run);
			for (u64 i = 0; i < NAMES; i++) {
				print(" ");
				print_number(names[i], state[i]);
			}
			print_number(" fnv", fnv);
			print("\n");
		}
	print("QK end\n");
	power_off();
}
