/* Calls a snippet from a known state, and keeps the state that it leaves. */
#include "bare.inc"

    .section .text, "ax"
    .globl call_snippet, snippet_done
/* call_snippet(function) */
call_snippet:
    save %sp, -FRAME, %sp
    /* All windows but this one are in memory: six can be entered before the next spill. */
    flushw
    set kept, %g7
    stx %sp, [%g7]
    stx %fp, [%g7 + 8]
    stx %i7, [%g7 + 16]
    rdpr %cwp, %g1
    stx %g1, [%g7 + 24]
    mov %i0, %g6
    set traps, %g7
    stx %g0, [%g7]
    set spills, %g7
    stx %g0, [%g7]
    set fills, %g7
    stx %g0, [%g7]
    clr %g7
    wr %g0, 0, %y
    wr %g0, 0, %ccr
    wr %g0, 0x80, %asi
    .set value, 1
    .irp name, g1, g2, g3, g4, g5, o0, o1, o2, o3, o4, o5, l0, l1, l2, l3, l4, l5, l6, l7, i0, i1, i2, i3, i4, i5
    mov value * 0x21, %\name
    sllx %\name, 33, %o7
    or %o7, %\name, %\name
    .set value, value + 1
    .endr
    jmpl %g6, %o7
    nop
snippet_done:
    set state, %g7
    .set offset, 0
    .irp name, g1, g2, g3, g4, g5, o0, o1, o2, o3, o4, o5, o6, o7, l0, l1, l2, l3, l4, l5, l6, l7, i0, i1, i2, i3, i4, i5, i6, i7
    stx %\name, [%g7 + offset]
    .set offset, offset + 8
    .endr
    .irp name, y, ccr, asi, fprs
    rd %\name, %g1
    stx %g1, [%g7 + offset]
    .set offset, offset + 8
    .endr
    .irp name, cwp, cansave, canrestore, otherwin, cleanwin, wstate, tl, pil, pstate
    rdpr %\name, %g1
    stx %g1, [%g7 + offset]
    .set offset, offset + 8
    .endr
    .irp name, traps, spills, fills
    set \name, %g1
    ldx [%g1], %g1
    stx %g1, [%g7 + offset]
    .set offset, offset + 8
    .endr
    /* Whatever the snippet did to the windows: as before. */
    set kept, %g7
    ldx [%g7 + 24], %g1
    wrpr %g0, 0, %tl
    wrpr %g0, 0x14, %pstate
    wrpr %g1, %cwp
    wrpr %g0, 0, %canrestore
    wrpr %g0, 6, %cansave
    wrpr %g0, 0, %otherwin
    wrpr %g0, 7, %cleanwin
    wr %g0, 0x80, %asi
    ldx [%g7], %sp
    ldx [%g7 + 8], %fp
    ldx [%g7 + 16], %i7
    ret
    restore
