/* From the PVH entry (no paging) to the harness: a page directory, descriptor tables, the timer. */
#include "bare.inc"

    .section .note.pvh, "a", @note
    /* XEN_ELFNOTE_PHYS32_ENTRY: where to begin. */
    .long 4, 4, 18
    .asciz "Xen"
    .long pvh_start - KBASE

    .section .text.boot, "ax"
    .globl pvh_start
    .type pvh_start, @function
pvh_start:
    cli
    cld
    mov $(boot_stack_top - KBASE), %esp
    /* The first 256 MB at 0 and at KBASE, in pages of 4 MB. */
    xor %ecx, %ecx
1:  mov %ecx, %eax
    shl $22, %eax
    or $0x83, %eax
    mov %eax, directory - KBASE(, %ecx, 4)
    mov %eax, directory - KBASE + 768 * 4(, %ecx, 4)
    inc %ecx
    cmp $64, %ecx
    jb 1b
    /* The user's code is a page of the image, its stack one of the data. */
    movl $(pt_user - KBASE + 7), directory - KBASE + (USER_VA >> 22) * 4
    movl $(user_page - KBASE + 5), pt_user - KBASE
    movl $(user_stack - KBASE + 7), pt_user - KBASE + 4
    /* PSE, SSE (OSFXSR, OSXMMEXCPT). */
    mov $0x610, %eax
    mov %eax, %cr4
    mov $(directory - KBASE), %eax
    mov %eax, %cr3
    /* PG, WP, NE, ET, MP, PE. */
    mov $0x80010033, %eax
    mov %eax, %cr0
    mov $high, %eax
    jmp *%eax
high:
    mov $boot_stack_top, %esp
    lgdt gdt_pointer
    ljmp $KERNEL_CS, $1f
1:  mov $KERNEL_DS, %eax
    .irp segment, ds, es, fs, gs, ss
    mov %eax, %\segment
    .endr
    /* The task state: a stack for interrupts of user mode. */
    movl $int_stack_top, tss + 4
    movl $KERNEL_DS, tss + 8
    mov $tss, %eax
    mov %ax, gdt + TSS + 2
    shr $16, %eax
    mov %al, gdt + TSS + 4
    mov %ah, gdt + TSS + 7
    mov $TSS, %eax
    ltr %ax
    /* Gates: from the list of handlers. */
    mov $traps_table, %esi
1:  mov (%esi), %eax
    test %eax, %eax
    jz 2f
    movzwl 4(%esi), %edi
    movzwl 6(%esi), %edx
    lea idt(, %edi, 8), %edi
    mov %ax, (%edi)
    movw $KERNEL_CS, 2(%edi)
    mov %dx, 4(%edi)
    shr $16, %eax
    mov %ax, 6(%edi)
    add $8, %esi
    jmp 1b
2:  lidt idt_pointer
    /* Interrupts 0 to 15 become vectors 0x20 to 0x2f, all masked. */
    .irp pair, 0x1120, 0x2021, 0x0421, 0x0121, 0x11a0, 0x28a1, 0x02a1, 0x01a1, 0xffa1, 0xff21
    mov $(\pair >> 8), %al
    out %al, $(\pair & 0xff)
    .endr
    /* COM1: 115200 baud, 8 bits, FIFO. */
    .irp pair, 0x00f9, 0x80fb, 0x01f8, 0x00f9, 0x03fb, 0x07fa, 0x03fc
    mov $(0x300 | \pair & 0xff), %edx
    mov $(\pair >> 8), %al
    out %al, %dx
    .endr
    call run_all
    .size pvh_start, . - pvh_start

    .section .data
    .balign 16
gdt:
    .quad 0
    .quad 0x00cf9b000000ffff /* KERNEL_CS */
    .quad 0x00cf93000000ffff /* KERNEL_DS */
    .quad 0x00cffb000000ffff /* USER_CS */
    .quad 0x00cff3000000ffff /* USER_DS */
    .quad 0x0000890000000067 /* TSS */
    .quad 0x00cf9b000000ffff /* OTHER_CS */
gdt_end:
gdt_pointer:
    .word gdt_end - gdt - 1
    .long gdt
    .balign 8
idt_pointer:
    .word 256 * 8 - 1
    .long idt

    .section .bss
    .balign 4096
directory: .skip 4096
pt_user: .skip 2 * 4
    /* The entry of FAULT_VA. */
    .globl fault_pte
fault_pte: .skip 4096 - 2 * 4
user_stack: .skip 4096
idt: .skip 2048
    .skip 4096
int_stack_top:
    .skip 4096
    .globl boot_stack_top
boot_stack_top:
tss: .skip 104
