# What kernels are made of, one instruction a line. Beside it, x86_64.txt says how long each is and where it goes.
# Functions: entries, stack frames, returns
    endbr64
    endbr32
    nopl 0(%rax,%rax)
    push %rbp
    push %r15
    push $0x11
    push $0x11223344
    push 0x8(%rdi)
    pop %rbx
    pop %r12
    pop 0x10(%rsp)
    mov %rsp,%rbp
    sub $0x38,%rsp
    and $-16,%rsp
    leave
    enter $0x20,$0
    ret
    ret $16
    rep ret
    bnd ret
    lretq
    lretl
    lretq $8
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
    jrcxz .+0x10
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
    call *%rax
    call *%r11
    .byte 0x2e; call *%r11
    call *0x1000(%rip)
    call *0x18(%rax)
    call *-0x7e000000(,%rax,8)
    jmp *%rax
    jmp *%r11
    .byte 0x2e; jmp *%r11
    jmp *-0x7e000000(,%rax,8)
    jmp *0x1000(%rip)
    notrack jmp *%rax
    notrack jmp *-0x7e000000(,%rax,8)
    notrack call *%rdx
    mov %rax,(%rsp)
    pause
    lfence
    int3
# Far transfers, traps, system calls, ways back
    lcall *0x24(%rax)
    ljmp *0x24(%rax)
    .byte 0x48; ljmp *(%rdx)
    int $0x80
    int1
    ud0 %eax,%eax
    ud1 %esp,%ecx
    .byte 0x67; ud1 0x10(%rax),%eax     # UBSan
    .byte 0x67,0x48,0x0f,0xb9,0x3a      # static call of __WARN_trap
    ud2
    syscall
    sysenter
    sysretl
    sysretq
    sysexitl
    iretl
    iretq
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
    swapgs
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
    psmash
    pvalidate
    rmpadjust
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
    seamcall
    seamret
    uiret
    clui
    stui
    setssbsy
    saveprevssp
    xsusldtrk
    sgdt (%rax)
    sidt (%rax)
    lgdt (%rax)
    lidt 0x10(%rsp)
    smsw %eax
    lmsw %ax
    invlpg (%rdi)
# CET
    incsspq %rax
    incsspd %eax
    rdsspq %rax
    rdsspd %eax
    wrssq %rax,(%rdi)
    wrussq %rax,(%rdi)
    rstorssp (%rdi)
    clrssbsy (%rdi)
# System registers
    mov %cr0,%rax
    mov %rax,%cr3
    mov %cr8,%rax
    mov %rax,%cr4
    mov %db7,%rax
    mov %rax,%db6
    clts
    rdmsr
    wrmsr
    wrmsrns
    rdmsrlist
    rdpmc
    rdtsc
    cpuid
    invd
    wbinvd
    wbnoinvd
    invpcid (%rax),%rcx
    invept (%rax),%rcx
    invvpid (%rax),%rcx
    vmptrld (%rax)
    vmread %rax,%rcx
    vmwrite %rax,%rcx
    vmxon (%rax)
    vmclear (%rax)
    lldt %ax
    sldt %eax
    ltr %ax
    str %eax
    verw 0x1000(%rip)
    verr %ax
    lar %eax,%eax
    lsl %eax,%eax
    mov %ds,%eax
    mov %eax,%ss
    mov %ax,%es
    mov (%rax),%fs
    push %fs
    pop %gs
    lss (%rax),%esp
    lgs (%rax),%eax
    rdfsbase %rax
    wrgsbase %rax
    rdgsbase %eax
    rdpid %rax
    rdrand %rax
    rdseed %eax
    umwait %ecx
    tpause %ecx
    umonitor %rax
    in $0x71,%al
    in (%dx),%eax
    out %al,$0x80
    out %ax,(%dx)
    outsb
    rep insl
# Moves and addresses
    mov %gs:0x28,%rax
    mov %gs:0x7ef7193c(%rip),%rdx
    movabs $0x1122334455667788,%rax
    movabs 0x1122334455667788,%al
    movabs %rax,0x1122334455667788
    mov $0xffffffff81000000,%rdi
    movq $0,0x10(%rsp)
    movl $0x11223344,%gs:0x11223344(%rax,%rbx,4)
    movw $0x1122,0x10(%rax)
    movb $1,(%rax)
    mov %al,%sil
    mov (%eax),%ebx
    mov %ebx,0x10(%esp,%ecx,2)
    lea 0x1000(%rip),%rdi
    lea (%rdi,%rsi,8),%rax
    lea 0(,%rax,8),%rax
    movzbl 0x10(%rdi),%eax
    movzwl %ax,%eax
    movsbq %al,%rax
    movswl %ax,%eax
    movslq %edi,%rdi
    xchg %rax,%rbx
    xchg %ax,%ax
    xchg %al,(%rdi)
    bswap %rax
    movbe (%rdi),%rax
    movnti %rax,(%rdi)
    movdiri %rax,(%rdi)
    movdir64b (%rsi),%rdi
    enqcmds (%rsi),%rdi
    cmove %rax,%rbx
    cmovns 0x10(%rdi),%eax
    cltq
    cqto
    cwtl
    cltd
    xlat
    lahf
    sahf
    sete %al
    setne 0x10(%rdi)
# Arithmetic
    add $1,%rax
    add $0x11223344,%rax
    addl $0x11223344,0x11223344(%rip)
    addw $0x1122,(%rax)
    adc %rbx,(%rax)
    sbb %rax,%rax
    sub %gs:(%rax),%rbx
    xor %eax,%eax
    and $0x101000,%eax
    or $-1,%rax
    cmp $0x101000,%rax
    cmpb $0,0x10(%rdi)
    cmpw $0x1122,0x10(%rdi)
    test %rax,%rax
    testb $1,0x1000(%rip)
    testl $0x800000,%r15d
    testw $0x1122,%ax
    test $0x11,%al
    not %rax
    neg %eax
    mul %rbx
    imul %rbx,%rax
    imul $0x11,%rbx,%rax
    imul $0x11223344,(%rbx),%rax
    div %rbx
    idivl 0x10(%rdi)
    inc %eax
    decl %gs:0x11223344(%rip)
    shl $4,%rax
    shr %eax
    sar %cl,%rax
    rol $8,%ax
    ror $1,%rax
    rcl %eax
    shld $4,%rax,%rbx
    shrd %cl,%rax,%rbx
    bt $3,%rax
    bt %rax,(%rdi)
    btc $63,%rax
    bsf %rax,%rbx
    bsr %eax,%ebx
    tzcnt %rax,%rbx
    lzcnt %rax,%rbx
    popcnt %rax,%rbx
    crc32q (%rdi),%rax
    crc32b %al,%eax
    adcx %rax,%rbx
    adox %rax,%rbx
# Atomics
    lock decl (%rdi)
    lock incq 0x10(%rdi)
    lock addl $0,-4(%rsp)
    lock xadd %eax,(%rdi)
    lock cmpxchg %edx,(%rdi)
    lock cmpxchg %rdx,%gs:0x10(%rdi)
    cmpxchg16b (%rsi)
    lock cmpxchg16b %gs:(%rsi)
    lock cmpxchg8b (%rsi)
    lock btsl $3,(%rdi)
    lock btr %rax,(%rdi)
    lock orb $1,0x10(%rdi)
    .byte 0x3e; orb $1,0x10(%rdi)       # what a lock prefix becomes on one CPU
    xacquire lock decl (%rdi)
    xrelease movl $0,(%rdi)
    mfence
    sfence
# Strings
    rep movsb
    rep movsq
    rep stosb
    rep stosq
    rep stosl
    repz cmpsb
    repnz scasb
    lodsb
    lodsq
    movsl
    stosw
    addr32 rep movsl
# Padding
    nop
    .byte 0x66,0x90
    nopl (%rax)
    nopl 0(%rax)
    nopw 0(%rax,%rax)
    nopl 0x10000000(%rax)
    nopl 0x10000000(%rax,%rax)
    nopw 0x10000000(%rax,%rax)
    .byte 0x66,0x2e,0x0f,0x1f,0x84,0,0,0,0,0
    .byte 0x66,0x66,0x2e,0x0f,0x1f,0x84,0,0,0,0,0
    .byte 0x66,0x66,0x66,0x66,0x66,0x2e,0x0f,0x1f,0x84,0,0,0,0,0
    .byte 0x66,0x66,0x66,0x66,0x66,0x66,0x2e,0x0f,0x1f,0x84,0,0,0,0,0
    .byte 0x66,0x66,0x66,0x66,0x90
    .byte 0x66,0x0f,0x1f,0x00           # a sealed endbr64
    .byte 0x0f,0x1f,0x40,0xd6           # the same, newer kernels
# Caches and extended state
    prefetcht0 (%rax)
    prefetchw (%rax)
    prefetchnta 0x40(%rax)
    clflush (%rdi)
    clflushopt (%rdi)
    clwb (%rdi)
    cldemote (%rdi)
    fxsave64 (%rdi)
    fxrstor (%rdi)
    xsave64 (%rdi)
    xrstor64 (%rdi)
    xsaveopt64 (%rdi)
    xsavec64 (%rdi)
    xsaves64 (%rdi)
    xrstors64 (%rdi)
    ldmxcsr (%rdi)
    stmxcsr 0x10(%rsp)
    fninit
    fnclex
    fnstsw %ax
    fnstcw (%rdi)
    fldcw (%rdi)
    fildl (%rdi)
    fistpll (%rdi)
    fld1
    fdivp %st,%st(1)
    emms
    fwait
# MMX, SSE
    movq %mm0,(%rdi)
    movd %eax,%mm1
    pxor %mm0,%mm0
    movq (%rdi),%xmm0
    movd %eax,%xmm3
    movdqu (%rdi),%xmm15
    movdqa %xmm1,0x10(%rsp)
    movaps %xmm0,(%rdi)
    movups %xmm0,%xmm9
    movntdqa (%rdi),%xmm0
    movntdq %xmm0,(%rdi)
    pshufd $0x1b,%xmm0,%xmm1
    pshufb %xmm0,%xmm1
    palignr $8,%xmm0,%xmm1
    pclmulqdq $0x11,%xmm0,%xmm1
    aesenc %xmm0,%xmm1
    aeskeygenassist $1,%xmm0,%xmm1
    sha256rnds2 %xmm0,%xmm1,%xmm2
    sha1rnds4 $3,%xmm1,%xmm2
    gf2p8affineqb $0,%xmm0,%xmm1
    cvtsi2sd %rax,%xmm0
    addsd %xmm0,%xmm1
    ptest %xmm0,%xmm1
    pextrq $1,%xmm0,%rax
    femms
    pfadd %mm0,%mm1
# VEX
    vzeroupper
    vzeroall
    vmovdqu (%rdi),%ymm0
    vmovdqa %ymm15,0x20(%rsi)
    vpxor %ymm0,%ymm1,%ymm2
    vpaddd 0x1000(%rip),%xmm0,%xmm1
    vpshufb %ymm8,%ymm9,%ymm10
    vpclmulqdq $0x10,%xmm0,%xmm1,%xmm2
    vaesenc %ymm0,%ymm1,%ymm2
    vextracti128 $1,%ymm0,%xmm1
    vpblendd $0xf0,%ymm0,%ymm1,%ymm2
    vbroadcasti128 (%rdi),%ymm0
    vgatherdps %ymm0,(%rax,%ymm1,4),%ymm2
    vblendvps %ymm0,%ymm1,%ymm2,%ymm3
    andn %rax,%rbx,%rcx
    bzhi %rax,%rbx,%rcx
    shlx %rax,%rbx,%rcx
    shrx %rax,(%rbx),%rcx
    rorx $6,%eax,%ebx
    mulx %rax,%rbx,%rcx
    pext %rax,%rbx,%rcx
    kmovq %k1,%rax
    kandw %k0,%k1,%k2
    ldtilecfg (%rax)
    tileloadd (%rax,%rbx),%tmm1
    tdpbf16ps %tmm0,%tmm1,%tmm2
    tilerelease
    vprotd $7,%xmm0,%xmm1
    vfmaddpd %xmm0,%xmm1,%xmm2,%xmm3
# EVEX
    vpxorq %zmm0,%zmm1,%zmm2
    vmovdqu64 (%rdi),%zmm31
    vmovdqu8 %zmm0,0x40(%rdi){%k1}
    vmovdqa32 %ymm16,(%rax)
    vpaddd (%rax){1to16},%zmm0,%zmm1
    vpternlogd $0x96,%zmm0,%zmm1,%zmm2
    vprord $16,%xmm0,%xmm1
    vpermi2d %ymm16,%ymm17,%ymm18
    vpcmpub $1,%zmm0,%zmm1,%k1
    vpclmulqdq $0,%zmm0,%zmm1,%zmm2
    vaesenclast %zmm0,%zmm1,%zmm2
    vgf2p8affineqb $0,%zmm0,%zmm1,%zmm2
    vpermb %zmm0,%zmm1,%zmm2{%k1}{z}
    vcvtps2ph $4,{sae},%zmm0,%ymm1
    vaddph %zmm0,%zmm1,%zmm2
# As long as instructions get
    lock addl $0x11223344,%gs:0x11223344(%rax,%rbx,4)
    lock addl $0x11223344,%gs:0x11223344(%r8d,%r9d,4)
    .byte 0x2e,0x2e,0x2e,0x67; movl $0x11223344,0x11223344(%rax,%rbx,4)
    .byte 0x26,0x26,0x26,0x26,0x26,0x26; nopw 0x10000000(%rax,%rax)
