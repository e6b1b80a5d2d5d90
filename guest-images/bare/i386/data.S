/* Snippets: what instructions do to registers, flags and memory. */
#include "bare.inc"

    .text

SNIP push_pop, 10
    push $0x7f
    push $-2
    push $0x12345678
    pushw $0x1234
    pushw %ax
    push %eax
    mov $data, %ebx
    push (%ebx)
    push data + 8
    pushw 24(%ebx)
    popw %cx
    pop %edx
    pop 32(%ebx)
    popw 40(%ebx)
    pushw %cx
    popw data + 48
    pop %esi
    popw %di
    pop %ebp
    pop %ecx
    pop %ebx
    ret
END

/* All registers at once; the stack pointer's place is skipped. */
SNIP push_all, 10
    mov %esp, %ebx
    pusha
    movl $0x77, 12(%esp)
    movl $0x99, 28(%esp)
    popa
    mov %esp, %ecx
    pushaw
    movw $0x55, 14(%esp)
    popaw
    sub %esp, %ecx
    ret
END

SNIP push_sp, 10
    mov %esp, %ebx
    push %esp
    mov (%esp), %eax
    pop %ecx
    push %esp
    pop %esp
    mov %esp, %edx
    /* The address of a pop to the stack is that after the pop. */
    push $0x11
    push $0x22
    pop (%esp)
    pop %esi
    push $0x33
    push $0x34
    push $0x44
    pop 4(%esp)
    push 4(%esp)
    pop %edi
    pop %ebp
    pop %ebp
    mov $data + 64, %eax
    push %eax
    pop %esp
    mov %esp, %ebp
    mov %ebx, %esp
    ret
END

SNIP enter_leave, 10
    enter $32, $0
    mov %esp, %eax
    leave
    enter $16, $1
    mov %esp, %ebx
    leave
    mov %esp, %edx
    mov %edx, %ebp
    enter $8, $3
    mov %esp, %esi
    leave
    ret
END

SNIP exchange, 10
    mov $data, %edi
    xchg %eax, %ebx
    xchg %ecx, (%edi)
    xchg %dl, 9(%edi)
    xchg %esi, %eax
    lock xadd %ebp, 16(%edi)
    xadd %ebx, %ecx
    mov 32(%edi), %eax
    lock cmpxchg %ebx, 32(%edi)
    sete %cl
    lock cmpxchg %ebp, 40(%edi)
    sete %ch
    mov $0x5a, %esi
    cmpxchg %esi, %ebx
    lock incl 48(%edi)
    lock orb $0x81, 56(%edi)
    lock negl 64(%edi)
    lock btsl $3, 72(%edi)
    lock btrl $5, 80(%edi)
    lock btcl $30, 80(%edi)
    lock subl $1, 88(%edi)
    movbe 96(%edi), %esi
    bswap %ebx
    ret
END

/* Both outcomes. */
SNIP exchange_wide, 10
    mov $data + 128, %edi
    mov (%edi), %eax
    mov 4(%edi), %edx
    mov $1, %ebx
    mov $2, %ecx
    lock cmpxchg8b (%edi)
    sete data
    lock cmpxchg8b (%edi)
    sete data + 1
    cmpxchg8b 32(%edi)
    ret
END

SNIP bits, 10, OF + SF + AF + PF
    mov $0x80018001, %eax
    bt $0, %eax
    setc %cl
    bts $1, %eax
    setc %ch
    btr $31, %eax
    setc %dl
    btc $16, %eax
    setc %dh
    mov $data, %edi
    mov $100, %ebx
    /* The bit's number reaches beyond the operand. */
    bts %ebx, (%edi)
    mov $-9, %ebx
    btr %ebx, 64(%edi)
    bsf %esi, %ebp
    bsr %esi, %ebx
    popcnt %esi, %edi
    tzcnt %esi, %esi
    lzcnt %ebp, %ebp
    andn %ebx, %eax, %edi
    btc $7, %ecx
    ret
END

SNIP multiply_divide, 10, ARITH
    mov $0x12345678, %eax
    mov $0xfedcba98, %ecx
    mul %ecx
    imul %eax, %ecx
    imul $-77, %ecx, %ebx
    imul $0x12345, %esi, %esi
    imul %edi
    mov %eax, %ebp
    xor %edx, %edx
    mov $100007, %ecx
    div %ecx
    mov %edx, %edi
    mov $-1000000007, %eax
    cltd
    idiv %ecx
    push %eax
    mov $0x1234, %eax
    mov $0x56, %cl
    div %cl
    mulx %ebx, %esi, %ecx
    pop %ebx
    ret
END

SNIP shifts, 10, AF + OF
    mov $4, %ecx
    shl %cl, %eax
    shr $7, %ebx
    sar $9, %edx
    rol %esi
    ror $13, %edi
    stc
    rcl $3, %ebp
    rcr %cl, %eax
    shld $12, %eax, %ebx
    shrd %cl, %ebx, %edx
    shlw $5, data
    sarl %cl, data + 8
    rolb $3, data + 16
    /* A count of 0 leaves the flags; 32 is one. */
    xor %ecx, %ecx
    stc
    shl %cl, %esi
    setc %al
    mov $32, %ecx
    shr %cl, %edi
    setc %bl
    rol %cl, %ebp
    setc %dl
    shlx %ebx, %ebp, %edi
    rorx $5, %edi, %ecx
    shl $3, %ebp
    ret
END

SNIP chains, 10
    mov $-1, %eax
    mov $1, %ecx
    add %ecx, %eax
    adc $0, %ebx
    adc %edx, data
    adc data + 8, %esi
    sub %edi, %ebp
    sbb $0, %ebx
    sbb %esi, data + 16
    sbb data + 24, %edi
    adcx %edx, %esi
    adox %ebx, %edi
    cmc
    adc $0x7f, %bl
    sbb %edx, %edx
    neg %ebp
    not %ebx
    inc %ecx
    dec %eax
    add $-1, %ecx
    cmp $5, %ecx
    ret
END

/* Digits. */
SNIP decimal, 10, ARITH
    mov $0x38, %al
    add $0x45, %al
    daa
    mov %al, %bl
    sub $0x19, %al
    das
    mov %al, %bh
    mov $0x0108, %ax
    add $7, %al
    aaa
    mov %ax, %cx
    sub $9, %al
    aas
    mov %ax, %dx
    mov $77, %al
    aam
    mov %ax, %si
    aad
    mov %ax, %di
    aam $7
    stc
    .byte 0xd6                  /* salc */
    ret
END

/* A bit for each condition that holds, by setcc in the data and by cmovcc in eax. */
    .macro VALUES flags
    mov $data, %edi
    mov $0, %eax
    mov $1, %ebx
    push $\flags
    popf
    .irp cc, o, no, b, ae, e, ne, be, a, s, ns, p, np, l, ge, le, g
    set\cc (%edi)
    lea 1(%edi), %edi
    lea (%eax, %eax), %eax
    mov %eax, %ecx
    lea 1(%ecx), %ecx
    cmov\cc %ecx, %eax
    cmov\cc (%edi), %edx
    .endr
    .endm

SNIP values_none, 3
    VALUES 2
    ret
END
SNIP values_all, 3
    VALUES 2 + ARITH
    ret
END
SNIP values_sign, 3
    VALUES 2 + SF
    ret
END

/* How often QEMU calls back for a repeated instruction is its own business; what it does is not. */
SNIP strings_repeated, 10
    cld
    mov $data, %esi
    mov $data + 256, %edi
    xor %ecx, %ecx
    rep movsb
    mov $1, %ecx
    rep movsl
    mov $100, %ecx
    rep movsb
    mov $100, %ecx
    mov $0x33, %eax
    rep stosb
    mov $1, %ecx
    rep stosl
    xor %ecx, %ecx
    rep stosw
    mov $data + 256, %edi
    mov $100, %ecx
    mov $0x33, %eax
    repne scasb
    mov %ecx, %ebx
    repe scasb
    mov %ecx, %ebp
    mov $data, %esi
    mov $data + 260, %edi
    mov $100, %ecx
    repe cmpsb
    mov %ecx, %edx
    mov $3, %ecx
    rep lodsl
    std
    mov $data + 512, %edi
    mov $data + 507, %esi
    mov $37, %ecx
    rep movsb
    cld
    xor %ecx, %ecx
    cmp %ecx, %ecx
    repe cmpsb
    ret
END

SNIP strings, 10
    cld
    mov $data, %esi
    mov $data + 64, %edi
    movsb
    movsw
    movsl
    lodsb
    lodsl
    stosb
    stosw
    stosl
    std
    movsb
    lodsw
    stosb
    cld
    cmpsb
    cmpsl
    scasb
    scasl
    ret
END

SNIP moves, 10
    mov data, %eax
    mov %eax, data + 8
    mov $data, %ebx
    mov data + 16, %al
    mov %ax, data + 24
    mov data + 32, %cl
    movzbl data + 33, %edx
    movsbl data + 34, %esi
    movzwl data + 36, %edi
    movswl data + 38, %ebp
    movb $0x7e, data + 44
    movw $0x1234, data + 46
    movl $0x12345678, data + 48
    mov %ah, %ch
    lea -8(%ebx, %ebx, 2), %edx
    addl $-5, data + 64
    incl data + 72
    mov 3(%ebx), %edi
    xlatb
    cbtw
    cwtl
    cltd
    lahf
    clc
    sahf
    /* 16-bit addresses: only what lies below 64 KB, where nothing of the guest is. */
    mov $0x1234, %ebx
    addr16 lea 0x10(%bx), %ecx
    ret
END

SNIP vectors, 10
    movups data, %xmm0
    movaps data + 16, %xmm1
    paddd %xmm1, %xmm0
    pshufd $0x1b, %xmm0, %xmm1
    movdqa %xmm0, data + 32
    movd %xmm1, %eax
    movd %xmm0, %ebx
    mov $7, %ecx
    cvtsi2sd %ecx, %xmm0
    addsd seven_and_half, %xmm0
    sqrtsd %xmm0, %xmm1
    cvttsd2si %xmm1, %edx
    movsd %xmm1, data + 48
    ucomisd %xmm0, %xmm1
    seta %cl
    pmovmskb %xmm0, %edi
    crc32l %esi, %ebp
    ret
END

    .section .rodata
    .balign 8
seven_and_half: .double 7.5
