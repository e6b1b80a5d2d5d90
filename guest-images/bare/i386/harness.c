/* Goes through the table of snippets, and prints what each call left:
 *   QK NAME run=1 eax=... ebx=... ... esp=... flags=... traps=N irqs=N fnv=...
 * Numbers are hexadecimal; `fnv` is FNV-1a (64 bits) over the data area and the snippet's stack. Then `QK end`, and the
 * machine is off.
 */
typedef unsigned long long u64;
typedef unsigned int u32;
typedef unsigned short u16;
typedef unsigned char u8;

struct snippet {
	void (*function)(void);
	const char *name;
	u32 runs;
	/* The flags that are defined. */
	u32 flags;
};

extern const struct snippet table[];
void call_snippet(void (*function)(void));

/* What snippets store to, their stack, and room above it. */
u8 data[1024 + 2048 + 1024] __attribute__((aligned(4096)));
__asm__(".globl stack_start\n.set stack_start, data + 1024 + 2048");
u32 traps, interrupts, fix_ip, fix_pte, kernel_sp, kernel_ip;
u32 state[9];

#define COM1 0x3f8

static void out_byte(u16 port, u8 byte)
{
	__asm__ volatile("outb %0, %1" : : "a"(byte), "Nd"(port));
}

static u8 in_byte(u16 port)
{
	u8 byte;

	__asm__ volatile("inb %1, %0" : "=a"(byte) : "Nd"(port));
	return byte;
}

static void print(const char *text)
{
	for (; *text; text++) {
		/* A byte that comes while QEMU cannot get rid of the last one would be lost. */
		while (!(in_byte(COM1 + 5) & 0x20))
			;
		out_byte(COM1, *text);
	}
}

static void print_number(const char *name, u64 number)
{
	char text[18] = "=";
	int shift = 60, at = 1;

	while (shift && !(number >> shift))
		shift -= 4;
	for (; shift >= 0; shift -= 4)
		text[at++] = "0123456789abcdef"[(number >> shift) & 15];
	text[at] = 0;
	print(name);
	print(text);
}

static void __attribute__((noreturn)) power_off(void)
{
	/* S5 through the PIIX4's power management: QEMU ends as after a kernel's poweroff, so plugins finish. */
	__asm__ volatile("outw %0, %1" : : "a"((u16)0x2000), "Nd"((u16)0x604));
	for (;;)
		__asm__ volatile("hlt");
}

void unexpected_trap(u32 vector, u32 ip, u32 address)
{
	print_number("QK unexpected trap", vector);
	print_number(" ip", ip);
	print_number(" address", address);
	print("\n");
	power_off();
}

void run_all(void)
{
	static const char *const names[] = { " eax", " ebx", " ecx", " edx", " esi", " edi", " ebp", " esp" };

	/* The firmware left the cursor in a line. */
	print("\n");
	for (const struct snippet *snippet = table; snippet->function; snippet++)
		for (u32 run = 1; run <= snippet->runs; run++) {
			u64 fnv = 0xcbf29ce484222325;
			u8 byte = 0x5a;

			/* Known content: a byte each of a sequence that does not repeat with the page. */
			for (u32 i = 0; i < sizeof(data); i++, byte = byte * 73 + 41)
				data[i] = byte;
			traps = interrupts = fix_ip = fix_pte = 0;
			call_snippet(snippet->function);
			for (u32 i = 0; i < sizeof(data); i++)
				fnv = (fnv ^ data[i]) * 0x100000001b3;
			print("QK ");
			print(snippet->name);
			print_number(" run", run);
			for (u32 i = 0; i < 8; i++)
				print_number(names[i], state[i]);
			print_number(" flags", state[8] & snippet->flags);
			print_number(" traps", traps);
			print_number(" irqs", interrupts);
			print_number(" fnv", fnv);
			print("\n");
		}
	print("QK end\n");
	power_off();
}
