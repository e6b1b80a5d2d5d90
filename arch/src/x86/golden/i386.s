# What kernels are made of, one instruction a line. Beside it, i386.txt says how long each is and where it goes.
# Functions: entries, stack frames, returns
    endbr64
    endbr32
    nopl 0(%eax,%eax)
    push %ebp
    push $0x11
    push $0x11223344
    push 0x8(%edi)
    pop %ebx
    pop 0x10(%esp)
    mov %esp,%ebp
    sub $0x38,%esp
    and $-16,%esp
    leave
    enter $0x20,$0
    ret
    ret $16
    rep ret
    bnd ret
    lretl
    lretl $8
# Near transfers
    jmp .+0x20
    {disp32} jmp .+0x20
    jmp .-0x20
    {disp32} jmp .-0x12345
    jo .+0x10
    jno .+0x10
    jb .+0x10
    jae .+0x10
    je .+0x10
    jne .-0x10
    jbe .-0x10
    ja .-0x10
    js .+2
    jns .+0x7f
    jp .+0x10
    jnp .+0x10
    jl .+0x10
    jge .+0x10
    jle .+0x10
    jg .+0x10
    {disp32} je .+0x12345
    {disp32} jne .-0x12345
    {disp32} jg .+0x7fffffff
    je,pn .+0x10
    jne,pt .+0x1000
    loop .-0x10
    loope .-0x10
    loopne .+0x10
    jecxz .+0x10
    xbegin .+0x100
    xabort $0x11
    xend
    xtest
    call .+0x12345
    call .-0x12345
    .byte 0x2e; call .+0x100            # retpoline builds
    .byte 0x3e; call .+0x100
    .byte 0x67; call .+0x100            # call padding of Xen and call depth tracking
    bnd call .+0x100
    bnd jmp .+0x100
    call *%eax
    call *0x18(%eax)
    call *-0x7e000000(,%eax,8)
    jmp *%eax
    jmp *-0x7e000000(,%eax,8)
    notrack jmp *%eax
    notrack jmp *-0x7e000000(,%eax,8)
    notrack call *%edx
    mov %eax,(%esp)
    pause
    lfence
    int3
# Far transfers, traps, system calls, ways back
    lcall *0x24(%eax)
    ljmp *0x24(%eax)
    .byte 0x48; ljmp *(%edx)
    int $0x80
    int1
    ud0 %eax,%eax
    ud1 %esp,%ecx
    .byte 0x67; ud1 0x10(%eax),%eax     # UBSan
    .byte 0x67,0x48,0x0f,0xb9,0x3a      # static call of __WARN_trap
    ud2
    syscall
    sysenter
    sysretl
    iretl
    rsm
    hlt
    sti
    cli
    std
    cld
    clc
    stc
    cmc
    pushf
    popf
    pushfw
# The 0F 01 family
    vmcall
    vmlaunch
    vmresume
    vmxoff
    vmfunc
    monitor
    mwait
    clac
    stac
    encls
    enclu
    xgetbv
    xsetbv
    rdtscp
    monitorx
    mwaitx
    clzero
    rdpkru
    wrpkru
    serialize
    rdpru
    invlpgb
    tlbsync
    pvalidate
    vmgexit
    vmrun
    vmmcall
    vmload
    vmsave
    stgi
    clgi
    skinit
    invlpga
    tdcall
    setssbsy
    saveprevssp
    xsusldtrk
    sgdt (%eax)
    sidt (%eax)
    lgdt (%eax)
    lidt 0x10(%esp)
    smsw %eax
    lmsw %ax
    invlpg (%edi)
# CET
    incsspd %eax
    rdsspd %eax
    rstorssp (%edi)
    clrssbsy (%edi)
# System registers
    mov %cr0,%eax
    mov %eax,%cr3
    mov %eax,%cr4
    mov %db7,%eax
    mov %eax,%db6
    clts
    rdmsr
    wrmsr
    wrmsrns
    rdpmc
    rdtsc
    cpuid
    invd
    wbinvd
    wbnoinvd
    invpcid (%eax),%ecx
    invept (%eax),%ecx
    invvpid (%eax),%ecx
    vmptrld (%eax)
    vmread %eax,%ecx
    vmwrite %eax,%ecx
    vmxon (%eax)
    vmclear (%eax)
    lldt %ax
    sldt %eax
    ltr %ax
    str %eax
    verr %ax
    lar %eax,%eax
    lsl %eax,%eax
    mov %ds,%eax
    mov %eax,%ss
    mov %ax,%es
    mov (%eax),%fs
    push %fs
    pop %gs
    lss (%eax),%esp
    lgs (%eax),%eax
    rdpid %eax
    rdrand %eax
    rdseed %eax
    umwait %ecx
    tpause %ecx
    umonitor %eax
    in $0x71,%al
    in (%dx),%eax
    out %al,$0x80
    out %ax,(%dx)
    outsb
    rep insl
# Moves and addresses
    mov %gs:0x28,%eax
    mov $0xffffffff81000000,%edi
    movl $0,0x10(%esp)
    movl $0x11223344,%gs:0x11223344(%eax,%ebx,4)
    movw $0x1122,0x10(%eax)
    movb $1,(%eax)
    mov (%eax),%ebx
    mov %ebx,0x10(%esp,%ecx,2)
    lea (%edi,%esi,8),%eax
    lea 0(,%eax,8),%eax
    movzbl 0x10(%edi),%eax
    movzwl %ax,%eax
    movswl %ax,%eax
    xchg %eax,%ebx
    xchg %ax,%ax
    xchg %al,(%edi)
    bswap %eax
    movbe (%edi),%eax
    movnti %eax,(%edi)
    movdiri %eax,(%edi)
    movdir64b (%esi),%edi
    enqcmds (%esi),%edi
    cmove %eax,%ebx
    cmovns 0x10(%edi),%eax
    cwtl
    cltd
    xlat
    lahf
    sahf
    sete %al
    setne 0x10(%edi)
# Arithmetic
    add $1,%eax
    add $0x11223344,%eax
    addw $0x1122,(%eax)
    adc %ebx,(%eax)
    sbb %eax,%eax
    sub %gs:(%eax),%ebx
    xor %eax,%eax
    and $0x101000,%eax
    or $-1,%eax
    cmp $0x101000,%eax
    cmpb $0,0x10(%edi)
    cmpw $0x1122,0x10(%edi)
    test %eax,%eax
    testw $0x1122,%ax
    test $0x11,%al
    not %eax
    neg %eax
    mul %ebx
    imul %ebx,%eax
    imul $0x11,%ebx,%eax
    imul $0x11223344,(%ebx),%eax
    div %ebx
    idivl 0x10(%edi)
    inc %eax
    shl $4,%eax
    shr %eax
    sar %cl,%eax
    rol $8,%ax
    ror $1,%eax
    rcl %eax
    shld $4,%eax,%ebx
    shrd %cl,%eax,%ebx
    bt $3,%eax
    bt %eax,(%edi)
    btc $63,%eax
    bsf %eax,%ebx
    bsr %eax,%ebx
    tzcnt %eax,%ebx
    lzcnt %eax,%ebx
    popcnt %eax,%ebx
    crc32b %al,%eax
    adcx %eax,%ebx
    adox %eax,%ebx
# Atomics
    lock decl (%edi)
    lock incl 0x10(%edi)
    lock addl $0,-4(%esp)
    lock xadd %eax,(%edi)
    lock cmpxchg %edx,(%edi)
    lock cmpxchg %edx,%gs:0x10(%edi)
    lock cmpxchg8b (%esi)
    lock btsl $3,(%edi)
    lock btr %eax,(%edi)
    lock orb $1,0x10(%edi)
    .byte 0x3e; orb $1,0x10(%edi)       # what a lock prefix becomes on one CPU
    xacquire lock decl (%edi)
    xrelease movl $0,(%edi)
    mfence
    sfence
# Strings
    rep movsb
    rep movsl
    rep stosb
    rep stosl
    repz cmpsb
    repnz scasb
    lodsb
    lodsl
    movsl
    stosw
# Padding
    nop
    .byte 0x66,0x90
    nopl (%eax)
    nopl 0(%eax)
    nopw 0(%eax,%eax)
    nopl 0x10000000(%eax)
    nopl 0x10000000(%eax,%eax)
    nopw 0x10000000(%eax,%eax)
    .byte 0x66,0x2e,0x0f,0x1f,0x84,0,0,0,0,0
    .byte 0x66,0x66,0x2e,0x0f,0x1f,0x84,0,0,0,0,0
    .byte 0x66,0x66,0x66,0x66,0x66,0x2e,0x0f,0x1f,0x84,0,0,0,0,0
    .byte 0x66,0x66,0x66,0x66,0x66,0x66,0x2e,0x0f,0x1f,0x84,0,0,0,0,0
    .byte 0x66,0x66,0x66,0x66,0x90
    .byte 0x66,0x0f,0x1f,0x00           # a sealed endbr64
# Caches and extended state
    prefetcht0 (%eax)
    prefetchw (%eax)
    prefetchnta 0x40(%eax)
    clflush (%edi)
    clflushopt (%edi)
    clwb (%edi)
    cldemote (%edi)
    fxrstor (%edi)
    ldmxcsr (%edi)
    stmxcsr 0x10(%esp)
    fninit
    fnclex
    fnstsw %ax
    fnstcw (%edi)
    fldcw (%edi)
    fildl (%edi)
    fistpll (%edi)
    fld1
    fdivp %st,%st(1)
    emms
    fwait
# MMX, SSE
    movd %eax,%mm1
    pxor %mm0,%mm0
    movd %eax,%xmm3
    movdqa %xmm1,0x10(%esp)
    movaps %xmm0,(%edi)
    movntdqa (%edi),%xmm0
    movntdq %xmm0,(%edi)
    pshufd $0x1b,%xmm0,%xmm1
    pshufb %xmm0,%xmm1
    palignr $8,%xmm0,%xmm1
    pclmulqdq $0x11,%xmm0,%xmm1
    aesenc %xmm0,%xmm1
    aeskeygenassist $1,%xmm0,%xmm1
    sha256rnds2 %xmm0,%xmm1,%xmm2
    sha1rnds4 $3,%xmm1,%xmm2
    gf2p8affineqb $0,%xmm0,%xmm1
    cvtsi2sd %eax,%xmm0
    addsd %xmm0,%xmm1
    ptest %xmm0,%xmm1
    femms
    pfadd %mm0,%mm1
# VEX
    vzeroupper
    vzeroall
    vmovdqu (%edi),%ymm0
    vpxor %ymm0,%ymm1,%ymm2
    vpclmulqdq $0x10,%xmm0,%xmm1,%xmm2
    vaesenc %ymm0,%ymm1,%ymm2
    vextracti128 $1,%ymm0,%xmm1
    vpblendd $0xf0,%ymm0,%ymm1,%ymm2
    vbroadcasti128 (%edi),%ymm0
    vgatherdps %ymm0,(%eax,%ymm1,4),%ymm2
    vblendvps %ymm0,%ymm1,%ymm2,%ymm3
    andn %eax,%ebx,%ecx
    bzhi %eax,%ebx,%ecx
    shlx %eax,%ebx,%ecx
    shrx %eax,(%ebx),%ecx
    rorx $6,%eax,%ebx
    mulx %eax,%ebx,%ecx
    pext %eax,%ebx,%ecx
    kandw %k0,%k1,%k2
    vprotd $7,%xmm0,%xmm1
    vfmaddpd %xmm0,%xmm1,%xmm2,%xmm3
# EVEX
    vpxorq %zmm0,%zmm1,%zmm2
    vmovdqu8 %zmm0,0x40(%edi){%k1}
    vpaddd (%eax){1to16},%zmm0,%zmm1
    vpternlogd $0x96,%zmm0,%zmm1,%zmm2
    vprord $16,%xmm0,%xmm1
    vpcmpub $1,%zmm0,%zmm1,%k1
    vpclmulqdq $0,%zmm0,%zmm1,%zmm2
    vaesenclast %zmm0,%zmm1,%zmm2
    vgf2p8affineqb $0,%zmm0,%zmm1,%zmm2
    vpermb %zmm0,%zmm1,%zmm2{%k1}{z}
    vcvtps2ph $4,{sae},%zmm0,%ymm1
    vaddph %zmm0,%zmm1,%zmm2
# As long as instructions get
    lock addl $0x11223344,%gs:0x11223344(%eax,%ebx,4)
    .byte 0x2e,0x2e,0x2e,0x67; movl $0x11223344,0x11223344(%eax,%ebx,4)
    .byte 0x26,0x26,0x26,0x26,0x26,0x26; nopw 0x10000000(%eax,%eax)
# What only 32 bits have
    push %es
    pop %es
    push %ss
    push %ds
    pop %ds
    pusha
    popa
    pushaw
    popaw
    inc %eax
    dec %edi
    inc %cx
    bound %eax,(%ecx)
    arpl %ax,(%ecx)
    les (%eax),%ecx
    lds 8(%ebx),%edx
    lss (%esp),%esp
    aaa
    aas
    daa
    das
    aam
    aad
    into
    mov 0xc1001234,%al
    mov 0xc1001234,%eax
    mov %eax,%fs:0xc1e80800
    mov %fs:0xc1e80808,%eax
    mov 8(%bx,%si),%eax
    lcall $0x60,$0xc1234568
    ljmp $0x60,$0xc1234568
    lcallw $0x60,$0x4568
    ljmpw $0x60,$0x4568
    jcxz .+0x10
    jecxz .+0x10
    loopw .+0x10
    retw
    retw $8
    iretw
    .byte 0x3e, 0x8d, 0x74, 0x26, 0x00
    .byte 0x8d, 0x74, 0x26, 0x00
    lea 0x0(%esi),%esi
    nopw 0x0(%eax,%eax,1)
    call *%ds:0xc1c62600
    jmp *-0x3e4e0000(,%eax,4)
    cmpxchg8b (%esi)
    lock cmpxchg8b %fs:(%esi)
    sysexit
    sysenter
    movzwl %ax,%eax
