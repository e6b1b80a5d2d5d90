/* From the firmware to the harness: a mapping of our own, our trap table, known windows.
 *
 * OpenBIOS loads the image at its physical address, enters it at an address of its own choice (0x40004000), and serves
 * TLB misses by its trap table. Ours has nothing to serve: one locked page of 4 MB in each TLB covers the image where it is
 * linked.
 */
#include "bare.inc"

    ASI_IMMU = 0x50
    ASI_ITLB_DATA_IN = 0x54
    ASI_DMMU = 0x58
    ASI_DTLB_DATA_IN = 0x5c
    TLB_TAG_ACCESS = 0x30

    .section .text.boot, "ax"
    .globl _start
_start:
    /* Privileged, floating point on, no interrupts. */
    wrpr %g0, 0x14, %pstate
    wrpr %g0, 15, %pil
    wr %g0, 4, %fprs
    wrpr %g0, 0, %tl
    sethi %hi(0x400000), %g1
    mov TLB_TAG_ACCESS, %g2
    /* Valid, 4 MB, locked, cached, privileged, writable. */
    setx 0xe000000000400076, %g4, %g3
    stxa %g1, [%g2] ASI_DMMU
    membar #Sync
    stxa %g3, [%g0] ASI_DTLB_DATA_IN
    membar #Sync
    stxa %g1, [%g2] ASI_IMMU
    membar #Sync
    stxa %g3, [%g0] ASI_ITLB_DATA_IN
    membar #Sync
    flush %g1
    set 1f, %g1
    jmp %g1
    nop
1:  sethi %hi(trap_table), %g1
    wrpr %g1, %tba
    wrpr %g0, 0, %cwp
    wrpr %g0, 0, %canrestore
    wrpr %g0, 6, %cansave
    wrpr %g0, 0, %otherwin
    wrpr %g0, 7, %cleanwin
    wrpr %g0, 0, %wstate
    set stack_top - BIAS - FRAME, %sp
    clr %fp
    call run_all
    nop
