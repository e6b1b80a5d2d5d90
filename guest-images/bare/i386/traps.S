/* Exceptions and interrupts. A snippet says beforehand how it wants its fault handled; anything else ends the run. */
#include "bare.inc"

    .text
    .macro TRAP vector:req, error_code=0, dpl=0
    .pushsection .rodata
    .long 1f
    .word \vector, 0x8e00 + (\dpl << 13)
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
    TRAP 4, dpl=3
    TRAP 5
    TRAP 6
    TRAP 7
    TRAP 8, error_code=1
    TRAP 10, error_code=1
    TRAP 11, error_code=1
    TRAP 12, error_code=1
    TRAP 13, error_code=1
    TRAP 14, error_code=1
    TRAP 0x20
    TRAP 0x80, dpl=3
    TRAP 0x81, dpl=3

    .pushsection .rodata
    .long 0
    .popsection

trap:
    push %eax
    push %ecx
    /* 0 ecx, 4 eax, 8 vector, 12 error code, 16 eip, 20 cs, 24 flags; from user mode 28 esp, 32 ss */
    incl traps
    mov 8(%esp), %eax
    cmp $1, %eax
    je debug
    cmp $3, %eax
    je out
    cmp $4, %eax
    je out
    cmp $0x80, %eax
    je out
    cmp $0x81, %eax
    je user_gave_up
    cmp $0x20, %eax
    je timer
    /* The snippet wants to go on elsewhere. */
    mov fix_ip, %ecx
    test %ecx, %ecx
    jz 1f
    movl $0, fix_ip
    mov %ecx, 16(%esp)
    jmp out
1:  cmp $14, %eax
    jne unexpected
    /* The snippet wants the page, and the instruction again. */
    mov fix_pte, %ecx
    test %ecx, %ecx
    jz unexpected
    movl $0, fix_pte
    movl $(fault_page - KBASE + 3), (%ecx)
    jmp out
/* A step or a breakpoint: RF lets the instruction of a breakpoint run. */
debug:
    orl $0x10000, 24(%esp)
    jmp out
timer:
    incl interrupts
    mov $0xff, %al
    out %al, $0x21
    mov $0x20, %al
    out %al, $0x20
out:
    pop %ecx
    pop %eax
    add $8, %esp
    iret

/* int $0x81 in user mode: the kernel goes on where the snippet said, on its stack. */
user_gave_up:
    pop %ecx
    pop %eax
    mov kernel_sp, %esp
    jmp *kernel_ip

unexpected:
    mov %esp, %ebx
    mov %cr2, %eax
    push %eax
    push 16(%ebx)
    push 8(%ebx)
    call unexpected_trap

    .section .data
    .balign 4096
fault_page:
    .rept 1024
    .long snip_pf_map.callee
    .endr
