/* Snippets: where execution goes. */
#include "bare.inc"

    .section .text.snippets, "ax"

SNIP nops, 10
    nop
    nop
    blr
END

SNIP jump, 10
    b 2f
L never
    addi 3, 3, 1
L backward
1:  addi 4, 4, 1
    blr
L forward
2:  addi 5, 5, 1
    b 1b
END

/* All conditions of a field of the condition register: each not taken sets a bit. */
    .macro CONDITIONS name, field, value
SNIP \name, 3
    lis 3, \value
    mtcrf 0xff, 3
    li 4, 0
    .irp condition, lt, le, eq, ge, gt, ne, so, ns
    add 4, 4, 4
    b\condition \field, 1f
    L not_\condition
    ori 4, 4, 1
    L after_\condition
1:  nop
    .endr
    blr
END
    .endm
CONDITIONS less, 0, 0x8000
CONDITIONS greater, 1, 0x0400
CONDITIONS equal_overflow, 2, 0x0030

/* The counter decides: it is counted down first. */
SNIP loop, 20
    li 3, 5
    mtctr 3
    li 4, 0
L body
1:  addi 4, 4, 1
    bdnz 1b
L after
    blr
END

SNIP loop_self, 20
    li 3, 9
    mtctr 3
L branch
1:  bdnz 1b
L after
    blr
END

SNIP loop_wraps, 20
    li 3, 0
    mtctr 3
    li 4, 0
    /* 0 becomes the highest number. */
    bdnz 1f
L not_taken
    addi 4, 4, 1
L taken
1:  blr
END

SNIP counter_zero, 20
    li 3, 1
    mtctr 3
    bdz 1f
L not_taken
    addi 4, 4, 1
L taken
1:  li 3, 2
    mtctr 3
    bdz 2f
L two
    addi 4, 4, 2
2:  blr
END

/* Counter and condition: both must agree. */
SNIP counter_and_condition, 20
    li 3, 5
    mtctr 3
    li 4, 0
L until_three
1:  addi 4, 4, 1
    cmpwi 4, 3
    bdnzf eq, 1b
L three
    li 3, 3
    mtctr 3
    li 5, 0
L until_zero
2:  addi 5, 5, 1
    cmpwi 5, 100
    bdnzf eq, 2b
L zero
    li 3, 1
    mtctr 3
    cmpw 3, 3
    bdzt eq, 3f
L zt_not_taken
    addi 6, 6, 1
L zt
3:  li 3, 1
    mtctr 3
    bdzf eq, 4f
L zf_not_taken
    addi 6, 6, 2
4:  li 3, 2
    mtctr 3
    bdnzt eq, 5f
L nzt_not_taken
    addi 6, 6, 4
L nzt
5:  blr
END

SNIP call_direct, 20
    mflr 12
    bl 1f
L back
    bl 1f
    mtlr 12
    blr
L callee
1:  addi 3, 3, 1
    blr
END

/* Only where the link register is set does a conditional branch call; it is set in any case. */
SNIP call_conditional, 20
    mflr 12
    li 3, 0
    cmpwi 3, 0
    beql 1f
L back
    bnel 1f
    mflr 4
    mtlr 12
    blr
L callee
1:  addi 3, 3, 1
    blr
END

SNIP call_register, 20
    mflr 12
    ADDRESS 4, snip_call_register.callee
    mtctr 4
    bctrl
L back
    mtlr 4
    blrl
    cmpw 4, 4
    beqctrl
    bnectrl
    mtlr 12
    blr
L callee
    addi 3, 3, 1
    blr
END

/* The address of the code: a call that is none. */
SNIP where_am_i, 20
    mflr 12
    bcl 20, 31, 1f
1:  mflr 3
    bl 2f
L link
2:  mflr 4
    mtlr 12
    blr
END

SNIP return_conditional, 20
    cmpw 3, 3
    bnelr
L equal
    beqlr
L never
    addi 3, 3, 1
    blr
END

SNIP return_counted, 20
    mflr 12
    li 3, 2
    mtctr 3
    bl 1f
L back
    mtlr 12
    blr
L callee
1:  bdzlr
L again
    bdnzlr
L counted
    blr
END

SNIP tail_call, 20
    ADDRESS 4, snip_tail_call.callee
    mtctr 4
    bctr
L never
    addi 3, 3, 1
L callee
    addi 5, 5, 1
    blr
END

#ifdef __powerpc64__
/* Every other kind of target register, and a jump by a condition. */
SNIP by_target_register, 20
    ADDRESS 4, snip_by_target_register.one
    mtspr 815, 4
    bctar 20, 0, 0
L never
    addi 3, 3, 1
L one
    ADDRESS 4, snip_by_target_register.two
    mtctr 4
    cmpw 4, 4
    bnectr
L equal
    beqctr
L never_too
    addi 3, 3, 2
L two
    blr
END
#endif

/* Frames, as the ABI has them. */
SNIP recursion, 5
    mflr 12
    li 3, 7
    bl 1f
L back
    mtlr 12
    blr
L enter
1:  mflr 0
    STORE 0, 16(1)
    STORE_UPDATE 1, -48(1)
    STORE 3, 32(1)
    COMPARE_IMMEDIATE 3, 0
    beq 2f
L call
    addi 3, 3, -1
    bl 1b
L leave
2:  LOAD 4, 32(1)
    add 3, 3, 4
    addi 1, 1, 48
    LOAD 0, 16(1)
    mtlr 0
    blr
END
