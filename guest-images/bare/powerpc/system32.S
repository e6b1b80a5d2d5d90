/* Snippets: interrupts, returns from them, the machine's state, with 32 bits. */
#include "bare.inc"

    .section .text.snippets, "ax"

SNIP system_call, 20
    sc
    sc
    blr
END

SNIP trap, 20
    cmpw 3, 4
L untaken
    twi 16, 3, 0
    twlgti 3, -1
L always
    trap
L equal
    tw 4, 3, 3
L after
    blr
END

/* The handler has it tried again: once, and twice. */
SNIP trap_retried, 20
    ADDRESS 3, retries
    li 4, 1
    stw 4, 0(3)
L twice
    trap
L between
    li 4, 2
    stw 4, 0(3)
L thrice
    trap
L after
    blr
END

SNIP illegal, 20
    nop
L illegal
    .long 0
L after
    blr
END

/* Floating point on and off again. */
SNIP machine_state, 20
    mfmsr 3
    xori 4, 3, 0x2000
    mtmsr 4
    mfmsr 5
    mtmsr 3
    mfmsr 7
    blr
END

SNIP return_from_interrupt, 20
    mfmsr 3
    mtsrr1 3
    ADDRESS 4, snip_return_from_interrupt.target
    mtsrr0 4
    rfi
L never
    addi 5, 5, 1
L target
    addi 6, 6, 1
    blr
END

/* Back to itself, until the counter ends it. */
SNIP return_loop, 20
    li 5, 4
    mfmsr 3
    ADDRESS 4, snip_return_loop.again
L again
    addi 5, 5, -1
    cmpwi 5, 0
    beq 1f
L return
    mtsrr1 3
    mtsrr0 4
    rfi
L never
    addi 6, 6, 1
L after
1:  blr
END

SNIP special_registers, 20
    mtsprg 3, 3
    mfsprg 4, 3
    mtctr 4
    mfctr 5
    mflr 6
    mtlr 5
    mflr 7
    mtlr 6
    mtdar 3
    mfdar 9
    blr
END
