/* Snippets: traps, and returns from traps. */
#include "bare.inc"

    .section .text.snippets, "ax"

SNIP trap_counted, 20
    ta TRAP_COUNT
    mov TRAP_COUNT, %o0
    ta %o0
    cmp %g0, %g0
    te %xcc, TRAP_ADD
    tne %icc, TRAP_ADD
    retl
     nop
END

/* The handler has it tried again once. */
SNIP trap_retried, 20
    nop
L twice
    ta TRAP_TWICE
L after
    retl
     nop
END

SNIP trap_skips, 20
    ta TRAP_SKIP
L skipped
    inc %o0
L after
    retl
     nop
END

/* In the slot of a taken branch: the handler goes on at the branch's target. */
SNIP trap_in_slot, 20
    ba 1f
     ta TRAP_ADD
L never
    inc %o0
L target
1:  retl
     ta TRAP_ADD
END

/* Tried again in a slot: the branch is not executed again. */
SNIP trap_retried_in_slot, 20
    ba 1f
L twice
     ta TRAP_TWICE
L never
    inc %o0
L target
1:  retl
     nop
END

/* Faults that the handler skips. */
SNIP faults, 20
    set data, %g1
L illegal
    illtrap 7
L load
    ldx [%g1 + 1], %o0
L store
    stw %o0, [%g1 + 2]
L divide
    sdivx %o0, %g0, %o1
L after
    retl
     nop
END

SNIP fault_in_slot, 20
    set data, %g1
    ba,pt %xcc, 1f
L load
     ldx [%g1 + 4], %o0
L never
    inc %o1
L target
1:  retl
     nop
END

/* Returns from a trap that none was. */
    .macro ENTER_TRAP_LEVEL
    rd %ccr, %g1
    sllx %g1, 32, %g1
    rd %asi, %g2
    sllx %g2, 24, %g2
    or %g1, %g2, %g1
    rdpr %pstate, %g2
    sllx %g2, 8, %g2
    or %g1, %g2, %g1
    rdpr %cwp, %g2
    or %g1, %g2, %g1
    wrpr %g0, 1, %tl
    wrpr %g1, 0, %tstate
    .endm

SNIP retry_away, 20
    ENTER_TRAP_LEVEL
    set 1f, %g1
    wrpr %g1, 0, %tpc
    add %g1, 4, %g1
    wrpr %g1, 0, %tnpc
    retry
L never
    inc %o0
L target
1:  inc %o1
    retl
     nop
END

SNIP done_away, 20
    ENTER_TRAP_LEVEL
    set 1f, %g1
    wrpr %g0, 0, %tpc
    wrpr %g1, 0, %tnpc
    done
L never
    inc %o0
L target
1:  inc %o1
    retl
     nop
END

/* One instruction here, the next one there: what a trap in a slot left. */
SNIP retry_in_slot, 20
    ENTER_TRAP_LEVEL
    set 1f, %g1
    set 2f, %g2
    wrpr %g1, 0, %tpc
    wrpr %g2, 0, %tnpc
    retry
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

SNIP privileged, 20
    rdpr %tl, %o0
    rdpr %tba, %o1
    wrpr %g0, 14, %pil
    rdpr %pil, %o2
    wrpr %g0, 15, %pil
    rdpr %ver, %o3
    /* The other globals: what is there belongs to the handlers. */
    rdpr %pstate, %o4
    wrpr %o4, 1, %pstate
    mov 5, %g5
    wrpr %o4, 0, %pstate
    wr %g0, 0x82, %asi
    rd %asi, %o5
    retl
     wr %g0, 0x80, %asi
END
