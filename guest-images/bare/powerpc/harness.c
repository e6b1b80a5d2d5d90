/* Goes through the table of snippets, and prints what each call left:
 *   QK NAME run=1 r0=... ... r31=... cr=... xer=... ctr=... lr=... msr=... traps=N fnv=...
 * Numbers are hexadecimal; `fnv` is FNV-1a (64 bits) over the data area. Then `QK end`, and the machine is off.
 */
/* As wide as a register. */
typedef unsigned long word;
typedef unsigned long long u64;
typedef unsigned int u32;
typedef unsigned char u8;

struct snippet {
	void (*function)(void);
	const char *name;
	word runs;
};

extern const struct snippet table[];
void call_snippet(void (*function)(void));
long hypervisor_call(word number, word a, word b, word c, word d);

u8 data[1024] __attribute__((aligned(256)));
word traps, retries, kept[2], state[37];
u8 stack[16384] __attribute__((aligned(64)));
u8 snippet_stack[8192] __attribute__((aligned(64)));
__asm__(".globl stack_top\n.set stack_top, stack + 16384\n"
	".globl snippet_stack_top\n.set snippet_stack_top, snippet_stack + 8192");

#ifdef __powerpc64__
/* PAPR: numbers of calls, and what they return. */
#define H_PUT_TERM_CHAR 0x58
#define H_SET_MODE 0x31c
#define H_BUSY 1
#define MODE_ENDIAN 4
/* QEMU's own way into RTAS, and its token for power-off. */
#define H_RTAS 0xf000
#define RTAS_POWER_OFF 0x2003

static word letters[2];
static u32 have;

static void flush(void)
{
	/* Terminal 0 is the first one. */
	while (have && hypervisor_call(H_PUT_TERM_CHAR, 0, have, letters[0], letters[1]) == H_BUSY)
		;
	have = 0;
	letters[0] = letters[1] = 0;
}

static void print_byte(u8 byte)
{
	/* Up to 16, the first one at the top of the first register. */
	letters[have / 8] |= (word)byte << (56 - have % 8 * 8);
	if (++have == 16)
		flush();
}

static u32 big_endian(u32 number)
{
#ifdef __LITTLE_ENDIAN__
	return __builtin_bswap32(number);
#else
	return number;
#endif
}

static void __attribute__((noreturn)) power_off(void)
{
	/* Token, two arguments (no wake-up event), one result. */
	static u32 call[6];

	call[0] = big_endian(RTAS_POWER_OFF);
	call[1] = big_endian(2);
	call[2] = big_endian(1);
	flush();
	hypervisor_call(H_RTAS, (word)call & 0x0fffffffffffffff, 0, 0, 0);
	for (;;)
		;
}
#else
/* A Power Macintosh: port A of the serial controller, and the chip that turns the power off, behind a VIA. */
#define SERIAL_STATUS ((volatile u8 *)0x80013020)
#define SERIAL_DATA ((volatile u8 *)0x80013030)
#define VIA(number) ((volatile u8 *)(0x80016000 + (number) * 0x200))

static void print_byte(u8 byte)
{
	/* The transmitter's buffer is empty. */
	while (!(*SERIAL_STATUS & 4))
		;
	*SERIAL_DATA = byte;
}

static void __attribute__((noreturn)) power_off(void)
{
	/* A packet of two bytes: to the chip itself (1), power down (10). Port B says that a transfer is on (bit 5 low), and
	 * by a change of bit 4 that a byte is there. */
	*VIA(2) = 0x30;
	*VIA(0) = 0x30;
	*VIA(11) |= 0x10;
	*VIA(10) = 1;
	*VIA(0) = 0x10;
	*VIA(10) = 10;
	*VIA(0) = 0x00;
	*VIA(0) = 0x30;
	for (;;)
		;
}
#endif

static void print(const char *text)
{
	for (; *text; text++)
		print_byte(*text);
}

static void print_number(const char *name, word number)
{
	int shift = sizeof(number) * 8 - 4;

	print(name);
	print("=");
	while (shift && !(number >> shift))
		shift -= 4;
	for (; shift >= 0; shift -= 4)
		print_byte("0123456789abcdef"[number >> shift & 15]);
}

void unexpected_interrupt(word vector, word pc, word msr)
{
	print("QK unexpected ");
	print_number("vector", vector);
	print_number(" pc", pc);
	print_number(" msr", msr);
	print("\n");
	power_off();
}

/* All digits: a shift by a variable is a function that is not there, with 32 bits. */
static void print_fnv(u64 fnv)
{
	print(" fnv=");
	for (int digit = 0; digit < 16; digit++, fnv <<= 4)
		print_byte("0123456789abcdef"[fnv >> 60]);
}

static void print_register(word number)
{
	char name[4] = "r";

	if (number >= 10)
		name[1] = '0' + number / 10;
	name[number >= 10 ? 2 : 1] = '0' + number % 10;
	print(" ");
	print_number(name, state[number]);
}

void run_all(void)
{
	static const char *const others[] = { " cr", " xer", " ctr", " lr", " msr" };

#ifdef __LITTLE_ENDIAN__
	hypervisor_call(H_SET_MODE, 1, MODE_ENDIAN, 0, 0);
#endif
	/* The firmware left the cursor in a line. */
	print("\n");
	for (const struct snippet *snippet = table; snippet->function; snippet++)
		for (word run = 1; run <= snippet->runs; run++) {
			u64 fnv = 0xcbf29ce484222325;

			/* Known content: a byte each of a sequence that does not repeat with the page. */
			for (word i = 0, byte = 0x5a; i < sizeof(data); i++, byte = byte * 73 + 41)
				data[i] = byte;
			for (word i = 0; i < sizeof(snippet_stack); i++)
				snippet_stack[i] = 0;
			traps = retries = 0;
			call_snippet(snippet->function);
			for (word i = 0; i < sizeof(data); i++)
				fnv = (fnv ^ data[i]) * 0x100000001b3;
			print("QK ");
			print(snippet->name);
			print_number(" run", run);
			for (word i = 0; i < 32; i++)
				print_register(i);
			for (word i = 0; i < 5; i++)
				print_number(others[i], state[32 + i]);
			print_number(" traps", traps);
			print_fnv(fnv);
			print("\n");
		}
	print("QK end\n");
	power_off();
}
