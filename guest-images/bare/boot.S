/* From the PVH entry (32-bit, no paging) to the harness: page tables, long mode, descriptor tables, the timer. */
#include "bare.inc"

    .section .note.pvh, "a", @note
    /* XEN_ELFNOTE_PHYS32_ENTRY: where to begin in 32-bit mode. A multiboot header would ask for a 32-bit ELF. */
    .long 4, 8, 18
    .asciz "Xen"
    .quad pvh_start - KBASE

    .section .text.boot, "ax"
    .code32
    .globl pvh_start
    .type pvh_start, @function
pvh_start:
    cli
    cld
    mov $(boot_stack_top - KBASE), %esp
    /* The first GB at 0 and at KBASE. */
    movl $(pdpt_low - KBASE + 7), pml4 - KBASE
    movl $(pdpt_high - KBASE + 3), pml4 - KBASE + 511 * 8
    movl $(pd_ram - KBASE + 3), pdpt_low - KBASE
    movl $(pd_ram - KBASE + 3), pdpt_high - KBASE + 510 * 8
    movl $(pd_user - KBASE + 7), pdpt_low - KBASE + 8
    movl $(pt_user - KBASE + 7), pd_user - KBASE
    /* The user's code is a page of the image, its stack one of the data. */
    movl $(user_page - KBASE + 5), pt_user - KBASE
    movl $(user_stack - KBASE + 7), pt_user - KBASE + 8
    xor %ecx, %ecx
1:  mov %ecx, %eax
    shl $21, %eax
    or $0x83, %eax
    mov %eax, pd_ram - KBASE(, %ecx, 8)
    inc %ecx
    cmp $512, %ecx
    jb 1b
    /* PAE, SSE (OSFXSR, OSXMMEXCPT), FSGSBASE. */
    mov $0x10620, %eax
    mov %eax, %cr4
    mov $(pml4 - KBASE), %eax
    mov %eax, %cr3
    /* EFER: long mode and SYSCALL. */
    mov $0xc0000080, %ecx
    mov $0x101, %eax
    xor %edx, %edx
    wrmsr
    /* PG, WP, NE, ET, MP, PE. */
    mov $0x80010033, %eax
    mov %eax, %cr0
    lgdt gdt_pointer - KBASE
    ljmp $KERNEL_CS, $(long_mode - KBASE)

    .code64
long_mode:
    mov $high, %rax
    jmp *%rax
high:
    lea boot_stack_top(%rip), %rsp
    lea gdt(%rip), %rax
    mov %rax, gdt_pointer + 2(%rip)
    lgdt gdt_pointer(%rip)
    /* The task state: stacks for interrupts of user mode and for the timer. */
    lea int_stack_top(%rip), %rax
    mov %rax, tss + 4(%rip)
    lea ist_stack_top(%rip), %rax
    mov %rax, tss + 36(%rip)
    lea tss(%rip), %rax
    lea gdt + TSS(%rip), %rdi
    mov %ax, 2(%rdi)
    shr $16, %rax
    mov %al, 4(%rdi)
    mov %ah, 7(%rdi)
    shr $16, %rax
    mov %eax, 8(%rdi)
    mov $TSS, %eax
    ltr %ax
    /* Gates: from the list of handlers. */
    lea traps_table(%rip), %rsi
1:  mov (%rsi), %rax
    test %rax, %rax
    jz 2f
    movzwl 8(%rsi), %edi
    movzwl 10(%rsi), %edx
    shl $4, %edi
    lea idt(%rip), %rcx
    add %rcx, %rdi
    mov %ax, (%rdi)
    movw $KERNEL_CS, 2(%rdi)
    mov %dx, 4(%rdi)
    shr $16, %rax
    mov %ax, 6(%rdi)
    shr $16, %rax
    mov %eax, 8(%rdi)
    add $16, %rsi
    jmp 1b
2:  lidt idt_pointer(%rip)
    /* SYSCALL: selectors, entry, and the flags that it clears. */
    mov $0xc0000081, %ecx
    xor %eax, %eax
    mov $(0x001b << 16 | KERNEL_CS), %edx
    wrmsr
    inc %ecx
    lea snip_user_syscall.entry(%rip), %rax
    mov %rax, %rdx
    shr $32, %rdx
    wrmsr
    mov $0xc0000084, %ecx
    mov $0x47700, %eax
    xor %edx, %edx
    wrmsr
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
    jmp run_all
    .size pvh_start, . - pvh_start

    .section .data
    .balign 16
gdt:
    .quad 0
    .quad 0x00af9b000000ffff /* KERNEL_CS */
    .quad 0x00cf93000000ffff /* KERNEL_DS */
    .quad 0x00cffb000000ffff /* where SYSRET's 32-bit code would be */
    .quad 0x00cff3000000ffff /* USER_DS */
    .quad 0x00affb000000ffff /* USER_CS */
    .quad 0x0000890000000067, 0 /* TSS */
    .quad 0x00af9b000000ffff /* OTHER_CS */
gdt_end:
gdt_pointer:
    .word gdt_end - gdt - 1
    .quad gdt - KBASE
    .balign 8
idt_pointer:
    .word 256 * 16 - 1
    .quad idt

    .section .bss
    .balign 4096
    .globl pml4
pml4: .skip 4096
pdpt_low: .skip 4096
pdpt_high: .skip 4096
pd_ram: .skip 4096
pd_user: .skip 4096
pt_user: .skip 2 * 8
    /* The entry of FAULT_VA. */
    .globl fault_pte
fault_pte: .skip 4096 - 2 * 8
user_stack: .skip 4096
idt: .skip 4096
    .skip 4096
int_stack_top:
    .skip 4096
ist_stack_top:
    .skip 4096
    .globl boot_stack_top
boot_stack_top:
tss: .skip 104
