/* Snippets: register windows. */
#include "bare.inc"

    .section .text.snippets, "ax"

SNIP save_restore, 20
    save %sp, -FRAME, %sp
    mov %i0, %l0
    add %l0, 1, %i0
    restore %i0, 2, %o1
    retl
     nop
END

/* A function with a frame of its own, which returns by `ret; restore`. */
SNIP frame, 20
    mov %o7, %g1
    mov 10, %o0
    call 1f
     mov 20, %o1
L back
    mov %g1, %o7
    retl
     nop
L callee
1:  save %sp, -FRAME, %sp
    add %i0, %i1, %l0
    ret
     restore %l0, 3, %o0
END

/* The same by `return`, whose slot is executed in the caller's window already. */
SNIP frame_return, 20
    mov %o7, %g1
    mov 10, %o0
    call 1f
     mov 20, %o1
L back
    mov %g1, %o7
    retl
     nop
L callee
1:  save %sp, -FRAME, %sp
    add %i0, %i1, %i0
    return %i7 + 8
     inc %o0
END

/* Deeper than there are windows: `save` is restarted after a spill, `restore` after a fill. */
SNIP deep, 5
    mov %o7, %g1
    call 1f
     mov 19, %o0
L back
    mov %g1, %o7
    retl
     nop
L save
1:  save %sp, -FRAME, %sp
L body
    brz,pn %i0, 2f
     mov 1, %o0
L call
    call 1b
     sub %i0, 1, %o0
L behind
2:  add %o0, %i0, %i0
    ret
L restore
     restore %i0, 0, %o0
END

/* The same, and the deepest call writes all windows to memory: every return is a fill. */
SNIP deep_flushw, 5
    mov %o7, %g1
    call 1f
     mov 4, %o0
L back
    mov %g1, %o7
    retl
     nop
L body
1:  save %sp, -FRAME, %sp
    brz,pn %i0, 2f
     mov 1, %o0
L call
    call 1b
     sub %i0, 1, %o0
    ba,a 3f
L flush
2:  flushw
L flushed
    nop
L behind
3:  add %o0, %i0, %i0
    ret
L restore
     restore %i0, 0, %o0
END

/* `return` with a fill, which is restarted with the branch still to come. */
SNIP fill_at_return, 5
    mov %o7, %g1
    call 1f
     mov 5, %o0
L back
    mov %g1, %o7
    retl
     nop
L callee
1:  save %sp, -FRAME, %sp
L flush
    flushw
L return
    return %i7 + 8
L slot
     inc %o0
END

/* A window that must be cleaned: `save` traps first, and finds it zero then. */
SNIP clean, 5
    wrpr %g0, 0, %cleanwin
L save
    save %sp, -FRAME, %sp
L cleaned
    add %l0, %l1, %i0
    restore
    retl
     nop
END
