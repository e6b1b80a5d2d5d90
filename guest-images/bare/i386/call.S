/* Calls a snippet from a known state, and keeps the state that it leaves. */
#include "bare.inc"

    .text
    .globl call_snippet, snippet_done
/* call_snippet(function) */
call_snippet:
    mov 4(%esp), %eax
    mov %eax, function
    push %ebx
    push %esi
    push %edi
    push %ebp
    mov %esp, kept
    pxor %xmm0, %xmm0
    pxor %xmm1, %xmm1
    mov $stack_start, %esp
    push $2
    popf
    mov $0xaaaa0001, %eax
    mov $0xcccc0002, %ecx
    mov $0xdddd0003, %edx
    mov $0xbbbb0004, %ebx
    mov $0x55550005, %ebp
    mov $0x51510006, %esi
    mov $0xd1d10007, %edi
    call *function
    /* No flag changes until they are kept. */
snippet_done:
    .set offset, 0
    .irp name, eax, ebx, ecx, edx, esi, edi, ebp, esp
    mov %\name, state + offset
    .set offset, offset + 4
    .endr
    mov kept, %esp
    pushf
    pop state + 32
    cli
    cld
    /* A visit to user mode empties them. */
    mov $KERNEL_DS, %eax
    .irp segment, ds, es, fs, gs, ss
    mov %eax, %\segment
    .endr
    pop %ebp
    pop %edi
    pop %esi
    pop %ebx
    ret

    .section .data
    .balign 4
function: .long 0
kept: .long 0
