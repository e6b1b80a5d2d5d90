# The instructions that `arch/examples/powerpc_states.rs` runs in QEMU and in the executor; for 64 bits with
# `--defsym WIDE=1`. A new line must heed: accesses are made through a register or to 0x3150; direct targets are 0x40 before
# or behind; no trap is taken.

	.macro	three name
	\name	3,4,5
	\name	6,6,7
	\name	8,9,8
	\name	10,11,11
	.endm
	.macro	recorded name
	three	\name
	\name\().	3,4,5
	\name\().	12,12,13
	.endm
	.macro	overflowing name
	recorded	\name
	\name\()o	3,4,5
	\name\()o.	14,15,16
	.endm
	# Quotients of a number by itself are undefined for these.
	.macro	extended name
	.irp	suffix, , ., o, o.
	\name\suffix	3,4,5
	\name\suffix	6,6,7
	\name\suffix	8,9,8
	.endr
	.endm
	.macro	two name
	\name	3,4
	\name	5,5
	.endm
	.macro	two_recorded name
	two	\name
	\name\().	6,7
	.endm
	.macro	two_overflowing name
	two_recorded	\name
	\name\()o	3,4
	\name\()o.	8,9
	.endm
	.macro	numbers name
	.irp	number, 0, 1, -1, 0x7fff, -0x8000, 1234
	\name	3,4,\number
	.endr
	\name	5,5,-5
	.endm
	.macro	bits name
	.irp	number, 0, 1, 0xffff, 0x8000, 0x1234
	\name	3,4,\number
	.endr
	\name	5,5,0xff
	.endm

	# Arithmetic.
	numbers	addi
	numbers	addis
	addi	3,0,-7
	addis	3,0,0x7000
	addi	1,1,-112
	numbers	addic
	numbers	addic.
	numbers	subfic
	numbers	mulli
	overflowing	add
	overflowing	addc
	overflowing	adde
	overflowing	subf
	overflowing	subfc
	overflowing	subfe
	two_overflowing	addze
	two_overflowing	addme
	two_overflowing	subfze
	two_overflowing	subfme
	two_overflowing	neg
	recorded	mulhw
	recorded	mulhwu
	overflowing	mullw
	overflowing	divw
	overflowing	divwu
	.ifdef WIDE
	recorded	mulhd
	recorded	mulhdu
	overflowing	mulld
	overflowing	divd
	overflowing	divdu
	extended	divde
	extended	divdeu
	extended	divwe
	extended	divweu
	three	modsd
	three	modud
	three	modsw
	three	moduw
	maddhd	3,4,5,6
	maddhd	7,7,8,7
	maddhdu	3,4,5,6
	maddld	3,4,5,6
	maddld	9,9,9,9
	addpcis	3,0
	addpcis	4,-1
	addpcis	5,0x1234
	addpcis	6,-0x8000
	paddi	3,4,0x123456789,0
	paddi	3,4,-1,0
	paddi	5,0,-0x200000000,0
	paddi	6,0,0x1ffffffff,0
	paddi	7,0,0x1000,1
	paddi	8,0,-4,1
	.endif

	# Logic.
	bits	ori
	bits	oris
	bits	xori
	bits	xoris
	bits	andi.
	bits	andis.
	recorded	and
	recorded	andc
	recorded	or
	recorded	orc
	recorded	xor
	recorded	nor
	recorded	nand
	recorded	eqv
	nop
	mr	1,31
	two_recorded	extsb
	two_recorded	extsh
	two_recorded	cntlzw
	.ifdef WIDE
	two_recorded	extsw
	two_recorded	cntlzd
	two_recorded	cnttzw
	two_recorded	cnttzd
	two	popcntb
	two	popcntw
	two	popcntd
	two	prtyw
	two	prtyd
	two	brh
	two	brw
	two	brd
	three	cmpb
	three	bpermd
	.endif

	# Rotates and shifts.
	.macro	rotates name
	\name	3,4,0,0,31
	\name	3,4,5,6,7
	\name	8,8,31,16,31
	\name	9,10,1,31,0
	\name	11,12,28,27,3
	\name	13,14,16,0,15
	\name\().	3,4,5,20,10
	\name\().	3,4,8,0,31
	.endm
	rotates	rlwinm
	rotates	rlwimi
	rotates	rlwnm
	recorded	slw
	recorded	srw
	recorded	sraw
	.irp	by, 0, 1, 16, 31
	srawi	3,4,\by
	srawi.	5,5,\by
	.endr
	.ifdef WIDE
	.macro	doubles name
	\name	3,4,0,0
	\name	3,4,0,63
	\name	5,6,1,32
	\name	7,7,33,31
	\name	8,9,63,1
	\name	10,11,32,48
	\name\().	12,13,5,7
	\name\().	14,14,44,20
	.endm
	doubles	rldicl
	doubles	rldicr
	doubles	rldic
	doubles	rldimi
	.irp	end, 0, 7, 32, 63
	rldcl	3,4,5,\end
	rldcl.	6,6,7,\end
	rldcr	8,9,8,\end
	rldcr.	10,11,12,\end
	.endr
	recorded	sld
	recorded	srd
	recorded	srad
	.irp	by, 0, 1, 31, 32, 63
	sradi	3,4,\by
	sradi.	5,5,\by
	extswsli	3,4,\by
	extswsli.	5,5,\by
	.endr
	.endif

	# Compares, and the condition register.
	.irp	field, 0, 1, 7
	cmpw	\field,3,4
	cmplw	\field,5,6
	cmpwi	\field,7,-1
	cmpwi	\field,7,79
	cmplwi	\field,8,0xffff
	cmplwi	\field,8,3
	.ifdef WIDE
	cmpd	\field,3,4
	cmpld	\field,5,6
	cmpdi	\field,7,-1
	cmpldi	\field,8,0xffff
	cmprb	\field,0,9,10
	cmprb	\field,1,9,10
	cmpeqb	\field,11,12
	mcrxrx	\field
	.endif
	mcrf	\field,3
	mcrf	2,\field
	.endr
	.irp	operation, crand, crandc, creqv, crnand, crnor, cror, crorc, crxor
	\operation	0,1,2
	\operation	31,30,29
	\operation	6,6,17
	\operation	13,20,20
	.endr
	mfcr	3
	mtcrf	0xff,4
	mtcrf	0x81,5
	mtcrf	0x00,5
	.irp	one, 0x80, 0x10, 0x01
	mfocrf	6,\one
	mtocrf	\one,7
	.endr
	.irp	bit, 0, 2, 13, 31
	isel	3,4,5,\bit
	isel	6,0,7,\bit
	isel	8,8,9,\bit
	.ifdef WIDE
	setbc	3,\bit
	setbcr	4,\bit
	setnbc	5,\bit
	setnbcr	6,\bit
	.endif
	.endr
	.ifdef WIDE
	setb	3,0
	setb	4,5
	.endif
	mfxer	3
	mtxer	4
	mflr	0
	mtlr	0
	mfctr	12
	mtctr	12
	.ifdef WIDE
	mfspr	3,815
	.endif
	sync
	lwsync
	eieio
	isync
	dcbt	0,4
	dcbtst	3,4
	dcbst	3,4
	dcbf	0,4
	icbi	3,4

	# Accesses.
	.macro	displaced name
	\name	3,0(4)
	\name	5,16(6)
	\name	7,-8(8)
	\name	9,0x3150(0)
	\name	0,8(1)
	.endm
	.macro	updating name
	\name	3,0(4)
	\name	5,16(6)
	\name	7,-32(1)
	.endm
	.macro	indexed name
	\name	3,4,5
	\name	6,0,7
	\name	8,9,9
	\name	10,11,10
	.endm
	.macro	indexed_updating name
	\name	3,4,5
	\name	8,9,8
	.endm
	.irp	name, lbz, lhz, lha, lwz, stb, sth, stw
	displaced	\name
	displaced	\name
	.endr
	.irp	name, lbzu, lhzu, lhau, lwzu, stbu, sthu, stwu
	updating	\name
	.endr
	stwu	1,-32(1)
	stbu	4,1(4)
	.irp	name, lbzx, lhzx, lhax, lwzx, stbx, sthx, stwx, lhbrx, lwbrx, sthbrx, stwbrx
	indexed	\name
	.endr
	.irp	name, lbzux, lhzux, lhaux, lwzux, stbux, sthux, stwux
	indexed_updating	\name
	.endr
	.ifdef WIDE
	.irp	name, ld, lwa, std
	displaced	\name
	.endr
	.irp	name, ldu, stdu
	updating	\name
	.endr
	stdu	1,-112(1)
	.irp	name, ldx, lwax, stdx, ldbrx, stdbrx
	indexed	\name
	.endr
	.irp	name, ldux, lwaux, stdux
	indexed_updating	\name
	.endr
	.irp	name, plbz, plhz, plha, plwz, plwa, pld, pstb, psth, pstw, pstd
	\name	3,0x12345678(4),0
	\name	5,-0x100000000(6),0
	\name	7,0x3150(0),0
	\name	8,-57264(0),1
	.endr
	.else
	lmw	5,0(4)
	lmw	29,-8(3)
	lmw	31,0x3150(0)
	stmw	5,0(4)
	stmw	29,-8(30)
	stmw	0,0(4)
	stmw	31,0x3150(0)
	.endif

	# Branches.
	b	. + 0x40
	b	. - 0x40
	bl	. + 0x40
	bl	. - 0x40
	ba	0x11140
	bla	0x11140
	.irp	options, 0, 2, 4, 6, 7, 8, 10, 12, 14, 15, 16, 18, 20, 25, 27
	bc	\options,0, . + 0x40
	bc	\options,30, . - 0x40
	bcl	\options,13, . + 0x40
	bclr	\options,2
	bclrl	\options,31
	.endr
	.irp	options, 4, 6, 12, 14, 20
	bcctr	\options,1
	bcctrl	\options,28
	.endr
	.ifdef WIDE
	.irp	options, 0, 2, 4, 8, 10, 12, 16, 18, 20
	bctar	\options,1
	bctarl	\options,28
	.endr
	.endif
