# What powerpc kernels are made of, and what steers: the source of the golden decode files of this folder, for 64 bits with
# `--defsym WIDE=1`. One instruction of each mnemonic in the text of Debian's 6.1 powerpc64le kernel and of a 6.1
# kernel for the 750 and the 7400; then transfers in all forms, Book E, and ISA 3.1.

	rfi
	mtsrin	r3,r4
	subfze	r10,r10
	blelr+
	bnelr+
	beqlr+
	crclr	eq
	crnot	eq,eq
	slw.	r5,r5,r9
	mfsrin	r9,r10
	mtsr	0,r9
	subfe.	r5,r9,r5
	crset	4*cr7+eq
	bgelr+
	bgtlr+
	srw.	r8,r10,r9
	bltlr+
	slwi.	r10,r10,4

	trap
	andi.	r21,r19,28208
	mfmsr	r24
	ori	r24,r24,2
	mtmsrd	r24
	mr	r24,r3
	std	r24,64(0)
	hwsync
	li	r26,0
	ld	r12,56(r26)
	cmpdi	r12,0
	mtctr	r12
	isync
	bctr
	mfocrf	r4,128
	rlwinm.	r5,r3,16,30,31
	mtocrf	128,r4
	nop
	mfctr	r10
	mfcr	r9
	addic.	r0,r2,24633
	mtcr	r11
	stw	r10,2520(r13)
	lbz	r10,2728(r13)
	cmpwi	r10,0
	andis.	r10,r12,16
	bltlr	cr1
	addis	r12,r12,3
	xori	r10,r10,2304
	fmr	f0,f0
	xvmovdp	vs32,vs32
	addi	r11,r11,-4
	stb	r10,2352(r13)
	hrfid
	exser
	blr
	srdi	r11,r11,10
	lis	r11,24576
	dcbtds	0,r11,10
	rfid
	rfscv
	mflr	r11
	lhz	r10,2568(r13)
	sth	r10,2568(r13)
	sldi	r10,r10,32
	cmpd	cr1,r9,r10
	mfxer	r11
	mtxer	r9
	mtlr	r9
	lwz	r10,2520(r13)
	tdgei	r1,-784
	rlwinm	r10,r3,16,30,31
	andc	r10,r10,r3
	and	r10,r10,r11
	cmpld	r11,r10
	or	r9,r9,r10
	stdcx.	r0,0,r1
	rldimi	r12,r11,28,35
	bctrl
	rotldi	r2,r2,16
	ldx	r13,r9,r8
	cmpw	r6,r24
	lwarx	r4,0,r3
	stwcx.	r4,0,r3
	beqlr
	cmpldi	r5,0
	srwi	r0,r0,16
	cmplwi	r7,1
	add	r25,r25,r26
	mr.	r4,r26
	stdx	r0,r6,r3
	dcbst	r6,r3
	icbi	r6,r3
	ldarx	r0,0,r1
	clrrdi	r1,r1,4
	subf	r11,r8,r11
	srdi.	r11,r11,3
	stdu	r0,8(r8)
	clrldi	r0,r25,2
	lfd	f0,512(r3)
	.ifdef WIDE
	mtfsf	255,f0,1
	.endif
	lxvd2x	vs0,r3,r4
	xxswapd	vs0,vs0
	stfd	f0,0(r3)
	stxvd2x	vs0,r3,r4
	mffs	f0
	lvx	v0,r4,r3
	mtvscr	v0
	stvx	v0,r3,r4
	mfvscr	v0
	mtmsr	r11
	lfsx	f0,r4,r6
	fadds	f0,f0,f1
	stfsx	f0,r3,r6
	fsubs	f0,f0,f1
	fmadds	f0,f0,f2,f1
	fnmsubs	f0,f0,f2,f1
	fdivs	f0,f1,f0
	frsqrte	f1,f0
	fmuls	f3,f1,f0
	.long	0x4c400420	# bcctr 2,lt: the kernel's flush of the count cache
	clrldi.	r0,r6,2
	cror	eq,4*cr1+eq,eq
	stdbrx	r7,r12,r9
	slbie	r6
	slbmte	r7,r0
	slwi	r28,r28,16
	clrrwi	r31,r31,3
	extsw	r31,r31
	lwa	r5,44(r1)
	xor.	r10,r10,r9
	ldbrx	r3,0,r4
	cmpb	r9,r10,r30
	orc.	r9,r9,r8
	cntlzd	r9,r9
	rldcl	r10,r10,r9,56
	clrlwi	r3,r3,24
	srd	r9,r9,r10
	twui	r0,0
	rldic	r10,r9,8,50
	cntlzw	r3,r3
	lhbrx	r10,0,r9
	lbzu	r9,1(r31)
	addic	r10,r10,-1
	bnelr
	tdnei	r9,0
	rldicl	r9,r9,62,1
	lwzx	r10,r9,r8
	stwx	r10,r9,r8
	cmplw	r10,r28
	lha	r3,56(r9)
	rotlwi	r30,r30,24
	rlwimi	r30,r9,8,8,15
	xor	r9,r3,r9
	subfe	r9,r10,r9
	subfic	r10,r4,-4280
	mfspr	r9,795
	lwsync
	mtspr	1008,r9
	lwax	r9,r8,r9
	subfc	r3,r3,r5
	and.	r9,r9,r10
	mfdscr	r10
	mffscr	r10
	andc.	r10,r10,r9
	cpabort
	mtdscr	r9
	mtfscr	r9
	rldicr	r8,r0,2,9
	mtctrl	r9
	rotldi.	r10,r10,2
	neg	r6,r6
	lbzx	r10,r8,r9
	stbx	r7,r8,r9
	lwbrx	r9,0,r3
	addze	r25,r25
	sld	r29,r29,r9
	ldu	r30,8(r26)
	mftb	r10
	blelr
	pause_short
	xoris	r10,r29,31744
	not	r17,r26
	slw	r25,r25,r17
	stbu	r8,4(r24)
	rldicr.	r9,r30,44,1
	lfs	f0,0(0)
	mtcrf	56,r0
	eieio
	twi	0,r10,0
	lwzu	r8,4(r9)
	mcrf	cr7,cr0
	stdux	r10,r1,r9
	subf.	r5,r9,r31
	nor	r9,r9,r8
	msgclr	r9
	msgclrp	r9
	rldicl.	r9,r9,4,63
	stwbrx	r6,0,r9
	sthbrx	r9,0,r8
	bgtlr
	bgelr
	slbia	7
	clrrdi.	r9,r9,19
	stwu	r7,4(r6)
	srw	r9,r8,r9
	stop
	ptesync
	nap
	rvwinkle
	mttbl	r10
	mttbu	r8
	sthx	r19,r29,r9
	add.	r25,r30,r31
	adde	r3,r3,r8
	lhzx	r10,r19,r30
	msgsync
	fnmadd.	f31,f31,f31,f31
	or.	r27,r9,r27
	tlbsync
	sc	2
	extsh	r5,r5
	dssall
	addc	r3,r9,r3
	dcbz	0,r3
	.ifdef WIDE
	tlbie	r9,r3,2
	.endif
	tlbiel	r7,r10,2
	popcntd	r9,r9
	slbmfee	r8,r9
	slbmfev	r10,r9
	sldi.	r30,r9,3
	lwzux	r24,r23,r10
	srd.	r10,r10,r9
	dcbfps	0,r9
	dcbstps	0,r9
	dcbtct	0,r3
	vcmpequd.	v0,v0,v1
	lvsr	v3,0,r3
	vperm	v9,v7,v5,v3
	vcmpequb.	v7,v9,v10
	vmr	v6,v8
	dcbtstds	0,r9
	rotld	r9,r9,r8
	extsw.	r10,r10
	darn	r10,0
	popcntw	r9,r9
	nand	r9,r9,r10
	xsmsubqp	v31,v31,v29
	extsb	r9,r9
	maddhd	r10,r10,r9,r7
	maddld	r10,r10,r9,r7
	maddhdu	r10,r10,r9,r7
	eqv	r9,r9,r10
	orc	r9,r9,r10
	lhax	r9,r4,r8
	lharx	r9,0,r30
	lbarx	r9,0,r30
	sthcx.	r9,0,r30
	stbcx.	r9,0,r30
	sthu	r6,2(r9)
	fnmsub	f31,f31,f2,f30
	dcbtstct	0,r29
	dcbf	0,r29
	xxmr	vs0,vs1
	stfs	f0,0(r4)
	vxor	v12,v12,v8
	crand	eq,eq,4*cr6+eq
	srwi.	r0,r5,3
	bnslr	cr7
	popcntb	r3,r3
	lq	r6,0(r3)
	stq	r4,0(r3)
	lqarx	r6,0,r3
	stqcx.	r4,0,r3
	rotlw	r9,r10,r9
	clrlwi.	r30,r31,8
	stbcix	r10,0,r9
	msgsnd	r9
	msgsndp	r9
	ldcix	r9,0,r9
	copy	r4,r3
	paste.	r27,r4
	rldic.	r29,r29,48,4
	mfctrl	r3
	mftbu	r3
	mttbu40	r4
	clrrwi.	r10,r4,8
	twnei	r0,0
	slbfee.	r5,r0
	lwzcix	r9,0,r9
	stwcix	r9,0,r31
	clrbhrb
	lbzux	r9,r23,r27
	fmsub	f31,f31,f29,f31
	subfc.	r9,r9,r7
	stwux	r29,r9,r10
	addme	r11,r11
	extsh.	r8,r11
	dtstdgq	cr7,f30,63
	neg.	r9,r9
	extsb.	r26,r26
	not.	r8,r9
	lhau	r8,8(r10)
	fmrgew	f31,f31,f31
	ldux	r5,r7,r28
	stbux	r9,r10,r8
	xsiexpqp	v31,v31,v31

	# Transfers.
	b	. + 0x1000
	b	. - 0x2000000
	ba	0x100
	bl	. + 0x1fffffc
	bla	0x3000
	.irp	options, 0, 2, 4, 8, 10, 12, 16, 18
	bc	\options,6, . + 0x100
	bcl	\options,6, . - 0x100
	bca	\options,6, 0x1000
	bclr	\options,6
	bclrl	\options,6
	.endr
	bc	20,0, . + 0x40
	bcl	20,31, . + 4
	bdnz	. - 0x8000
	bne+	cr7, . + 0x7ffc
	blr
	blrl
	bctr
	bctrl
	bcctr	4,2
	bcctrl	12,2

	# Traps and interrupts.
	sc
	trap
	twu	r3,r4
	twui	r0,0
	twi	28,r3,5
	twi	7,r3,5
	tw	30,r3,r4
	tw	15,r3,r4
	twnei	r3,0
	tweq	r3,r4
	twllei	r3,7
	rfi
	.long	0x00000200	# attn

	# No instructions.
	.long	0
	.long	0xffffffff
	.long	0x14000000
	.long	0x7c0007fe
	.long	0x4c000002

	.ifdef WIDE
	tdu	r3,r4
	tdui	r0,0
	tdnei	r3,0
	td	30,r3,r4
	scv	0
	rfid
	hrfid
	rfscv
	urfid
	rfebb	1
	nap
	stop
	btar
	bctarl	12,2
	bctar	4,30
	addpcis	r3,-5

	# ISA 3.1.
	pli	r3,0x123456789
	paddi	r3,r4,-1,0
	pla	r3,16
	plbz	r3,-8(r4),0
	plhz	r3,0(r4),0
	plha	r3,0(r4),0
	plwz	r3,0(r4),0
	plwa	r3,0x12345678(0),1
	pld	r3,0(0),1
	pstb	r3,0(r4),0
	psth	r3,0(r4),0
	pstw	r3,0(r4),0
	pstd	r3,-0x200000000(r4),0
	plq	r4,0(r6),0
	pstq	r4,0(r6),0
	plfs	f1,0(r4),0
	plfd	f1,0(r4),0
	pstfs	f1,0(r4),0
	pstfd	f1,0(r4),0
	plxsd	v1,0(r4),0
	plxssp	v1,0(r4),0
	pstxsd	v1,0(r4),0
	pstxssp	v1,0(r4),0
	plxv	vs33,0(r4),0
	pstxv	vs1,0(r4),0
	plxvp	vs34,0(r4),0
	pstxvp	vs2,0(r4),0
	xxspltiw	vs1,5
	xxspltidp	vs1,5
	xxsplti32dx	vs1,1,5
	xxblendvw	vs1,vs2,vs3,vs4
	xxpermx	vs1,vs2,vs3,vs4,5
	xxeval	vs1,vs2,vs3,vs4,5
	pmxvf32ger	a0,vs4,vs5,3,3
	pmxvi8ger4pp	a2,vs4,vs5,3,3,3
	pnop
	xvf32ger	a0,vs4,vs5
	xxmfacc	a0
	lxvp	vs2,0(r4)
	lxvrbx	vs1,r3,r4
	setbc	r3,2
	brd	r3,r4
	cfuged	r3,r4,r5
	hashst	r3,-8(r4)
	.else
	ba	-0x100

	# Book E.
	rfci
	rfdi
	rfmci
	wrtee	r3
	wrteei	1
	tlbre
	tlbwe
	tlbsx	0,r3
	tlbivax	r3,r4
	mbar	0
	msync
	isel	r3,r4,r5,2
	icbt	0,0,r4
	lwepx	r3,r4,r5
	msgsnd	r3
	ehpriv
	dnh	1,2
	mtdcr	22,r3
	mfpmr	r3,16
	evldd	r3,8(r4)
	evaddw	r3,r4,r5
	efsadd	r3,r4,r5
	.endif
