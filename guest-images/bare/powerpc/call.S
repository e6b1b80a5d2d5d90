/* Calls a snippet from a known state, and keeps the state that it leaves; and the one call of the hypervisor. */
#include "bare.inc"

    .section .text, "ax"
    .globl call_snippet, snippet_done, hypervisor_call
/* call_snippet(function) */
call_snippet:
    mflr 0
    std 0, 16(1)
    mfcr 0
    std 0, 8(1)
    stdu 1, -256(1)
    .irp register, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
    std \register, 8 * \register - 64(1)
    .endr
    std 2, 240(1)
    ADDRESS 4, kept
    std 1, 0(4)
    mtctr 3
    li 0, 0
    mtxer 0
    mtcr 0
    .irp register, 0, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
    lis \register, 0x1111
    ori \register, \register, 0x101 * \register
    sldi \register, \register, 30
    ori \register, \register, 0x11 * \register
    .endr
    ADDRESS 1, snippet_stack_top
    addi 1, 1, -512
    ADDRESS 2, data
    bctrl
snippet_done:
    mtsprg 0, 31
    ADDRESS 31, state
    .irp register, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30
    std \register, 8 * \register(31)
    .endr
    mfsprg 0, 0
    std 0, 8 * 31(31)
    mfcr 0
    std 0, 8 * 32(31)
    mfxer 0
    std 0, 8 * 33(31)
    mfctr 0
    std 0, 8 * 34(31)
    mflr 0
    std 0, 8 * 35(31)
    mfmsr 0
    std 0, 8 * 36(31)
    ADDRESS 4, kept
    ld 1, 0(4)
    ld 2, 240(1)
    .irp register, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
    ld \register, 8 * \register - 64(1)
    .endr
    addi 1, 1, 256
    ld 0, 8(1)
    mtcr 0
    ld 0, 16(1)
    mtlr 0
    blr

/* hypervisor_call(number, arguments...) */
hypervisor_call:
    sc 1
    blr
