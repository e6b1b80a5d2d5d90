/* Snippets: loads, stores, what is atomic, arithmetic. */
#include "bare.inc"

    .section .text.snippets, "ax"

SNIP loads, 20
    set data, %g1
    ldub [%g1 + 1], %o0
    ldsb [%g1 + 2], %o1
    lduh [%g1 + 4], %o2
    ldsh [%g1 + 6], %o3
    lduw [%g1 + 8], %o4
    ldsw [%g1 + 12], %o5
    ldx [%g1 + 16], %l0
    ldd [%g1 + 24], %l2
    mov 32, %g2
    ldxa [%g1 + %g2] 0x80, %l4
    ldxa [%g1 + 40] %asi, %l5
    lduwa [%g1] 0x88, %l6
    retl
     nop
END

SNIP stores, 20
    set data, %g1
    stb %o0, [%g1 + 1]
    sth %o1, [%g1 + 2]
    stw %o2, [%g1 + 4]
    stx %o3, [%g1 + 8]
    std %o4, [%g1 + 16]
    stxa %l0, [%g1 + 24] %asi
    stwa %l1, [%g1] 0x88
    membar #Sync
    prefetch [%g1], #one_write
    retl
     stx %l2, [%g1 + 32]
END

/* A loop as locks have it: two more tries than the lock is held. */
SNIP ldstub_spin, 20
    set data, %g1
    mov 3, %o1
    mov 0xff, %o2
    stb %o2, [%g1]
L try
1:  ldstub [%g1], %o0
    brz,pn %o0, 2f
     nop
L held
    subcc %o1, 1, %o1
    bne,pt %icc, 1b
     nop
L release
    ba 1b
     stb %g0, [%g1]
L taken
2:  retl
     nop
END

/* Compare and swap, which fails once. */
SNIP casx_loop, 20
    set data, %g1
    ldx [%g1], %o0
    add %o0, 1, %o0
L again
1:  add %o0, 5, %o2
    mov %o2, %o3
    casx [%g1], %o0, %o2
    cmp %o0, %o2
    bne,a,pn %xcc, 1b
L slot
     mov %o2, %o0
L after
    retl
     nop
END

SNIP cas_swap, 20
    set data, %g1
    lduw [%g1], %o0
    mov 7, %o1
    cas [%g1], %o0, %o1
    mov 9, %o2
    swap [%g1], %o2
    mov 11, %o3
    swapa [%g1] 0x80, %o3
    retl
     nop
END

SNIP arithmetic, 20
    addcc %o0, %o1, %l0
    addccc %o0, %o1, %l1
    subcc %o1, %o0, %l2
    subccc %o1, %o0, %l3
    mulx %o0, %o1, %l4
    sdivx %o3, 77, %l5
    udivx %o3, 1000, %l6
    umul %o0, %o1, %l7
    rd %y, %i0
    wr %o0, %g0, %y
    udiv %o1, 1001, %i1
    sra %o1, 3, %i2
    srlx %o1, 3, %i3
    sllx %o1, 9, %i4
    andncc %o1, %o0, %i5
    retl
     sethi %hi(0x12345400), %o5
END

SNIP conditional_moves, 20
    cmp %g0, 1
    move %icc, 1, %o0
    movne %icc, 2, %o1
    movl %xcc, 3, %o2
    movgu %xcc, 4, %o3
    movrz %g0, 5, %o4
    movrlz %o0, 6, %o5
    retl
     nop
END
