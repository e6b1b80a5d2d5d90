/* Exceptions and interrupts. A snippet says beforehand how it wants its fault handled; anything else ends the run. */
#include "bare.inc"

    .text
    .macro TRAP vector:req, error_code=0, dpl=0, ist=0
    .pushsection .rodata
    .quad 1f
    .word \vector, 0x8e00 + (\dpl << 13) + \ist
    .long 0
    .popsection
1:
    .ifeq \error_code
    push $0
    .endif
    push $\vector
    jmp trap
    .endm

    .pushsection .rodata
    .balign 8
    .globl traps_table
traps_table:
    .popsection

    TRAP 0
    TRAP 1
    TRAP 3, dpl=3
    TRAP 6
    TRAP 7
    TRAP 8, error_code=1
    TRAP 10, error_code=1
    TRAP 11, error_code=1
    TRAP 12, error_code=1
    TRAP 13, error_code=1
    TRAP 14, error_code=1
    /* On a stack of its own: when it comes must not show on the snippet's. */
    TRAP 0x20, ist=1
    TRAP 0x80, dpl=3
    TRAP 0x81, dpl=3

    .pushsection .rodata
    .quad 0
    .popsection

trap:
    push %rax
    push %rcx
    /* 0 rcx, 8 rax, 16 vector, 24 error code, 32 rip, 40 cs, 48 flags, 56 rsp, 64 ss */
    incq traps(%rip)
    mov 16(%rsp), %rax
    cmp $1, %rax
    je debug
    cmp $3, %rax
    je out
    cmp $0x80, %rax
    je out
    cmp $0x81, %rax
    je user_gave_up
    cmp $0x20, %rax
    je timer
    /* The snippet wants to go on elsewhere. */
    mov fix_rip(%rip), %rcx
    test %rcx, %rcx
    jz 1f
    movq $0, fix_rip(%rip)
    mov %rcx, 32(%rsp)
    jmp out
1:  cmp $14, %rax
    jne unexpected
    /* The snippet wants the page, and the instruction again. */
    mov fix_pte(%rip), %rcx
    test %rcx, %rcx
    jz unexpected
    movq $0, fix_pte(%rip)
    mov $(fault_page - KBASE + 3), %eax
    mov %rax, (%rcx)
    jmp out
/* A step, a breakpoint or a watchpoint: RF lets the instruction of a breakpoint run. */
debug:
    orl $0x10000, 48(%rsp)
    jmp out
timer:
    incq interrupts(%rip)
    mov $0xff, %al
    out %al, $0x21
    mov $0x20, %al
    out %al, $0x20
out:
    pop %rcx
    pop %rax
    add $16, %rsp
    iretq

/* int $0x81 in user mode: the kernel goes on where the snippet said, on its stack. */
user_gave_up:
    pop %rcx
    pop %rax
    mov kernel_rsp(%rip), %rsp
    jmp *kernel_rip(%rip)

unexpected:
    mov %rsp, %rbx
    lea trap_text(%rip), %rsi
    call print
    mov 16(%rbx), %rax
    call print_hex
    lea rip_text(%rip), %rsi
    call print
    mov 32(%rbx), %rax
    call print_hex
    lea cr2_text(%rip), %rsi
    call print
    mov %cr2, %rax
    call print_hex
    lea newline(%rip), %rsi
    call print
    jmp power_off

    .section .rodata
trap_text: .asciz "QK unexpected trap="
rip_text: .asciz " rip="
cr2_text: .asciz " cr2="

    .section .data
    .balign 8
    .globl traps, interrupts, fix_rip, fix_pte, kernel_rsp, kernel_rip
traps: .quad 0
interrupts: .quad 0
fix_rip: .quad 0
fix_pte: .quad 0
kernel_rsp: .quad 0
kernel_rip: .quad 0

    .balign 4096
fault_page:
    .rept 512
    .quad snip_pf_map.callee
    .endr
