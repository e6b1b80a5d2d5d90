! What harness.c runs: each case ends with a word 0. Memory is 256 bytes; %i0, %i1 and %sp + 2047 point into it, %i2 is a small
! multiple of 8, %i3 a negative one, and %i4 points to the ninth instruction of the case. %g7 is taken.
.data
.align 4
.globl cases_start, cases_end
cases_start:
! Arithmetic and logic, with a register and with a constant, without and with condition codes
	add %o0, %o1, %o2
	.word 0
	addcc %o0, %o1, %o2
	.word 0
	addcc %o0, -3, %o0
	.word 0
	sub %o0, %o1, %o2
	.word 0
	subcc %o0, %o1, %o2
	.word 0
	subcc %o0, -3, %o0
	.word 0
	and %o0, %o1, %o2
	.word 0
	andcc %o0, %o1, %o2
	.word 0
	andcc %o0, -3, %o0
	.word 0
	or %o0, %o1, %o2
	.word 0
	orcc %o0, %o1, %o2
	.word 0
	orcc %o0, -3, %o0
	.word 0
	xor %o0, %o1, %o2
	.word 0
	xorcc %o0, %o1, %o2
	.word 0
	xorcc %o0, -3, %o0
	.word 0
	andn %o0, %o1, %o2
	.word 0
	andncc %o0, %o1, %o2
	.word 0
	andncc %o0, -3, %o0
	.word 0
	orn %o0, %o1, %o2
	.word 0
	orncc %o0, %o1, %o2
	.word 0
	orncc %o0, -3, %o0
	.word 0
	xnor %o0, %o1, %o2
	.word 0
	xnorcc %o0, %o1, %o2
	.word 0
	xnorcc %o0, -3, %o0
	.word 0
	addc %o0, %o1, %o2
	.word 0
	addc %o0, 1, %o2
	.word 0
	subc %o0, %o1, %o2
	.word 0
	subc %o0, 1, %o2
	.word 0
	addccc %o0, %o1, %o2
	.word 0
	addccc %o0, 1, %o2
	.word 0
	subccc %o0, %o1, %o2
	.word 0
	subccc %o0, 1, %o2
	.word 0
	addcc %o0, %o1, %o0
	addccc %o0, %o2, %o3
	subccc %o1, %o4, %l0
	subc %l1, %o5, %l2
	.word 0
	mulx %o0, %o1, %o2
	.word 0
	mulx %o0, -7, %o2
	.word 0
	umul %o0, %o1, %o2
	.word 0
	umul %o0, -7, %o2
	.word 0
	smul %o0, %o1, %o2
	.word 0
	smul %o0, -7, %o2
	.word 0
	umulcc %o0, %o1, %o2
	.word 0
	umulcc %o0, -7, %o2
	.word 0
	smulcc %o0, %o1, %o2
	.word 0
	smulcc %o0, -7, %o2
	.word 0
	or %o1, 1, %o1
	sdivx %o0, %o1, %o2
	.word 0
	sdivx %o0, -1, %o2
	.word 0
	sdivx %o0, 10, %o2
	.word 0
	or %o1, 1, %o1
	udivx %o0, %o1, %o2
	.word 0
	udivx %o0, -1, %o2
	.word 0
	udivx %o0, 10, %o2
	.word 0
! Shifts
	and %o0, 0xff, %o0
	and %o1, 0x37, %o1
	sll %o0, %o1, %o2
	.word 0
	srl %o0, 0, %o0
	sll %o0, 0, %o2
	.word 0
	and %o0, 1, %o0
	sll %o0, 31, %o2
	.word 0
	srl %o0, %o1, %o2
	.word 0
	srl %o0, 0, %o2
	.word 0
	srl %o0, 31, %o2
	.word 0
	sra %o0, %o1, %o2
	.word 0
	sra %o0, 0, %o2
	.word 0
	sra %o0, 31, %o2
	.word 0
	sllx %o0, %o1, %o2
	.word 0
	sllx %o0, 0, %o2
	.word 0
	sllx %o0, 31, %o2
	.word 0
	srlx %o0, %o1, %o2
	.word 0
	srlx %o0, 0, %o2
	.word 0
	srlx %o0, 31, %o2
	.word 0
	srax %o0, %o1, %o2
	.word 0
	srax %o0, 0, %o2
	.word 0
	srax %o0, 31, %o2
	.word 0
	sllx %o0, 32, %o2
	.word 0
	sllx %o0, 63, %o2
	.word 0
	srlx %o0, 32, %o2
	.word 0
	srlx %o0, 63, %o2
	.word 0
	srax %o0, 32, %o2
	.word 0
	srax %o0, 63, %o2
	.word 0
! Constants, nothing, the registers of state
	nop
	.word 0
	sethi %hi(0xfffffc00), %o0
	.word 0
	sethi 0, %o1
	.word 0
	rd %y, %o0
	.word 0
	wr %o0, %o1, %y
	.word 0
	wr %o0, 5, %y
	.word 0
	rd %ccr, %o0
	.word 0
	wr %o0, %o1, %ccr
	.word 0
	wr %g0, 0x5a, %ccr
	.word 0
	rd %pc, %o0
	.word 0
	membar #Sync
	.word 0
	stbar
	.word 0
	prefetch [%i0], 0
	.word 0
	flush %i4
	.word 0
	add %g0, 5, %g0
	.word 0
	mov %o0, %g1
	.word 0
	mov %i7, %l7
	.word 0
	mov %sp, %fp
	.word 0
	add %sp, -16, %sp
	.word 0
	add %sp, 16, %sp
	.word 0
! Moves on conditions
	movn %xcc, %o0, %o1
	.word 0
	cmp %o0, %o1
	movn %icc, -5, %o2
	.word 0
	move %icc, %o0, %o1
	.word 0
	cmp %o0, %o1
	move %xcc, -5, %o2
	.word 0
	movle %xcc, %o0, %o1
	.word 0
	cmp %o0, %o1
	movle %icc, -5, %o2
	.word 0
	movl %icc, %o0, %o1
	.word 0
	cmp %o0, %o1
	movl %xcc, -5, %o2
	.word 0
	movleu %xcc, %o0, %o1
	.word 0
	cmp %o0, %o1
	movleu %icc, -5, %o2
	.word 0
	movcs %icc, %o0, %o1
	.word 0
	cmp %o0, %o1
	movcs %xcc, -5, %o2
	.word 0
	movneg %xcc, %o0, %o1
	.word 0
	cmp %o0, %o1
	movneg %icc, -5, %o2
	.word 0
	movvs %icc, %o0, %o1
	.word 0
	cmp %o0, %o1
	movvs %xcc, -5, %o2
	.word 0
	mova %xcc, %o0, %o1
	.word 0
	cmp %o0, %o1
	mova %icc, -5, %o2
	.word 0
	movne %icc, %o0, %o1
	.word 0
	cmp %o0, %o1
	movne %xcc, -5, %o2
	.word 0
	movg %xcc, %o0, %o1
	.word 0
	cmp %o0, %o1
	movg %icc, -5, %o2
	.word 0
	movge %icc, %o0, %o1
	.word 0
	cmp %o0, %o1
	movge %xcc, -5, %o2
	.word 0
	movgu %xcc, %o0, %o1
	.word 0
	cmp %o0, %o1
	movgu %icc, -5, %o2
	.word 0
	movcc %icc, %o0, %o1
	.word 0
	cmp %o0, %o1
	movcc %xcc, -5, %o2
	.word 0
	movpos %xcc, %o0, %o1
	.word 0
	cmp %o0, %o1
	movpos %icc, -5, %o2
	.word 0
	movvc %icc, %o0, %o1
	.word 0
	cmp %o0, %o1
	movvc %xcc, -5, %o2
	.word 0
	movrz %o0, %o1, %o2
	.word 0
	movrz %o0, -5, %o2
	.word 0
	movrlez %o0, %o1, %o2
	.word 0
	movrlez %o0, -5, %o2
	.word 0
	movrlz %o0, %o1, %o2
	.word 0
	movrlz %o0, -5, %o2
	.word 0
	movrnz %o0, %o1, %o2
	.word 0
	movrnz %o0, -5, %o2
	.word 0
	movrgz %o0, %o1, %o2
	.word 0
	movrgz %o0, -5, %o2
	.word 0
	movrgez %o0, %o1, %o2
	.word 0
	movrgez %o0, -5, %o2
	.word 0
! Loads and stores
	ldub [%i0 + %i2], %o0
	.word 0
	ldub [%i1 - 8], %o2
	.word 0
	ldub [%sp + 2047], %l2
	.word 0
	lduh [%i0 + %i2], %o0
	.word 0
	lduh [%i1 - 8], %o2
	.word 0
	lduh [%sp + 2047], %l2
	.word 0
	lduw [%i0 + %i2], %o0
	.word 0
	lduw [%i1 - 8], %o2
	.word 0
	lduw [%sp + 2047], %l2
	.word 0
	ldx [%i0 + %i2], %o0
	.word 0
	ldx [%i1 - 8], %o2
	.word 0
	ldx [%sp + 2047], %l2
	.word 0
	ldsb [%i0 + %i2], %o0
	.word 0
	ldsb [%i1 - 8], %o2
	.word 0
	ldsb [%sp + 2047], %l2
	.word 0
	ldsh [%i0 + %i2], %o0
	.word 0
	ldsh [%i1 - 8], %o2
	.word 0
	ldsh [%sp + 2047], %l2
	.word 0
	ldsw [%i0 + %i2], %o0
	.word 0
	ldsw [%i1 - 8], %o2
	.word 0
	ldsw [%sp + 2047], %l2
	.word 0
	ldd [%i0 + %i2], %o0
	.word 0
	ldd [%i1 - 8], %o2
	.word 0
	ldd [%sp + 2047], %l2
	.word 0
	stb %o0, [%i0 + %i3]
	.word 0
	stb %o2, [%i1 + 8]
	.word 0
	sth %o0, [%i0 + %i3]
	.word 0
	sth %o2, [%i1 + 8]
	.word 0
	stw %o0, [%i0 + %i3]
	.word 0
	stw %o2, [%i1 + 8]
	.word 0
	stx %o0, [%i0 + %i3]
	.word 0
	stx %o2, [%i1 + 8]
	.word 0
	std %o0, [%i0 + %i3]
	.word 0
	std %o2, [%i1 + 8]
	.word 0
	stx %g0, [%i0]
	.word 0
	ldub [%i0 + 7], %o0
	.word 0
	ldsh [%i0 + 6], %o0
	.word 0
	stb %o0, [%i0 + 3]
	.word 0
	ldx [%i0], %g0
	.word 0
	ldd [%i0], %g2
	.word 0
	ldxa [%i0] 0x80, %o0
	.word 0
	stba %o0, [%i0 + %i2] 0x80
	.word 0
	ldswa [%i1 + %i3] 0x80, %o0
	.word 0
	ldstub [%i0 + 5], %o0
	.word 0
	swap [%i0 + 4], %o0
	.word 0
	swap [%i1], %g0
	.word 0
	casx [%i0], %o0, %o1
	.word 0
	ldx [%i0], %o0
	casx [%i0], %o0, %o1
	.word 0
	cas [%i1], %o0, %o1
	.word 0
	lduw [%i1], %o0
	cas [%i1], %o0, %o1
	.word 0
	ldsw [%i1], %o0
	cas [%i1], %o0, %o1
	.word 0
! Branches: which of the four additions happen tells the way
	bn 1f
	add %g1, 1, %g1
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
	bn,a 1f
	add %g1, 1, %g1
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
	bn,pt %xcc, 1f
	add %g1, 1, %g1
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
	bn,a,pn %icc, 1f
	add %g1, 1, %g1
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
	cmp %o0, %o1
	bn,a,pt %xcc, 1f
	add %g1, 1, %g1
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
	be 1f
	add %g1, 1, %g1
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
	be,a 1f
	add %g1, 1, %g1
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
	be,pt %xcc, 1f
	add %g1, 1, %g1
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
	be,a,pn %icc, 1f
	add %g1, 1, %g1
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
	cmp %o0, %o1
	be,a,pt %xcc, 1f
	add %g1, 1, %g1
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
	ble 1f
	add %g1, 1, %g1
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
	ble,a 1f
	add %g1, 1, %g1
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
	ble,pt %xcc, 1f
	add %g1, 1, %g1
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
	ble,a,pn %icc, 1f
	add %g1, 1, %g1
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
	cmp %o0, %o1
	ble,a,pt %xcc, 1f
	add %g1, 1, %g1
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
	bl 1f
	add %g1, 1, %g1
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
	bl,a 1f
	add %g1, 1, %g1
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
	bl,pt %xcc, 1f
	add %g1, 1, %g1
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
	bl,a,pn %icc, 1f
	add %g1, 1, %g1
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
	cmp %o0, %o1
	bl,a,pt %xcc, 1f
	add %g1, 1, %g1
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
	bleu 1f
	add %g1, 1, %g1
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
	bleu,a 1f
	add %g1, 1, %g1
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
	bleu,pt %xcc, 1f
	add %g1, 1, %g1
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
	bleu,a,pn %icc, 1f
	add %g1, 1, %g1
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
	cmp %o0, %o1
	bleu,a,pt %xcc, 1f
	add %g1, 1, %g1
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
	bcs 1f
	add %g1, 1, %g1
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
	bcs,a 1f
	add %g1, 1, %g1
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
	bcs,pt %xcc, 1f
	add %g1, 1, %g1
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
	bcs,a,pn %icc, 1f
	add %g1, 1, %g1
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
	cmp %o0, %o1
	bcs,a,pt %xcc, 1f
	add %g1, 1, %g1
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
	bneg 1f
	add %g1, 1, %g1
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
	bneg,a 1f
	add %g1, 1, %g1
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
	bneg,pt %xcc, 1f
	add %g1, 1, %g1
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
	bneg,a,pn %icc, 1f
	add %g1, 1, %g1
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
	cmp %o0, %o1
	bneg,a,pt %xcc, 1f
	add %g1, 1, %g1
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
	bvs 1f
	add %g1, 1, %g1
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
	bvs,a 1f
	add %g1, 1, %g1
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
	bvs,pt %xcc, 1f
	add %g1, 1, %g1
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
	bvs,a,pn %icc, 1f
	add %g1, 1, %g1
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
	cmp %o0, %o1
	bvs,a,pt %xcc, 1f
	add %g1, 1, %g1
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
	ba 1f
	add %g1, 1, %g1
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
	ba,a 1f
	add %g1, 1, %g1
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
	ba,pt %xcc, 1f
	add %g1, 1, %g1
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
	ba,a,pn %icc, 1f
	add %g1, 1, %g1
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
	cmp %o0, %o1
	ba,a,pt %xcc, 1f
	add %g1, 1, %g1
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
	bne 1f
	add %g1, 1, %g1
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
	bne,a 1f
	add %g1, 1, %g1
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
	bne,pt %xcc, 1f
	add %g1, 1, %g1
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
	bne,a,pn %icc, 1f
	add %g1, 1, %g1
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
	cmp %o0, %o1
	bne,a,pt %xcc, 1f
	add %g1, 1, %g1
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
	bg 1f
	add %g1, 1, %g1
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
	bg,a 1f
	add %g1, 1, %g1
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
	bg,pt %xcc, 1f
	add %g1, 1, %g1
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
	bg,a,pn %icc, 1f
	add %g1, 1, %g1
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
	cmp %o0, %o1
	bg,a,pt %xcc, 1f
	add %g1, 1, %g1
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
	bge 1f
	add %g1, 1, %g1
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
	bge,a 1f
	add %g1, 1, %g1
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
	bge,pt %xcc, 1f
	add %g1, 1, %g1
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
	bge,a,pn %icc, 1f
	add %g1, 1, %g1
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
	cmp %o0, %o1
	bge,a,pt %xcc, 1f
	add %g1, 1, %g1
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
	bgu 1f
	add %g1, 1, %g1
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
	bgu,a 1f
	add %g1, 1, %g1
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
	bgu,pt %xcc, 1f
	add %g1, 1, %g1
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
	bgu,a,pn %icc, 1f
	add %g1, 1, %g1
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
	cmp %o0, %o1
	bgu,a,pt %xcc, 1f
	add %g1, 1, %g1
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
	bcc 1f
	add %g1, 1, %g1
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
	bcc,a 1f
	add %g1, 1, %g1
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
	bcc,pt %xcc, 1f
	add %g1, 1, %g1
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
	bcc,a,pn %icc, 1f
	add %g1, 1, %g1
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
	cmp %o0, %o1
	bcc,a,pt %xcc, 1f
	add %g1, 1, %g1
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
	bpos 1f
	add %g1, 1, %g1
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
	bpos,a 1f
	add %g1, 1, %g1
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
	bpos,pt %xcc, 1f
	add %g1, 1, %g1
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
	bpos,a,pn %icc, 1f
	add %g1, 1, %g1
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
	cmp %o0, %o1
	bpos,a,pt %xcc, 1f
	add %g1, 1, %g1
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
	bvc 1f
	add %g1, 1, %g1
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
	bvc,a 1f
	add %g1, 1, %g1
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
	bvc,pt %xcc, 1f
	add %g1, 1, %g1
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
	bvc,a,pn %icc, 1f
	add %g1, 1, %g1
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
	cmp %o0, %o1
	bvc,a,pt %xcc, 1f
	add %g1, 1, %g1
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
	brz,pt %o0, 1f
	add %g1, 1, %g1
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
	brz,a,pn %o0, 1f
	add %g1, 1, %g1
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
	brlez,pt %o0, 1f
	add %g1, 1, %g1
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
	brlez,a,pn %o0, 1f
	add %g1, 1, %g1
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
	brlz,pt %o0, 1f
	add %g1, 1, %g1
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
	brlz,a,pn %o0, 1f
	add %g1, 1, %g1
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
	brnz,pt %o0, 1f
	add %g1, 1, %g1
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
	brnz,a,pn %o0, 1f
	add %g1, 1, %g1
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
	brgz,pt %o0, 1f
	add %g1, 1, %g1
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
	brgz,a,pn %o0, 1f
	add %g1, 1, %g1
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
	brgez,pt %o0, 1f
	add %g1, 1, %g1
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
	brgez,a,pn %o0, 1f
	add %g1, 1, %g1
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
! A delay slot that changes what the branch has tested
	be 1f
	subcc %o0, %o1, %o0
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
	brz,pt %o0, 1f
	xor %o0, 1, %o0
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
	bne,a 1f
	addccc %o0, %o1, %o0
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
! Calls and indirect jumps; %i4 is 8 instructions from the start
	call 1f
	mov %o7, %o0
	add %g1, 2, %g1
	1: add %g1, 4, %g1
	.word 0
	jmpl %i4, %o7
	mov %o7, %o0
	add %g1, 2, %g1
	add %g1, 2, %g1
	add %g1, 2, %g1
	add %g1, 2, %g1
	add %g1, 2, %g1
	add %g1, 2, %g1
	add %g1, 4, %g1
	.word 0
	jmp %i4
	add %g1, 1, %g1
	add %g1, 2, %g1
	add %g1, 2, %g1
	add %g1, 2, %g1
	add %g1, 2, %g1
	add %g1, 2, %g1
	add %g1, 2, %g1
	add %g1, 4, %g1
	.word 0
	call 1f
	nop
	ba 2f
	add %g1, 1, %g1
	1: retl
	add %g1, 2, %g1
	add %g1, 8, %g1
	2: add %g1, 4, %g1
	.word 0
	call 1f
	add %o7, 4, %o7
	add %g1, 16, %g1
	ba 2f
	add %g1, 1, %g1
	1: retl
	add %g1, 2, %g1
	2: add %g1, 4, %g1
	.word 0
	mov 3, %o0
	1: brgz,pt %o0, 1b
	sub %o0, 1, %o0
	mov 3, %o1
	2: subcc %o1, 1, %o1
	bne,a 2b
	add %g1, 1, %g1
	.word 0
! Loops over memory
	mov 0, %o3
	1: ldub [%i0 + %o3], %o4
	add %o3, 1, %o3
	cmp %o3, 8
	bl,pt %icc, 1b
	add %g1, %o4, %g1
	.word 0
cases_end:
