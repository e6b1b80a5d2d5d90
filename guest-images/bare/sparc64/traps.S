/* The trap table: windows are spilled and filled, some traps are counted and skipped, software traps do what snippets
 * ask of them, and all others end the guest.
 */
#include "bare.inc"

/* Handlers have globals of their own (PSTATE.AG), so what they change there is not seen. */
    .macro COUNT
    sethi %hi(traps), %g1
    ldx [%g1 + %lo(traps)], %g2
    add %g2, 1, %g2
    stx %g2, [%g1 + %lo(traps)]
    .endm

    .macro UNEXPECTED count=1
    .rept \count
    rdpr %tt, %g1
    ba,a,pt %xcc, unexpected
    .balign 32
    .endr
    .endm

    .macro SKIPPED
    COUNT
    done
    .balign 32
    .endm

    .macro SPILL
    stx %l0, [%sp + BIAS + 0x00]
    stx %l1, [%sp + BIAS + 0x08]
    stx %l2, [%sp + BIAS + 0x10]
    stx %l3, [%sp + BIAS + 0x18]
    stx %l4, [%sp + BIAS + 0x20]
    stx %l5, [%sp + BIAS + 0x28]
    stx %l6, [%sp + BIAS + 0x30]
    stx %l7, [%sp + BIAS + 0x38]
    stx %i0, [%sp + BIAS + 0x40]
    stx %i1, [%sp + BIAS + 0x48]
    stx %i2, [%sp + BIAS + 0x50]
    stx %i3, [%sp + BIAS + 0x58]
    stx %i4, [%sp + BIAS + 0x60]
    stx %i5, [%sp + BIAS + 0x68]
    stx %i6, [%sp + BIAS + 0x70]
    stx %i7, [%sp + BIAS + 0x78]
    saved
    sethi %hi(spills), %g1
    ldx [%g1 + %lo(spills)], %g2
    add %g2, 1, %g2
    stx %g2, [%g1 + %lo(spills)]
    retry
    .balign 128
    .endm

    .macro FILL
    ldx [%sp + BIAS + 0x00], %l0
    ldx [%sp + BIAS + 0x08], %l1
    ldx [%sp + BIAS + 0x10], %l2
    ldx [%sp + BIAS + 0x18], %l3
    ldx [%sp + BIAS + 0x20], %l4
    ldx [%sp + BIAS + 0x28], %l5
    ldx [%sp + BIAS + 0x30], %l6
    ldx [%sp + BIAS + 0x38], %l7
    ldx [%sp + BIAS + 0x40], %i0
    ldx [%sp + BIAS + 0x48], %i1
    ldx [%sp + BIAS + 0x50], %i2
    ldx [%sp + BIAS + 0x58], %i3
    ldx [%sp + BIAS + 0x60], %i4
    ldx [%sp + BIAS + 0x68], %i5
    ldx [%sp + BIAS + 0x70], %i6
    ldx [%sp + BIAS + 0x78], %i7
    restored
    sethi %hi(fills), %g1
    ldx [%g1 + %lo(fills)], %g2
    add %g2, 1, %g2
    stx %g2, [%g1 + %lo(fills)]
    retry
    .balign 128
    .endm

/* Half of the table; each entry has 32 bytes, windows have four entries at once. */
    .macro HALF
    UNEXPECTED 0x10
    SKIPPED                     /* 0x10: illegal instruction */
    UNEXPECTED 0x13
    /* 0x24: clean window */
    rdpr %cleanwin, %g1
    add %g1, 1, %g1
    wrpr %g1, 0, %cleanwin
    .irp register, l0, l1, l2, l3, l4, l5, l6, l7, o0, o1, o2, o3, o4, o5, o6, o7
    clr %\register
    .endr
    COUNT
    retry
    .balign 128
    SKIPPED                     /* 0x28: division by zero */
    UNEXPECTED 0xb
    SKIPPED                     /* 0x34: address not aligned */
    UNEXPECTED 0x4b
    SPILL                       /* 0x80: normal, by %wstate 0 */
    UNEXPECTED 0x3c
    FILL                        /* 0xc0 */
    UNEXPECTED 0x3c
    UNEXPECTED 0x10             /* 0x100: software traps */
    SKIPPED                     /* TRAP_COUNT */
    ba,pt %xcc, trap_add
    nop
    .balign 32
    ba,pt %xcc, trap_twice
    nop
    .balign 32
    ba,pt %xcc, trap_skip
    nop
    .balign 32
    UNEXPECTED 0xec
    .endm

    .section .text.traps, "ax"
    .globl trap_table
trap_table:
    HALF
    .org trap_table + 0x4000
    HALF
    .org trap_table + 0x8000

/* Registers of the window are the snippet's own. */
trap_add:
    COUNT
    add %o0, 0x100, %o0
    done

/* The first time it is tried again, the second time it is over. */
trap_twice:
    COUNT
    sethi %hi(twice), %g1
    ldx [%g1 + %lo(twice)], %g2
    brnz,pt %g2, 1f
    nop
    mov 1, %g2
    stx %g2, [%g1 + %lo(twice)]
    retry
1:  stx %g0, [%g1 + %lo(twice)]
    done

/* The instruction behind it is left out. */
trap_skip:
    COUNT
    rdpr %tnpc, %g1
    add %g1, 4, %g1
    wrpr %g1, 0, %tnpc
    done

/* %g1: what it was. The firmware's serial port and power switch are all that is needed to say so. */
unexpected:
    rdpr %tpc, %g2
    rdpr %tl, %g3
    wrpr %g0, 0x14, %pstate
    rdpr %tt, %o0
    rdpr %tpc, %o1
    wrpr %g0, 0, %tl
    wrpr %g0, 0, %canrestore
    wrpr %g0, 6, %cansave
    set stack_top - BIAS - FRAME, %sp
    call unexpected_trap
    nop
