# Runs one instruction after another for `arch/examples/powerpc_states.rs`: a static program for qemu-user.
#
# From standard input come blocks: r0 to r31, ctr, lr, xer, cr, tar as words of the machine, two instruction words, and
# 256 bytes of memory. To standard output go the same 256 bytes, the same registers, and a word that is 1 when the
# instruction went to its target. All lies below 32 KiB, where a displacement reaches without a base register, so
# that the instruction finds all registers as they came; qemu-user puts a guest's low addresses elsewhere.
#
# `.ifdef WIDE` makes it a program of 64 bits (`--defsym WIDE=1`).

	.ifdef WIDE
	# The entry is code, not a descriptor.
	.abiversion 2
	.macro	ldw reg, at
	ld	\reg, \at(0)
	.endm
	.macro	stw_ reg, at
	std	\reg, \at(0)
	.endm
	.set	WORD, 8
	.else
	.macro	ldw reg, at
	lwz	\reg, \at(0)
	.endm
	.macro	stw_ reg, at
	stw	\reg, \at(0)
	.endm
	.set	WORD, 4
	.endif

	.set	IN, 0x3000
	.set	INSN, IN + 37 * WORD
	.set	MEMORY, INSN + 8
	.set	OUT, MEMORY + 256
	.set	END, OUT + 38 * WORD
	.set	CODE, 0x11000

	.macro	save taken
	.set	number, 0
	.rept	32
	stw_	number, OUT + number * WORD
	.set	number, number + 1
	.endr
	mfctr	3
	stw_	3, OUT + 32 * WORD
	mflr	3
	stw_	3, OUT + 33 * WORD
	mfxer	3
	stw_	3, OUT + 34 * WORD
	mfcr	3
	stw_	3, OUT + 35 * WORD
	.ifdef WIDE
	mfspr	3, 815
	stw_	3, OUT + 36 * WORD
	.endif
	li	3, \taken
	stw_	3, OUT + 37 * WORD
	b	write
	.endm

	.text
	.globl	_start
_start:
	li	14, IN
	li	15, OUT - IN
read:
	li	0, 3
	li	3, 0
	mr	4, 14
	mr	5, 15
	sc
	cmpwi	3, 0
	ble	exit
	add	14, 14, 3
	subf.	15, 3, 15
	bgt	read
	# The instruction, and where it goes when it is not taken: behind itself.
	lis	4, CODE >> 16
	lwz	3, INSN(0)
	stw	3, (CODE & 0xffff) + 0x100(4)
	lwz	3, INSN + 4(0)
	stw	3, (CODE & 0xffff) + 0x104(4)
	isync
	ldw	3, IN + 32 * WORD
	mtctr	3
	ldw	3, IN + 33 * WORD
	mtlr	3
	ldw	3, IN + 34 * WORD
	mtxer	3
	ldw	3, IN + 35 * WORD
	mtcr	3
	.ifdef WIDE
	ldw	3, IN + 36 * WORD
	mtspr	815, 3
	.endif
	.set	number, 0
	.rept	32
	ldw	number, IN + number * WORD
	.set	number, number + 1
	.endr
	ba	CODE + 0x100
write:
	li	14, MEMORY
	li	15, END - MEMORY
1:
	li	0, 4
	li	3, 1
	mr	4, 14
	mr	5, 15
	sc
	cmpwi	3, 0
	ble	exit
	add	14, 14, 3
	subf.	15, 3, 15
	bgt	1b
	b	_start
exit:
	li	0, 1
	li	3, 0
	sc

not_taken:
	save	0
taken:
	save	1

	# At CODE.
	.section .code, "awx"
	.fill	0xc0 / 4, 4, 0x7fe00008
	# CODE + 0xc0: the target of a branch back by 0x40.
	ba	taken
	.fill	0x3c / 4, 4, 0x7fe00008
	# CODE + 0x100: the instruction.
	.long	0, 0
	ba	not_taken
	.fill	0x34 / 4, 4, 0x7fe00008
	# CODE + 0x140: the target of a branch by 0x40, and of those through registers.
	ba	taken
	# Addresses of absolute branches: CODE + 0x140 as well.

	# At IN.
	.section .state, "aw", @nobits
	.space	END - IN
