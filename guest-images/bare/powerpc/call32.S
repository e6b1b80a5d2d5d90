/* Calls a snippet from a known state, and keeps the state that it leaves. */
#include "bare.inc"

    .section .text, "ax"
    .globl call_snippet, snippet_done
/* call_snippet(function) */
call_snippet:
    mflr 0
    stw 0, 4(1)
    stwu 1, -128(1)
    mfcr 0
    stw 0, 8(1)
    stw 2, 12(1)
    .irp register, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
    stw \register, 4 * \register - 36(1)
    .endr
    ADDRESS 4, kept
    stw 1, 0(4)
    mtctr 3
    li 0, 0
    mtxer 0
    mtcr 0
    .irp register, 0, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
    lis \register, 0x1111
    ori \register, \register, 0x101 * \register
    .endr
    ADDRESS 1, snippet_stack_top
    addi 1, 1, -512
    ADDRESS 2, data
    bctrl
snippet_done:
    mtsprg 0, 31
    ADDRESS 31, state
    .irp register, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30
    stw \register, 4 * \register(31)
    .endr
    mfsprg 0, 0
    stw 0, 4 * 31(31)
    mfcr 0
    stw 0, 4 * 32(31)
    mfxer 0
    stw 0, 4 * 33(31)
    mfctr 0
    stw 0, 4 * 34(31)
    mflr 0
    stw 0, 4 * 35(31)
    mfmsr 0
    stw 0, 4 * 36(31)
    ADDRESS 4, kept
    lwz 1, 0(4)
    .irp register, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
    lwz \register, 4 * \register - 36(1)
    .endr
    lwz 2, 12(1)
    lwz 0, 8(1)
    mtcr 0
    addi 1, 1, 128
    lwz 0, 4(1)
    mtlr 0
    blr
