/* From the firmware to the harness: the byte order, the place, the vectors. */
#include "bare.inc"

/* A word of code for the other byte order. */
    .macro OTHER word
    .long ((\word & 0xff) << 24) | ((\word & 0xff00) << 8) | ((\word >> 8) & 0xff00) | ((\word >> 24) & 0xff)
    .endm

    .section .text.vectors, "ax"
    .globl _start
_start:
    /* In our byte order a trap that never is, in the other one a branch behind the branch. */
    tdi 0, 0, 0x48
    b 1f
    OTHER 0x7d6000a6            /* mfmsr r11 */
    OTHER 0x696b0001            /* xori r11, r11, 1: little endian or not */
    OTHER 0x39400000            /* li r10, 0 */
    OTHER 0x7d410164            /* mtmsrd r10, 1: no interrupt may come between */
    OTHER 0x429f0005            /* bcl 20, 31, .+4 */
    OTHER 0x7d4802a6            /* mflr r10 */
    OTHER 0x394a0014            /* addi r10, r10, 20: behind the rfid */
    OTHER 0x7d5a03a6            /* mtsrr0 r10 */
    OTHER 0x7d7b03a6            /* mtsrr1 r11 */
    OTHER 0x4c000024            /* rfid */
1:  bcl 20, 31, 2f
2:  mflr 3
    addi 3, 3, _start - 2b
    ADDRESS 4, _start
    ADDRESS 5, load_end
    subf 5, 4, 5
    b copy

/* What comes at a vector: with translation off, at the address of the vector itself. r29 to r31 are free. */
    .macro VECTOR address, handler
    .org \address
    mtsprg 1, 31
    mtsprg 2, 30
    mtsprg 3, 29
    b \handler
    .endm

    .macro UNEXPECTED address
    .org \address
    li 3, \address
    b unexpected
    .endm

    .irp address, 0x100, 0x200, 0x300, 0x380, 0x400, 0x480, 0x500
    UNEXPECTED \address
    .endr
    VECTOR 0x600, skip
    VECTOR 0x700, program
    .irp address, 0x800, 0x900, 0x980, 0xa00
    UNEXPECTED \address
    .endr
    VECTOR 0xc00, system_call
    .irp address, 0xd00, 0xe00, 0xe20, 0xe40, 0xf00, 0xf20, 0xf40, 0xf60, 0x1500
    UNEXPECTED \address
    .endr

    .org 0x2000
/* r3: where we are, r5: how many bytes. The target is physical memory from 0 on; we are above it. */
copy:
    li 6, 0
3:  ldx 7, 3, 6
    stdx 7, 0, 6
    addi 6, 6, 8
    cmpld 6, 5
    blt 3b
    sync
    /* The firmware left 32-bit mode on: MSR.SF. */
    mfmsr 3
    li 4, 1
    rldimi 3, 4, 63, 0
    mtmsrd 3
    ADDRESS 3, begin
    mtctr 3
    isync
    bctr

begin:
    ADDRESS 3, bss_start
    ADDRESS 4, bss_end
    li 0, 0
4:  std 0, 0(3)
    addi 3, 3, 8
    cmpld 3, 4
    blt 4b
    ADDRESS 1, stack_top
    addi 1, 1, -256
    ADDRESS 2, .TOC.
    /* Where a recoverable interrupt returns to is in SRR0 from now on. */
    li 3, 2
    mtmsrd 3, 1
    bl run_all

    .macro COUNT
    ADDRESS 31, traps
    ld 30, 0(31)
    addi 30, 30, 1
    std 30, 0(31)
    .endm

    .macro LEAVE
    mfsprg 31, 1
    mfsprg 30, 2
    mfsprg 29, 3
    rfid
    .endm

/* Behind the instruction. */
skip:
    COUNT
    mfsrr0 30
    addi 30, 30, 4
    mtsrr0 30
    LEAVE

/* The same, but as often as `retries` says it is tried again before. */
program:
    COUNT
    mfcr 29
    ADDRESS 31, retries
    ld 30, 0(31)
    cmpdi 30, 0
    beq 5f
    addi 30, 30, -1
    std 30, 0(31)
    mtcr 29
    LEAVE
5:  mtcr 29
    mfsrr0 30
    addi 30, 30, 4
    mtsrr0 30
    LEAVE

system_call:
    COUNT
    addi 3, 3, 0x100
    LEAVE

unexpected:
    mfsrr0 4
    mfsrr1 5
    ADDRESS 1, stack_top
    addi 1, 1, -256
    ADDRESS 2, .TOC.
    ADDRESS 6, unexpected_interrupt
    mtctr 6
    bctrl
