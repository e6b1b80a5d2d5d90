/* Snippets: loads, stores, what is atomic, arithmetic. r2 is the address of the data. */
#include "bare.inc"

    .section .text.snippets, "ax"

SNIP loads, 20
    lbz 3, 1(2)
    lhz 4, 2(2)
    lha 5, 6(2)
    lwz 6, 8(2)
    lwa 7, 12(2)
    ld 8, 16(2)
    li 9, 24
    ldx 10, 2, 9
    lwbrx 11, 2, 9
    ldbrx 12, 2, 9
    mr 14, 2
    lbzu 15, 33(14)
    lwzu 16, 7(14)
    ldu 17, 8(14)
    ldux 18, 14, 9
    lwax 19, 2, 9
    blr
END

SNIP stores, 20
    stb 3, 1(2)
    sth 4, 2(2)
    stw 5, 4(2)
    std 6, 8(2)
    li 9, 24
    stdx 7, 2, 9
    stwbrx 8, 2, 9
    mr 14, 2
    stwu 10, 32(14)
    stdu 11, 8(14)
    stdux 12, 14, 9
    sthbrx 13, 2, 9
    blr
END

/* Several registers at once. In little endian that is an alignment interrupt, which the handler skips. */
SNIP multiple, 20
L load
    .long 0xbb020004            /* lmw 24, 4(2), which the assembler knows in big endian only */
L store
    .long 0xbf420040            /* stmw 26, 64(2) */
L after
    blr
END

/* A whole block of the cache. */
SNIP cache, 20
    addi 3, 2, 256
    dcbz 0, 3
    dcbst 0, 3
    dcbf 0, 3
    dcbt 0, 3
    icbi 0, 3
    sync
    lwsync
    eieio
    isync
    blr
END

SNIP reserve, 20
L again
1:  lwarx 3, 0, 2
    addi 3, 3, 1
    stwcx. 3, 0, 2
    bne- 1b
L after
    ldarx 4, 0, 2
    stdcx. 4, 0, 2
    blr
END

/* The first try fails: a store elsewhere takes the reservation away. */
SNIP reserve_lost, 20
    li 5, 0
    addi 6, 2, 128
L again
1:  ldarx 3, 0, 2
    cmpwi 5, 0
    bne 2f
L lose
    li 5, 1
    stdcx. 3, 0, 6
    stdcx. 3, 0, 2
    b 3f
L keep
2:  addi 3, 3, 1
    stdcx. 3, 0, 2
L check
3:  bne- 1b
L after
    blr
END

/* Prefixed instructions: eight bytes. One ends where a line of 64 bytes ends; none may cross it. */
SNIP prefixed, 20
    paddi 3, 0, 0x12345678
    pld 4, 8(2), 0
    pstd 3, 40(2), 0
    plwz 5, 0(2), 0
    pli 6, -1
    paddi 7, 0, 8, 1
    blr
END

    .balign 64
SNIP prefixed_at_a_line, 20
    .rept 14
    nop
    .endr
L last
    paddi 3, 0, 0x7654321
L next_line
    paddi 4, 3, 1
    blr
END

SNIP arithmetic, 20
    addc. 14, 3, 4
    adde 15, 5, 6
    addze. 16, 7
    subf. 17, 3, 4
    subfc 18, 4, 3
    subfe 19, 5, 6
    neg 20, 3
    mulld 21, 3, 4
    mulhd 22, 3, 4
    divd 23, 5, 4
    divdu. 24, 6, 4
    divwu 25, 5, 4
    modsd 26, 5, 4
    addic. 27, 3, -1
    mulli 28, 3, 77
    addpcis 29, 1
    blr
END

SNIP logic, 20
    and. 14, 3, 4
    orc 15, 3, 4
    xoris 16, 3, 0x1234
    andi. 17, 3, 0xff
    nand 18, 5, 6
    eqv 19, 5, 6
    rlwinm. 20, 3, 5, 3, 27
    rlwimi 21, 3, 9, 8, 15
    rldicl 22, 4, 17, 23
    rldicr. 23, 4, 17, 23
    rldimi 24, 4, 8, 16
    sld 25, 4, 3
    sradi 26, 4, 9
    srawi. 27, 4, 9
    extsb 28, 5
    cntlzd 29, 6
    popcntd 30, 6
    blr
END

SNIP conditions, 20
    cmpd 3, 4
    cmplwi 1, 3, 7
    cmpldi 2, 3, 7
    crand 12, 0, 4
    crorc 13, 1, 5
    mcrf 4, 0
    isel 5, 3, 4, 0
    mfcr 6
    mtcrf 0x0f, 7
    mfocrf 8, 0x40
    setb 9, 1
    mtxer 3
    mcrxrx 2
    mfxer 10
    blr
END
