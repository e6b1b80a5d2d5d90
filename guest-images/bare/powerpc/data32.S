/* Snippets: loads, stores, what is atomic, arithmetic, with 32 bits. r2 is the address of the data. */
#include "bare.inc"

    .section .text.snippets, "ax"

SNIP loads, 20
    lbz 3, 1(2)
    lhz 4, 2(2)
    lha 5, 6(2)
    lwz 6, 8(2)
    li 9, 24
    lwzx 10, 2, 9
    lwbrx 11, 2, 9
    lhbrx 12, 2, 9
    mr 14, 2
    lbzu 15, 33(14)
    lwzu 16, 7(14)
    lhau 17, 8(14)
    lwzux 18, 14, 9
    lswi 20, 14, 7
    blr
END

SNIP stores, 20
    stb 3, 1(2)
    sth 4, 2(2)
    stw 5, 4(2)
    li 9, 24
    stwx 7, 2, 9
    stwbrx 8, 2, 9
    mr 14, 2
    stwu 10, 32(14)
    stwux 12, 14, 9
    sthbrx 13, 2, 9
    addi 15, 2, 200
    stswi 20, 15, 7
    blr
END

/* Several registers at once. */
SNIP multiple, 20
L load
    lmw 24, 4(2)
L store
    stmw 26, 64(2)
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
    blr
END

/* The first try fails: a store elsewhere takes the reservation away. */
SNIP reserve_lost, 20
    li 5, 0
    addi 6, 2, 128
L again
1:  lwarx 3, 0, 2
    cmpwi 5, 0
    bne 2f
L lose
    li 5, 1
    stwcx. 3, 0, 6
    stwcx. 3, 0, 2
    b 3f
L keep
2:  addi 3, 3, 1
    stwcx. 3, 0, 2
L check
3:  bne- 1b
L after
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
    mullw 21, 3, 4
    mulhw 22, 3, 4
    divw 23, 5, 4
    divwu. 24, 6, 4
    addic. 27, 3, -1
    mulli 28, 3, 77
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
    rlwnm 22, 4, 3, 1, 30
    slw 25, 4, 3
    sraw. 26, 4, 9
    srawi. 27, 4, 9
    extsb 28, 5
    cntlzw 29, 6
    blr
END

SNIP conditions, 20
    cmpw 3, 4
    cmplwi 1, 3, 7
    cmplwi 2, 3, 7
    crand 12, 0, 4
    crorc 13, 1, 5
    mcrf 4, 0
    mfcr 6
    mtcrf 0x0f, 7
    mtxer 3
    mcrxr 2
    mfxer 10
    blr
END
