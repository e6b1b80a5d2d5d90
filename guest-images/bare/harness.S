/* Calls each snippet of the table as often as the table says, always from the same state, and prints what it leaves:
 *   QK NAME run=1 rax=... ... r15=... flags=... traps=N irqs=N fnv=...
 * `fnv` is FNV-1a (64 bits) over the data area and the snippet's stack. Then `QK end`, and the machine is off.
 */
#include "bare.inc"

    .text
    .globl run_all, snippet_done, power_off, print, print_hex
run_all:
    /* The firmware left the cursor in a line. */
    lea newline(%rip), %rsi
    call print
    lea table(%rip), %rax
    mov %rax, entry(%rip)
next:
    mov entry(%rip), %rbx
    mov (%rbx), %rax
    test %rax, %rax
    jz finish
    mov %rax, function(%rip)
    movq $1, run(%rip)
again:
    /* Known content: a byte each of a sequence that does not repeat with the page. */
    lea data(%rip), %rdi
    mov $(areas_end - data), %ecx
    mov $0x5a, %eax
1:  mov %al, (%rdi)
    imul $73, %eax, %eax
    add $41, %eax
    inc %rdi
    dec %ecx
    jnz 1b
    movq $0, traps(%rip)
    movq $0, interrupts(%rip)
    movq $0, fix_rip(%rip)
    movq $0, fix_pte(%rip)
    pxor %xmm0, %xmm0
    pxor %xmm1, %xmm1
    /* A visit to user mode empties them. */
    mov $KERNEL_DS, %eax
    .irp segment, ds, es, fs, gs, ss
    mov %eax, %\segment
    .endr
    lea stack_start(%rip), %rsp
    push $2
    popfq
    mov $0xaaaa0000aaaa0001, %rax
    mov $0xcccc0000cccc0002, %rcx
    mov $0xdddd0000dddd0003, %rdx
    mov $0xbbbb0000bbbb0004, %rbx
    mov $0x5555000055550005, %rbp
    mov $0x5151000051510006, %rsi
    mov $0xd1d10000d1d10007, %rdi
    mov $0x0808000008080008, %r8
    mov $0x0909000009090009, %r9
    mov $0x101000001010000a, %r10
    mov $0x111100001111000b, %r11
    mov $0x121200001212000c, %r12
    mov $0x131300001313000d, %r13
    mov $0x141400001414000e, %r14
    mov $0x151500001515000f, %r15
    call *function(%rip)
    /* No flag changes until they are kept. */
snippet_done:
    .set offset, 0
    .irp name, rax, rbx, rcx, rdx, rsi, rdi, rbp, rsp, r8, r9, r10, r11, r12, r13, r14, r15
    mov %\name, state + offset(%rip)
    .set offset, offset + 8
    .endr
    lea boot_stack_top(%rip), %rsp
    pushfq
    cli
    cld
    mov entry(%rip), %rbx
    pop %rax
    and 24(%rbx), %rax
    mov %rax, state + 128(%rip)
    mov traps(%rip), %rax
    mov %rax, state + 136(%rip)
    mov interrupts(%rip), %rax
    mov %rax, state + 144(%rip)
    lea data(%rip), %rdi
    mov $(areas_end - data), %ecx
    mov $0xcbf29ce484222325, %rax
    mov $0x100000001b3, %r8
1:  movzbl (%rdi), %edx
    xor %rdx, %rax
    imul %r8, %rax
    inc %rdi
    dec %ecx
    jnz 1b
    mov %rax, state + 152(%rip)

    lea qk_text(%rip), %rsi
    call print
    mov 8(%rbx), %rsi
    call print
    lea run_text(%rip), %rsi
    call print
    mov run(%rip), %rax
    call print_hex
    lea state_names(%rip), %rsi
    lea state(%rip), %rdi
1:  call print
    mov (%rdi), %rax
    call print_hex
    add $8, %rdi
    cmpb $0, (%rsi)
    jne 1b
    lea newline(%rip), %rsi
    call print

    mov run(%rip), %rax
    inc %rax
    mov %rax, run(%rip)
    cmp 16(%rbx), %rax
    jbe again
    addq $32, entry(%rip)
    jmp next

finish:
    lea end_text(%rip), %rsi
    call print
/* S5 through the PIIX4's power management: QEMU ends as after a kernel's poweroff, so plugins finish. */
power_off:
    mov $0x604, %edx
    mov $0x2000, %eax
    out %ax, %dx
1:  hlt
    jmp 1b

/* The text at %rsi; leaves %rsi behind its zero. Changes rax, rdx. */
print:
    lodsb
    test %al, %al
    jz 1f
    call print_byte
    jmp print
1:  ret

/* %rax without leading zeros. Changes rax, rcx, rdx, r8, r9. */
print_hex:
    mov %rax, %r8
    bsr %rax, %rcx
    jnz 1f
    xor %ecx, %ecx
1:  and $~3, %ecx
2:  mov %r8, %rax
    shr %cl, %rax
    and $15, %eax
    lea digits(%rip), %r9
    mov (%r9, %rax), %al
    call print_byte
    sub $4, %ecx
    jns 2b
    ret

/* %al. Changes rax, rdx. */
print_byte:
    mov %al, %ah
    mov $COM1 + 5, %edx
    /* A byte that comes while QEMU cannot get rid of the last one would be lost. */
1:  in %dx, %al
    test $0x20, %al
    jz 1b
    mov $COM1, %edx
    mov %ah, %al
    out %al, %dx
    ret

    .section .rodata
    .globl newline
newline: .asciz "\n"
qk_text: .asciz "QK "
run_text: .asciz " run="
end_text: .asciz "QK end\n"
digits: .ascii "0123456789abcdef"
state_names:
    .irp name, rax, rbx, rcx, rdx, rsi, rdi, rbp, rsp, r8, r9, r10, r11, r12, r13, r14, r15, flags, traps, irqs, fnv
    .asciz " \name="
    .endr
    .byte 0

    .section .data
    .balign 8
entry: .quad 0
function: .quad 0
run: .quad 0
state: .skip 160

    .section .bss
    .balign 4096
    .globl data
data: .skip 1024
    .skip 2048
/* Room above: `ret $16` and frames that lie over the snippet's own. */
stack_start:
    .skip 1024
areas_end:
