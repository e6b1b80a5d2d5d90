/*
 * A program in the shape of a QEMU of a given plugin API version, for versions that no distribution ships any more
 * (or not yet). It loads a plugin as QEMU's loader does, then plays a short life of a guest: two vCPUs, blocks that are
 * translated and executed, a flush, a safepoint, the end. What it calls, and with which arguments, is that version's
 * shape: a plugin that takes an argument from the wrong place crashes or counts wrong.
 *
 * Build: gcc -DAPI=5 -rdynamic host.c -ldl
 * Usage: host PLUGIN.so [system|user] TARGET EXECUTIONS [plugin argument]...
 *
 * The guest: instructions of 4 bytes from 0xffffffff81000000 on, four a block, three blocks. Registers hold
 * 0x1000 * vcpu + their index. Memory reads give the low byte of each address; addresses below 0x1000 fault.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef API
#error "define API, the plugin API version: 1 to 7"
#endif

/* What the plugin reads to tell API 6 from 7; found in read-only data, as in QEMU. */
#if API == 7
const char version_text[] = "QEMU emulator version 11.1.3 (fake)";
#elif API == 6
const char version_text[] = "QEMU emulator version 11.0.1 (fake)";
#elif API == 5
const char version_text[] = "QEMU emulator version 10.2.0 (fake)";
#else
const char version_text[] = "QEMU emulator version 9.2.0 (fake)";
#endif

#define EXPORT __attribute__((visibility("default")))
#define ID 0x00c0ffee00000001ull
#define USERDATA ((void *)0x5555000055550000ull)
#define BASE 0xffffffff81000000ull
#define PER_BLOCK 4
#define BLOCKS 3

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
static void append(ByteArray *array, const void *bytes, unsigned len)
{
    if (array->len + len > array->room) {
        fprintf(stderr, "host: the plugin's array has no room: %u + %u > %u\n", array->len, len, array->room);
        exit(3);
    }
    memcpy(array->data + array->len, bytes, len);
    array->len += len;
}

/* What a plugin registered. */
typedef void (*Generic)(void);
static Generic cb_init, cb_idle, cb_resume, cb_flush, cb_atexit, cb_trans, cb_discon;
typedef struct { void (*call)(unsigned, void *); void *userdata; uint64_t *count; } Planted;
static Planted planted[BLOCKS * PER_BLOCK][8];
static unsigned current_vcpu;

typedef struct { int block; } Tb;
typedef struct { int index; } Insn;
static Insn insns[BLOCKS * PER_BLOCK];
/* The text: `nop dword [rax+rax]` shortened to four bytes, the same for every instruction. */
static const uint8_t insn_bytes[4] = { 0x0f, 0x1f, 0x40, 0x00 };
static uint8_t ram[BLOCKS * PER_BLOCK * 4];

#if API >= 7
#define REGISTER(name, slot) EXPORT void name(uint64_t id, Generic cb, void *ud) \
    { if (id != ID) { abort(); } (void)ud; slot = cb; }
#else
#define REGISTER(name, slot) EXPORT void name(uint64_t id, Generic cb) { if (id != ID) { abort(); } slot = cb; }
#endif
REGISTER(qemu_plugin_register_vcpu_init_cb, cb_init)
REGISTER(qemu_plugin_register_vcpu_idle_cb, cb_idle)
REGISTER(qemu_plugin_register_vcpu_resume_cb, cb_resume)
REGISTER(qemu_plugin_register_vcpu_tb_trans_cb, cb_trans)
REGISTER(qemu_plugin_register_flush_cb, cb_flush)
EXPORT void qemu_plugin_register_atexit_cb(uint64_t id, Generic cb, void *ud)
{
    if (id != ID) {
        abort();
    }
    (void)ud;
    cb_atexit = cb;
}
EXPORT void qemu_plugin_reset(uint64_t id, Generic cb) { (void)id; (void)cb; }

EXPORT size_t qemu_plugin_tb_n_insns(const Tb *tb) { (void)tb; return PER_BLOCK; }
EXPORT Insn *qemu_plugin_tb_get_insn(const Tb *tb, size_t index) { return &insns[tb->block * PER_BLOCK + index]; }
EXPORT uint64_t qemu_plugin_insn_vaddr(const Insn *insn) { return BASE + 4 * (uint64_t)insn->index; }
EXPORT void *qemu_plugin_insn_haddr(const Insn *insn) { return ram + 4 * insn->index; }
EXPORT size_t qemu_plugin_insn_size(const Insn *insn) { (void)insn; return 4; }
EXPORT size_t qemu_plugin_insn_data(const Insn *insn, void *out, size_t len)
{
    (void)insn;
    len = len < 4 ? len : 4;
    memcpy(out, insn_bytes, len);
    return len;
}
static Planted *place_for(Insn *insn)
{
    for (int i = 0; i < 8; i++) {
        Planted *place = &planted[insn->index][i];
        if (!place->call && !place->count) {
            return place;
        }
    }
    abort();
}
EXPORT void qemu_plugin_register_vcpu_insn_exec_cb(Insn *insn, void (*call)(unsigned, void *), int flags, void *userdata)
{
    (void)flags;
    *place_for(insn) = (Planted){ call, userdata, NULL };
}

#if API >= 2
typedef struct { uint64_t *cells; size_t element; } Scoreboard;
typedef struct { Scoreboard *score; size_t offset; } Entry;
EXPORT Scoreboard *qemu_plugin_scoreboard_new(size_t element)
{
    Scoreboard *score = malloc(sizeof *score);
    score->element = element;
    score->cells = calloc(2, element);
    return score;
}
EXPORT uint64_t qemu_plugin_u64_sum(Entry entry)
{
    uint64_t sum = 0;
    for (size_t vcpu = 0; vcpu < 2; vcpu++) {
        sum += *(uint64_t *)((char *)entry.score->cells + vcpu * entry.score->element + entry.offset);
    }
    return sum;
}
EXPORT void qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(Insn *insn, int op, Entry entry, uint64_t value)
{
    if (op != 0 || value != 1) {
        abort();
    }
    /* One vCPU executes in this life of a guest: vCPU 1. */
    *place_for(insn) = (Planted){ NULL, NULL, (uint64_t *)((char *)entry.score->cells + entry.score->element + entry.offset) };
}

/* Registers: API 6 appends a flag to the descriptor. */
static const char *const names[] = {
    "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
    "rip", "eflags", "cs", "ss",
};
EXPORT Array *qemu_plugin_get_registers(void)
{
    unsigned element = API >= 6 ? 32 : 24;
    unsigned count = sizeof names / sizeof *names;
    Array *array = malloc(sizeof *array);
    *array = (Array){ calloc(count, element), count, element };
    for (unsigned i = 0; i < count; i++) {
        const void *entry[3] = { (void *)(uintptr_t)(i + 1), names[i], "org.gnu.gdb.i386.core" };
        memcpy(array->data + i * element, entry, sizeof entry);
    }
    return array;
}
#if API >= 6
EXPORT bool qemu_plugin_read_register(void *handle, ByteArray *out)
#else
EXPORT int qemu_plugin_read_register(void *handle, ByteArray *out)
#endif
{
    uint64_t value = 0x1000ull * current_vcpu + (uintptr_t)handle - 1;
    /* cs: kernel privilege. */
    if (!strcmp(names[(uintptr_t)handle - 1], "cs")) {
        value = 0x10;
    }
    append(out, &value, 8);
#if API >= 6
    return true;
#else
    return 8;
#endif
}
#endif
#if API >= 3
EXPORT void qemu_plugin_register_vcpu_insn_exec_cond_cb(void) { abort(); }
#endif
#if API >= 4
EXPORT bool qemu_plugin_read_memory_vaddr(uint64_t addr, ByteArray *out, size_t len)
{
    if (addr < 0x1000) {
        return false;
    }
    for (size_t i = 0; i < len; i++) {
        uint8_t byte = addr + i;
        append(out, &byte, 1);
    }
    return true;
}
#endif
#if API >= 5
EXPORT bool qemu_plugin_write_memory_vaddr(uint64_t addr, ByteArray *in) { (void)addr; (void)in; return true; }
#if API >= 7
EXPORT void qemu_plugin_register_vcpu_discon_cb(uint64_t id, int kind, Generic cb, void *ud)
{
    (void)ud;
#else
EXPORT void qemu_plugin_register_vcpu_discon_cb(uint64_t id, int kind, Generic cb)
{
#endif
    if (id != ID || !kind) {
        abort();
    }
    cb_discon = cb;
}
#endif
#if API >= 6
EXPORT void qemu_plugin_set_pc(uint64_t pc) { (void)pc; abort(); }
#endif

/* Calls in the version's shape. */
static void call_vcpu(Generic cb, unsigned vcpu)
{
    current_vcpu = vcpu;
    if (!cb) {
        return;
    }
#if API >= 7
    ((void (*)(unsigned, void *))cb)(vcpu, USERDATA);
#else
    ((void (*)(uint64_t, unsigned))cb)(ID, vcpu);
#endif
}
static void call_trans(int block)
{
    Tb tb = { block };
    if (!cb_trans) {
        return;
    }
#if API >= 7
    ((void (*)(Tb *, void *))cb_trans)(&tb, USERDATA);
#else
    ((void (*)(uint64_t, Tb *))cb_trans)(ID, &tb);
#endif
}
static void call_flush(void)
{
    memset(planted, 0, sizeof planted);
#if API >= 7
    ((void (*)(void *))cb_flush)(USERDATA);
#else
    ((void (*)(uint64_t))cb_flush)(ID);
#endif
}
static void call_discon(unsigned vcpu)
{
    if (!cb_discon) {
        return;
    }
#if API >= 7
    ((void (*)(unsigned, int, uint64_t, uint64_t, void *))cb_discon)(vcpu, 1, BASE, BASE + 8, USERDATA);
#else
    ((void (*)(uint64_t, unsigned, int, uint64_t, uint64_t))cb_discon)(ID, vcpu, 1, BASE, BASE + 8);
#endif
}
static void call_atexit(void)
{
#if API >= 7
    ((void (*)(void *))cb_atexit)(USERDATA);
#else
    ((void (*)(uint64_t, void *))cb_atexit)(ID, USERDATA);
#endif
}
static void execute(unsigned vcpu, long times)
{
    current_vcpu = vcpu;
    for (long n = 0; n < times; n++) {
        for (int i = 0; i < BLOCKS * PER_BLOCK; i++) {
            for (Planted *p = planted[i]; p->call || p->count; p++) {
                if (p->call) {
                    p->call(vcpu, p->userdata);
                } else {
                    *p->count += 1;
                }
            }
        }
    }
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
    int (*install)(uint64_t, const Info *, int, char **) = dlsym(plugin, "qemu_plugin_install");
    int *version = dlsym(plugin, "qemu_plugin_version");
    int min = API == 7 ? 7 : API >= 2 ? 2 : 0;
    printf("%.0s", version_text);
    if (!install || !version || *version < min || *version > API) {
        fprintf(stderr, "host: plugin version %d outside %d..%d\n", version ? *version : -1, min, API);
        return 2;
    }
    printf("host: API %d, plugin chose %d\n", API, *version);
    fflush(stdout);
    for (int i = 0; i < BLOCKS * PER_BLOCK; i++) {
        insns[i].index = i;
        memcpy(ram + 4 * i, insn_bytes, 4);
    }
    Info info = { argv[3], { min, API }, !strcmp(argv[2], "system"), { 2, 2 } };
    int status = install(ID, &info, argc - 5, argv + 5);
    if (status) {
        printf("host: install refused with %d\n", status);
        return 1;
    }
    long times = atol(argv[4]);
    call_vcpu(cb_init, 0);
    call_vcpu(cb_init, 1);
    for (int block = 0; block < BLOCKS; block++) {
        call_trans(block);
    }
    execute(1, times / 2);
    call_vcpu(cb_idle, 1);
    call_vcpu(cb_resume, 1);
    call_discon(1);
    /* A flush drops every block; they are translated and instrumented again. */
    call_flush();
    for (int block = 0; block < BLOCKS; block++) {
        call_trans(block);
    }
    execute(1, times - times / 2);
    call_atexit();
    return 0;
}
