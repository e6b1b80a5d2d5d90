/* Snippets: where execution goes. Branches with their delay slots, calls, jumps. */
#include "bare.inc"

    .section .text.snippets, "ax"

SNIP nops, 10
    nop
    nop
    retl
     nop
END

/* Taken: the slot is executed once, on the way. */
SNIP taken, 10
    cmp %g0, %g0
    be,pt %icc, 1f
L slot
     inc %o0
L not_taken
    retl
     inc %o1
L target
1:  retl
     inc %o2
END

SNIP untaken, 10
    cmp %g0, %g0
    bne,pt %icc, 1f
L slot
     inc %o0
L not_taken
    retl
     inc %o1
L target
1:  retl
     inc %o2
END

/* Annulled: only a taken conditional branch has a slot. */
SNIP annulled_taken, 10
    cmp %g0, %g0
    be,a,pt %xcc, 1f
L slot
     inc %o0
L not_taken
    retl
     inc %o1
L target
1:  retl
     inc %o2
END

SNIP annulled_untaken, 10
    cmp %g0, %g0
    bne,a,pn %xcc, 1f
L slot
     inc %o0
L not_taken
    retl
     inc %o1
L target
1:  retl
     inc %o2
END

SNIP always, 10
    ba 1f
L slot
     inc %o0
L never
    inc %o1
L target
1:  retl
     inc %o2
END

/* Annulled and unconditional: no slot. */
SNIP always_annulled, 10
    ba,a 1f
L slot
     inc %o0
    inc %o1
L target
1:  retl
     inc %o2
END

SNIP never, 10
    bn 1f
L slot
     inc %o0
L next
    retl
     inc %o1
L target
1:  retl
     inc %o2
END

SNIP never_annulled, 10
    bn,a 1f
L slot
     inc %o0
L next
    retl
     inc %o1
L target
1:  retl
     inc %o2
END

/* All conditions of the flags in %o5: each not taken sets a bit. */
    .macro CONDITIONS name, flags
SNIP \name, 3
    wr %g0, \flags, %ccr
    clr %o1
    .irp condition, ne, g, ge, gu, cc, pos, vc, e, le, l, leu, cs, neg, vs
    sllx %o1, 1, %o1
    b\condition 1f
     inc %o0
    L not_\condition
    or %o1, 1, %o1
    L after_\condition
1:  nop
    .endr
    retl
     nop
END
    .endm
CONDITIONS conditions_none, 0
CONDITIONS conditions_zero, 4
CONDITIONS conditions_negative, 8
/* 64-bit flags lie above; these must not count. */
CONDITIONS conditions_xcc, 0xf0

/* Branches on a register. */
SNIP on_register, 10
    clr %o0
    mov -5, %o1
    brz %o0, 1f
     inc %o2
L z_not_taken
    inc %o3
L z
1:  brnz,a %o0, 1f
L nz_slot
     inc %o2
L nz_not_taken
    inc %o3
1:  brlz,a %o1, 1f
     inc %o2
L lz_not_taken
    inc %o3
L lz
1:  brgez %o1, 1f
     inc %o2
L gez_not_taken
    inc %o3
L gez
1:  brlez,a %o0, 1f
     inc %o2
L lez_not_taken
    inc %o3
L lez
1:  brgz,a %o0, 1f
L gz_slot
     inc %o2
L gz_not_taken
    inc %o3
1:  retl
     nop
END

SNIP on_float, 10
    set data, %o0
    stx %g0, [%o0]
    ldd [%o0], %f0
    fcmpd %fcc0, %f0, %f0
    fcmpd %fcc2, %f0, %f0
    fbe 1f
     inc %o2
L e_not_taken
    inc %o3
L e
1:  fbne,a,pn %fcc2, 1f
L ne_slot
     inc %o2
L ne_not_taken
    inc %o3
1:  retl
     nop
END

SNIP loop, 20
    mov 5, %o0
    clr %o1
L body
1:  subcc %o0, 1, %o0
    bne 1b
     add %o1, %o0, %o1
L after
    retl
     nop
END

/* The slot of an annulled backward branch is the loop's first instruction once more, but not the last time. */
SNIP loop_annulled, 20
    mov 5, %o0
    clr %o1
    inc %o1
L body
1:  subcc %o0, 1, %o0
    bne,a 1b
L slot
     inc %o1
L after
    retl
     nop
END

/* A branch to itself: the slot counts down. */
SNIP loop_self, 20
    mov 7, %o0
L branch
1:  brgz,pt %o0, 1b
     dec %o0
L after
    retl
     nop
END

SNIP call_direct, 20
    mov %o7, %g1
    call 1f
     inc %o0
L back
    call 1f
     inc %o0
    mov %g1, %o7
    retl
     nop
L callee
1:  inc %o1
    retl
     inc %o2
END

SNIP call_register, 20
    mov %o7, %g1
    set 1f, %g2
    call %g2
     inc %o0
    jmpl %g2 + 0, %g3
     inc %o0
L over
    .word 0
L back
    mov %g1, %o7
    retl
     nop
L callee
1:  inc %o1
    /* The second caller linked elsewhere: its return address is skipped over by the third form of a return. */
    mov %g3, %g4
    brz,pn %g5, 2f
     clr %g5
L first
    retl
     inc %o2
L second
2:  jmp %g3 + 12
     inc %o2
END

/* A tail call: the callee returns to our caller. */
SNIP call_tail, 20
    mov %o7, %g1
    call 1f
     mov %g1, %o7
L never
    .word 0
L callee
1:  retl
     inc %o1
END

/* The address of the instruction itself, behind a branch as well. */
SNIP read_pc, 10
    rd %pc, %o0
    ba,pt %xcc, 1f
     rd %pc, %o1
L never
    rd %pc, %o2
L target
1:  rd %pc, %o3
    bn,pt %xcc, 2f
     rd %pc, %o4
2:  retl
     rd %pc, %o5
END

/* A branch in the slot of a branch: one instruction at the first target, then on at the second. */
SNIP couple, 20
    ba 1f
     ba 2f
L never
    inc %o0
L one
1:  inc %o1
L behind_one
    inc %o2
L two
2:  retl
     inc %o3
END

SNIP couple_jump, 20
    set 1f, %g1
    set 2f, %g2
    jmp %g1
     jmp %g2
L never
    inc %o0
L one
1:  inc %o1
L behind_one
    inc %o2
L two
2:  retl
     inc %o3
END

/* The second one is not taken: on behind the first target. */
SNIP couple_untaken, 20
    cmp %g0, %g0
    ba 1f
     bne 2f
L never
    inc %o0
L one
1:  inc %o1
    retl
     inc %o2
L two
2:  retl
     inc %o3
END

/* The first one is not taken, so the second one is an ordinary branch. */
SNIP couple_first_untaken, 20
    cmp %g0, %g0
    bne 1f
     ba 2f
L slot
     inc %o0
L one
1:  inc %o1
L two
2:  retl
     inc %o3
END

/* A call in the slot of a branch: the return goes behind the first target. */
SNIP couple_call, 20
    mov %o7, %g1
    mov 2, %g2
    ba 1f
     call 2f
L never
    inc %o0
    .word 0
L one
1:  inc %o1
L behind_one
    inc %o2
L two
2:  mov %g1, %o7
    retl
     inc %o3
END

/* The same, with a first branch on flags: taken, so the second one is in its slot. */
SNIP couple_on_flags, 20
    cmp %g0, %g0
    be 1f
     ba 2f
L never
    inc %o0
L one
1:  inc %o1
L behind_one
    inc %o2
L two
2:  retl
     inc %o3
END

/* Taken, so its slot is not annulled. */
SNIP couple_annulled_taken, 20
    cmp %g0, %g0
    be,a 1f
     ba 2f
L never
    inc %o0
L one
1:  inc %o1
L behind_one
    inc %o2
L two
2:  retl
     inc %o3
END

/* Not taken: the second branch is annulled. */
SNIP couple_annulled_untaken, 20
    cmp %g0, %g0
    bne,a 1f
L slot
     ba 2f
L next
    retl
     inc %o0
L one
1:  inc %o1
L two
2:  retl
     inc %o3
END

/* What the second branch would annul is at the target of the first: it is taken, and that is executed. */
SNIP couple_annuls_taken, 20
    cmp %g0, %g0
    ba 1f
     be,a 2f
L never
    inc %o0
L one
1:  inc %o1
L behind_one
    inc %o2
L two
2:  retl
     inc %o3
END

/* It is not taken: on behind that. */
SNIP couple_annuls_untaken, 20
    cmp %g0, %g0
    ba 1f
     bne,a 2f
L never
    inc %o0
L one
1:  inc %o1
L behind_one
    retl
     inc %o2
L two
2:  retl
     inc %o3
END

/* Always, and so without a slot. */
SNIP couple_annuls_always, 20
    ba 1f
     ba,a 2f
L never
    inc %o0
L one
1:  inc %o1
L behind_one
    inc %o2
L two
2:  retl
     inc %o3
END

/* Each in the slot of the one before it: one instruction, a transfer, at the first target, one at the second, and on at the third. */
SNIP couple_of_three, 20
    ba 1f
     ba 2f
L never
    inc %o0
L one
1:  ba 3f
L behind_one
     inc %o1
L two
2:  inc %o2
L behind_two
    inc %o3
L three
3:  retl
     inc %o4
END
