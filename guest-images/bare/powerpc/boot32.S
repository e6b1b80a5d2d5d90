/* From the firmware of a Power Macintosh to the harness: the place, the translation, the vectors. */
#include "bare.inc"

/* A physical address. */
    .macro PHYSICAL register, symbol
    lis \register, (\symbol - KBASE)@h
    ori \register, \register, (\symbol - KBASE)@l
    .endm

    .section .text.vectors, "ax"
    .globl _start
/* The firmware translates one to one. */
_start:
    bl 2f
2:  mflr 3
    addi 3, 3, _start - 2b
    addi 4, 3, 3f - _start
    mtsrr0 4
    /* ME alone: no interrupts, no translation. */
    li 5, 0x1000
    mtsrr1 5
    rfi
3:  PHYSICAL 5, load_end
    b copy

/* What comes at a vector: without translation. r29 to r31 are free. */
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

    .irp address, 0x100, 0x200, 0x300, 0x400, 0x500
    UNEXPECTED \address
    .endr
    VECTOR 0x600, skip
    VECTOR 0x700, program
    .irp address, 0x800, 0x900
    UNEXPECTED \address
    .endr
    VECTOR 0xc00, system_call
    .irp address, 0xd00, 0xf00, 0xf20, 0x1000, 0x1100, 0x1200, 0x1300, 0x1400, 0x1600, 0x1700
    UNEXPECTED \address
    .endr

    .org 0x2000
/* r3: where we are, r5: how many bytes. The target is physical memory from 0 on; we are above it. */
copy:
    li 6, 0
4:  lwzx 7, 3, 6
    stwx 7, 0, 6
    addi 6, 6, 4
    cmplw 6, 5
    blt 4b
    sync
    isync
    /* At 0xc0000000 the first 256 MB; and one to one, uncached and guarded, the devices at 0x80000000. */
    li 0, 0
    .irp bat, 528, 530, 532, 534, 536, 538, 540, 542
    mtspr \bat, 0
    .endr
    lis 4, 0xc000
    ori 4, 4, 0x1ffe
    li 5, 0x12
    mtspr 529, 5                /* IBAT0 */
    mtspr 528, 4
    mtspr 537, 5                /* DBAT0 */
    mtspr 536, 4
    lis 4, 0x8000
    ori 4, 4, 0x1ffe
    lis 5, 0x8000
    ori 5, 5, 0x2a
    mtspr 539, 5                /* DBAT1 */
    mtspr 538, 4
    isync
    ADDRESS 4, begin
    mtsrr0 4
    /* ME, IR, DR, RI. */
    li 5, 0x1032
    mtsrr1 5
    rfi

begin:
    ADDRESS 3, bss_start
    ADDRESS 4, bss_end
    li 0, 0
5:  stw 0, 0(3)
    addi 3, 3, 4
    cmplw 3, 4
    blt 5b
    ADDRESS 1, stack_top
    addi 1, 1, -256
    bl run_all

    .macro COUNT
    PHYSICAL 31, traps
    lwz 30, 0(31)
    addi 30, 30, 1
    stw 30, 0(31)
    .endm

    .macro LEAVE
    mfsprg 31, 1
    mfsprg 30, 2
    mfsprg 29, 3
    rfi
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
    PHYSICAL 31, retries
    lwz 30, 0(31)
    cmpwi 30, 0
    beq 6f
    addi 30, 30, -1
    stw 30, 0(31)
    mtcr 29
    LEAVE
6:  mtcr 29
    mfsrr0 30
    addi 30, 30, 4
    mtsrr0 30
    LEAVE

system_call:
    COUNT
    addi 3, 3, 0x100
    LEAVE

/* To the harness, with translation. */
unexpected:
    mfsrr0 4
    mfsrr1 5
    ADDRESS 1, stack_top
    addi 1, 1, -256
    ADDRESS 6, unexpected_interrupt
    mtsrr0 6
    li 7, 0x1032
    mtsrr1 7
    rfi
