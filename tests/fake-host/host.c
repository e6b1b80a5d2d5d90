/*
 * A program in the shape of a QEMU of a given plugin API version, for versions that no distribution ships any more
 * (or not yet). It loads a plugin as QEMU's loader does, then plays a short life of a guest: two vCPUs on threads of
 * their own, blocks that are translated and executed, a flush, safepoints, the end. What it exports, what it calls, and
 * with which arguments, is that version's shape: a plugin that takes an argument from the wrong place crashes or
 * counts wrong. Where QEMU would misbehave silently (registers read in a callback that was registered without them, an
 * array that must grow at a hit), this host says so and ends with 3.
 *
 * Build: gcc -DAPI=5 [-DDISCON=0] [-DSHAPE=5] -rdynamic -pthread host.c -ldl
 *     DISCON: whether there are discontinuity callbacks (QEMU 10.1 and 10.2 are both API 5).
 *     SHAPE: the callbacks' shape if it is not that of API, for a test of the tests.
 * Usage: host PLUGIN.so system|user TARGET EXECUTIONS [plugin argument]...
 *     The environment variable HOST_INSTALLS=2 installs the plugin twice.
 *
 * The guest:
 *   - instructions of 4 bytes from 0xffffffff81000000 on, four a block, three blocks;
 *   - vCPU 0 executes them all EXECUTIONS times, vCPU 1 twice as often, half of it before and half after the flush;
 *   - registers hold 0x1000 * vcpu + their index in `names`;
 *   - memory below 0x1000 faults, at HOSTILE lies a text that a terminal must not see, at STACK the address of the ninth
 *     instruction, at WINDOW zeroes that may be written, elsewhere each byte is the low byte of its address;
 *   - a register that is written keeps its value; a program counter that is set is where the vCPU goes on.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef API
#error "define API, the plugin API version: 1 to 7"
#endif
#ifndef SHAPE
#define SHAPE API
#endif
#ifndef DISCON
#define DISCON (API >= 5)
#endif

/* What the plugin reads to tell API 6 from 7; found in read-only data, as in QEMU. */
#if API == 7
#define RELEASE "11.1.3"
#elif API == 6
#define RELEASE "11.0.1"
#elif API == 5 && DISCON
#define RELEASE "10.2.0"
#elif API == 5
#define RELEASE "10.1.0"
#elif API == 4
#define RELEASE "9.2.0"
#elif API == 3
#define RELEASE "9.1.0"
#elif API == 2
#define RELEASE "9.0.0"
#else
#define RELEASE "8.2.0"
#endif
const char version_text[] = "QEMU emulator version " RELEASE " (fake)";

#define EXPORT __attribute__((visibility("default")))
#define ID 0x00c0ffee00000001ull
#define BASE 0xffffffff81000000ull
#define HOSTILE 0xffff888000001000ull
#define STACK 0xffff888000002000ull
#define WINDOW 0xffffffff82000000ull
#define WINDOW_BYTES 64
#define PER_BLOCK 4
#define BLOCKS 3
#define INSNS (BLOCKS * PER_BLOCK)
#define VCPUS 2
#define NO_VCPU (-1)
#define CHECK(what) do { if (!(what)) { fail(#what, __LINE__); } } while (0)

static _Noreturn void fail(const char *what, int line)
{
    fprintf(stderr, "host: line %d: not so: %s\n", line, what);
    _Exit(3);
}

/* What the running thread does: decides what the plugin may call. */
static __thread int current_vcpu = NO_VCPU;
static __thread int current_flags;
static __thread int current_block = -1;
#if API >= 6
/* QEMU's loop over blocks, to which set_pc jumps. */
static __thread jmp_buf vcpu_loop;
#endif
static __thread int next_insn;

/* glib, as far as it is needed. */
typedef struct { uint8_t *data; unsigned len; unsigned room; } ByteArray;
typedef struct { char *data; unsigned len; unsigned element; } Array;

EXPORT ByteArray *g_byte_array_sized_new(unsigned room)
{
    ByteArray *array = calloc(1, sizeof *array);
    array->data = malloc(room + 1);
    array->room = room;
    return array;
}
EXPORT unsigned g_array_get_element_size(Array *array) { return array->element; }
EXPORT char *g_array_free(Array *array, int data)
{
    if (data) {
        free(array->data);
    }
    free(array);
    return NULL;
}

/* What a plugin registered: a callback and, since API 7, its userdata. */
typedef void (*Generic)(void);
typedef struct { Generic call; void *userdata; } Callback;
static Callback cb_init, cb_resume, cb_syscall, cb_flush, cb_atexit, cb_trans;
#if DISCON
static Callback cb_discon;
#endif

#if API >= 7
#define REGISTER(name, slot) EXPORT void name(uint64_t id, Generic cb, void *userdata) \
    { CHECK(id == ID); slot = (Callback){ cb, userdata }; }
#else
#define REGISTER(name, slot) EXPORT void name(uint64_t id, Generic cb) \
    { CHECK(id == ID); slot = (Callback){ cb, NULL }; }
#endif
REGISTER(qemu_plugin_register_vcpu_init_cb, cb_init)
REGISTER(qemu_plugin_register_vcpu_resume_cb, cb_resume)
REGISTER(qemu_plugin_register_vcpu_syscall_ret_cb, cb_syscall)
REGISTER(qemu_plugin_register_vcpu_tb_trans_cb, cb_trans)
REGISTER(qemu_plugin_register_flush_cb, cb_flush)
EXPORT void qemu_plugin_register_atexit_cb(uint64_t id, Generic cb, void *userdata)
{
    CHECK(id == ID);
    cb_atexit = (Callback){ cb, userdata };
}
/* Nothing in this life of a guest has a reason for it. */
EXPORT void qemu_plugin_reset(uint64_t id, Generic cb) { (void)id; (void)cb; CHECK(!"reset"); }

/* Blocks. */
typedef struct { int block; } Tb;
typedef struct { int index; } Insn;
static Insn insns[INSNS];
/* `nop dword [rax+0]`, the same everywhere. */
static const uint8_t insn_bytes[4] = { 0x0f, 0x1f, 0x40, 0x00 };
static uint8_t ram[INSNS * 4];

EXPORT size_t qemu_plugin_tb_n_insns(const Tb *tb) { CHECK(tb->block == current_block); return PER_BLOCK; }
EXPORT Insn *qemu_plugin_tb_get_insn(const Tb *tb, size_t index)
{
    CHECK(tb->block == current_block);
    return index < PER_BLOCK ? &insns[tb->block * PER_BLOCK + index] : NULL;
}
static int index_of(const Insn *insn)
{
    CHECK(insn->index / PER_BLOCK == current_block);
    return insn->index;
}
EXPORT uint64_t qemu_plugin_insn_vaddr(const Insn *insn) { return BASE + 4 * (uint64_t)index_of(insn); }
EXPORT void *qemu_plugin_insn_haddr(const Insn *insn) { return ram + 4 * index_of(insn); }
EXPORT size_t qemu_plugin_insn_size(const Insn *insn) { CHECK(index_of(insn) >= 0); return 4; }
#if API >= 3
EXPORT size_t qemu_plugin_insn_data(const Insn *insn, void *out, size_t len)
{
    len = len < 4 ? len : 4;
    memcpy(out, ram + 4 * index_of(insn), len);
    return len;
}
#else
EXPORT const void *qemu_plugin_insn_data(const Insn *insn) { return ram + 4 * index_of(insn); }
#endif

/* Scoreboards: API 2. QEMU starts with 16 vCPUs. */
typedef struct { char *cells; size_t element; } Scoreboard;
typedef struct { Scoreboard *score; size_t offset; } Entry;
static uint64_t *cell(Entry entry, size_t vcpu)
{
    CHECK(entry.offset + 8 <= entry.score->element);
    return (uint64_t *)(entry.score->cells + vcpu * entry.score->element + entry.offset);
}

/* What an instruction does besides executing. */
typedef struct { void (*call)(unsigned, void *); int flags; void *userdata; Entry entry; } Planted;
static Planted planted[INSNS][8];

static Planted *place_for(Insn *insn)
{
    int index = index_of(insn);
    for (int i = 0; i < 7; i++) {
        Planted *place = &planted[index][i];
        if (!place->call && !place->entry.score) {
            return place;
        }
    }
    CHECK(!"an instruction has room for what is planted");
    return NULL;
}
/* How many callbacks were registered with each flag. */
static unsigned callbacks[4];
EXPORT void qemu_plugin_register_vcpu_insn_exec_cb(Insn *insn, void (*call)(unsigned, void *), int flags, void *userdata)
{
    /* QEMU before 11.0 aborts at 3. */
    CHECK(call && flags >= 0 && flags <= (API >= 6 ? 3 : 2));
    callbacks[flags]++;
    *place_for(insn) = (Planted){ call, flags, userdata, { NULL, 0 } };
}

#if API >= 2
EXPORT int qemu_plugin_num_vcpus(void) { return VCPUS; }
EXPORT Scoreboard *qemu_plugin_scoreboard_new(size_t element)
{
    Scoreboard *score = malloc(sizeof *score);
    *score = (Scoreboard){ calloc(16, element), element };
    return score;
}
EXPORT uint64_t qemu_plugin_u64_sum(Entry entry)
{
    uint64_t sum = 0;
    for (size_t vcpu = 0; vcpu < VCPUS; vcpu++) {
        sum += *cell(entry, vcpu);
    }
    return sum;
}
EXPORT void qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(Insn *insn, int op, Entry entry, uint64_t value)
{
    /* Adding 1 is all that this host knows. */
    CHECK(op == 0 && value == 1);
    *place_for(insn) = (Planted){ NULL, 0, NULL, entry };
}

/* Registers: API 6 appends a flag to the descriptor. */
static const char *const names[] = {
    "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
    "rip", "eflags", "cs", "ss",
};
#define NAMES (sizeof names / sizeof *names)
#define RIP 16
/* Values that a plugin wrote. */
static struct { bool is; uint64_t value; } written[VCPUS][NAMES];
EXPORT Array *qemu_plugin_get_registers(void)
{
    CHECK(current_vcpu != NO_VCPU);
    unsigned element = API >= 6 ? 32 : 24;
    unsigned count = NAMES;
    Array *array = malloc(sizeof *array);
    *array = (Array){ calloc(count, element), count, element };
    for (unsigned i = 0; i < count; i++) {
        const void *entry[3] = { (void *)(uintptr_t)(i + 1), names[i], "org.gnu.gdb.i386.core" };
        memcpy(array->data + i * element, entry, sizeof entry);
    }
    return array;
}
/* Appends, as QEMU does. Returns how many bytes. */
static int read_register(void *handle, ByteArray *out)
{
    /* In QEMU the values are stale otherwise, or the call fails. */
    CHECK(current_vcpu != NO_VCPU && current_flags >= 1);
    uintptr_t index = (uintptr_t)handle - 1;
    CHECK(index < NAMES);
    uint64_t value = 0x1000ull * (uint64_t)current_vcpu + index;
    if (written[current_vcpu][index].is) {
        value = written[current_vcpu][index].value;
    }
    CHECK(out->len + 8 <= out->room);
    memcpy(out->data + out->len, &value, 8);
    out->len += 8;
    return 8;
}
#if API >= 6
EXPORT bool qemu_plugin_read_register(void *handle, ByteArray *out) { return read_register(handle, out) > 0; }
#else
EXPORT int qemu_plugin_read_register(void *handle, ByteArray *out) { return read_register(handle, out); }
#endif
#if API >= 5
static int write_register(void *handle, const ByteArray *in)
{
    /* QEMU looks at no length, and does not sync back what a callback without this flag writes. */
    CHECK(current_vcpu != NO_VCPU && current_flags >= 2 && in->len == 8);
    uintptr_t index = (uintptr_t)handle - 1;
    /* At the program counter QEMU aborts. */
    CHECK(index < NAMES && index != RIP);
    written[current_vcpu][index].is = true;
    memcpy(&written[current_vcpu][index].value, in->data, 8);
    return 8;
}
#endif
#if API >= 6
EXPORT bool qemu_plugin_write_register(void *handle, ByteArray *in) { return write_register(handle, in) > 0; }
#elif API == 5
EXPORT int qemu_plugin_write_register(void *handle, ByteArray *in) { return write_register(handle, in); }
#endif
#endif

#if API >= 3
EXPORT void qemu_plugin_register_vcpu_insn_exec_cond_cb(void) { CHECK(!"a conditional callback"); }
#endif

#if API >= 4
static uint8_t window[WINDOW_BYTES];
static uint8_t memory(uint64_t addr)
{
    static const uint64_t target = BASE + 8 * 4;
    if (addr - STACK < sizeof target) {
        return ((const uint8_t *)&target)[addr - STACK];
    }
    if (addr - WINDOW < WINDOW_BYTES) {
        return __atomic_load_n(&window[addr - WINDOW], __ATOMIC_RELAXED);
    }
    static const char hostile[] = "\033]0;owned\007\033[2J\r\nuser\tname\033[31m \"q\" \\ \233 \302\233 \303\274";
    return addr - HOSTILE < sizeof hostile ? (uint8_t)hostile[addr - HOSTILE] : (uint8_t)addr;
}
/* Replaces the array's content, and changes its length even when it fails, as QEMU does. */
EXPORT bool qemu_plugin_read_memory_vaddr(uint64_t addr, ByteArray *out, size_t len)
{
    CHECK(current_vcpu != NO_VCPU);
    if (len == 0) {
        return false;
    }
    CHECK(len <= out->room);
    out->len = (unsigned)len;
    for (size_t i = 0; i < len; i++) {
        if (addr + i < 0x1000) {
            return false;
        }
        out->data[i] = memory(addr + i);
    }
    return true;
}
#endif

#if API >= 5
EXPORT bool qemu_plugin_write_memory_vaddr(uint64_t addr, ByteArray *in)
{
    CHECK(current_vcpu != NO_VCPU && current_flags >= 2);
    CHECK(addr - WINDOW < WINDOW_BYTES && in->len <= WINDOW_BYTES - (addr - WINDOW));
    for (unsigned i = 0; i < in->len; i++) {
        __atomic_store_n(&window[addr - WINDOW + i], in->data[i], __ATOMIC_RELAXED);
    }
    return true;
}
#endif

#if DISCON
#if API >= 7
EXPORT void qemu_plugin_register_vcpu_discon_cb(uint64_t id, int kind, Generic cb, void *userdata)
{
#else
EXPORT void qemu_plugin_register_vcpu_discon_cb(uint64_t id, int kind, Generic cb)
{
    void *userdata = NULL;
#endif
    CHECK(id == ID && kind != 0);
    /* From within a translation QEMU would deadlock. */
    CHECK(current_block < 0);
    cb_discon = (Callback){ cb, userdata };
}
#endif

#if API >= 6
/* Never returns, as in QEMU. */
EXPORT int qemu_plugin_set_pc(uint64_t pc)
{
    CHECK(current_vcpu != NO_VCPU && current_flags == 3);
    CHECK(pc - BASE < INSNS * 4 && pc % 4 == 0);
    next_insn = (int)(pc - BASE) / 4;
    longjmp(vcpu_loop, 1);
}
#endif

/* Calls in the version's shape. */
static void call_vcpu(Callback cb)
{
    if (cb.call) {
#if SHAPE >= 7
        ((void (*)(unsigned, void *))cb.call)((unsigned)current_vcpu, cb.userdata);
#else
        ((void (*)(uint64_t, unsigned))cb.call)(ID, (unsigned)current_vcpu);
#endif
    }
}
static void call_trans(int block)
{
    Tb tb = { block };
    current_block = block;
    if (cb_trans.call) {
#if SHAPE >= 7
        ((void (*)(Tb *, void *))cb_trans.call)(&tb, cb_trans.userdata);
#else
        ((void (*)(uint64_t, Tb *))cb_trans.call)(ID, &tb);
#endif
    }
    current_block = -1;
}
static void call_flush(void)
{
    memset(planted, 0, sizeof planted);
    if (cb_flush.call) {
#if SHAPE >= 7
        ((void (*)(void *))cb_flush.call)(cb_flush.userdata);
#else
        ((void (*)(uint64_t))cb_flush.call)(ID);
#endif
    }
}
static void call_discon(int kind)
{
#if DISCON
    if (cb_discon.call) {
#if SHAPE >= 7
        ((void (*)(unsigned, int, uint64_t, uint64_t, void *))cb_discon.call)(
            (unsigned)current_vcpu, kind, BASE, BASE + 8, cb_discon.userdata);
#else
        ((void (*)(uint64_t, unsigned, int, uint64_t, uint64_t))cb_discon.call)(
            ID, (unsigned)current_vcpu, kind, BASE, BASE + 8);
#endif
    }
#else
    (void)kind;
#endif
}
static void call_atexit(void)
{
    if (cb_atexit.call) {
#if SHAPE >= 7
        ((void (*)(void *))cb_atexit.call)(cb_atexit.userdata);
#else
        ((void (*)(uint64_t, void *))cb_atexit.call)(ID, cb_atexit.userdata);
#endif
    }
}

/* From the next instruction to the last one. */
static void execute_once(void)
{
#if API >= 6
    if (setjmp(vcpu_loop)) {
        current_flags = 0;
    }
#endif
    while (next_insn < INSNS) {
        for (const Planted *p = planted[next_insn]; p->call || p->entry.score; p++) {
            if (p->call) {
                current_flags = p->flags;
                p->call((unsigned)current_vcpu, p->userdata);
                current_flags = 0;
            } else {
                *cell(p->entry, (size_t)current_vcpu) += 1;
            }
        }
        next_insn++;
    }
}

static void execute(long times)
{
    for (long n = 0; n < times; n++) {
        next_insn = 0;
        execute_once();
    }
}

/* The guest's life, on both vCPUs' threads. */
static pthread_barrier_t together;
static long executions;

static void *live(void *argument)
{
    current_vcpu = (int)(intptr_t)argument;
    long times = executions * (current_vcpu + 1);
    bool first = current_vcpu == 0;
    /* One after the other, as under QEMU's big lock. */
    for (int vcpu = 0; vcpu < VCPUS; vcpu++) {
        if (vcpu == current_vcpu) {
            call_vcpu(cb_init);
        }
        pthread_barrier_wait(&together);
    }
    for (int block = 0; first && block < BLOCKS; block++) {
        call_trans(block);
    }
    pthread_barrier_wait(&together);
    execute(times / 2);
    call_vcpu(cb_resume);
    call_discon(1);
    call_discon(2);
    pthread_barrier_wait(&together);
    /* A flush drops every block; the other vCPU translates and instruments them again. */
    if (first) {
        call_flush();
    }
    pthread_barrier_wait(&together);
    for (int block = BLOCKS - 1; !first && block >= 0; block--) {
        call_trans(block);
    }
    pthread_barrier_wait(&together);
    execute(times - times / 2);
    return NULL;
}

typedef struct {
    const char *target_name;
    struct { int min, cur; } version;
    bool system_emulation;
    struct { int smp, max; } system;
} Info;

int main(int argc, char **argv)
{
    if (argc < 5) {
        fprintf(stderr, "usage: %s PLUGIN.so system|user TARGET EXECUTIONS [argument]...\n", argv[0]);
        return 2;
    }
    void *plugin = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
    if (!plugin) {
        fprintf(stderr, "host: %s\n", dlerror());
        return 2;
    }
    int (*install)(uint64_t, const Info *, int, char **) = (int (*)(uint64_t, const Info *, int, char **))
        dlsym(plugin, "qemu_plugin_install");
    int *version = dlsym(plugin, "qemu_plugin_version");
    int min = API == 7 ? 7 : API >= 2 ? 2 : 0;
    if (!install || !version || *version < min || *version > API) {
        fprintf(stderr, "host: plugin version %d outside %d..%d\n", version ? *version : -1, min, API);
        return 2;
    }
    printf("host: QEMU %s, API %d, plugin chose %d\n", version_text + 22, API, *version);
    fflush(stdout);
    for (int i = 0; i < INSNS; i++) {
        insns[i].index = i;
        memcpy(ram + 4 * i, insn_bytes, 4);
    }
    bool system = !strcmp(argv[2], "system");
    /* In user mode nobody fills the last member. */
    int vcpus = system ? VCPUS : -1;
    Info info = { argv[3], { min, API }, system, { vcpus, vcpus } };
    const char *installs = getenv("HOST_INSTALLS");
    for (int n = installs ? atoi(installs) : 1; n > 0; n--) {
        int status = install(ID, &info, argc - 5, argv + 5);
        if (status) {
            printf("host: install refused with %d\n", status);
            return 1;
        }
    }
    atexit(call_atexit);
    executions = atol(argv[4]);
    pthread_barrier_init(&together, NULL, VCPUS);
    pthread_t threads[VCPUS];
    for (intptr_t vcpu = 0; vcpu < VCPUS; vcpu++) {
        pthread_create(&threads[vcpu], NULL, live, (void *)vcpu);
    }
    for (int vcpu = 0; vcpu < VCPUS; vcpu++) {
        pthread_join(threads[vcpu], NULL);
    }
    printf("host: callbacks by flags: %u %u %u %u\n", callbacks[0], callbacks[1], callbacks[2], callbacks[3]);
    printf("host: the guest ended\n");
    return 0;
}
