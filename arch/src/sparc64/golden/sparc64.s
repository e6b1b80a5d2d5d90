! Instructions of SPARC V9 and what implementations added, in the forms that decoders tell apart: see golden.rs.
.text
! Branches on integer condition codes
bn .+16
bn,a .-16
be .+16
be,a .-16
ble .+16
ble,a .-16
bl .+16
bl,a .-16
bleu .+16
bleu,a .-16
bcs .+16
bcs,a .-16
bneg .+16
bneg,a .-16
bvs .+16
bvs,a .-16
ba .+16
ba,a .-16
bne .+16
bne,a .-16
bg .+16
bg,a .-16
bge .+16
bge,a .-16
bgu .+16
bgu,a .-16
bcc .+16
bcc,a .-16
bpos .+16
bpos,a .-16
bvc .+16
bvc,a .-16
bn,pt %icc, .+64
bn,a,pn %xcc, .-64
be,pt %icc, .+64
be,a,pn %xcc, .-64
ble,pt %icc, .+64
ble,a,pn %xcc, .-64
bl,pt %icc, .+64
bl,a,pn %xcc, .-64
bleu,pt %icc, .+64
bleu,a,pn %xcc, .-64
bcs,pt %icc, .+64
bcs,a,pn %xcc, .-64
bneg,pt %icc, .+64
bneg,a,pn %xcc, .-64
bvs,pt %icc, .+64
bvs,a,pn %xcc, .-64
ba,pt %icc, .+64
ba,a,pn %xcc, .-64
bne,pt %icc, .+64
bne,a,pn %xcc, .-64
bg,pt %icc, .+64
bg,a,pn %xcc, .-64
bge,pt %icc, .+64
bge,a,pn %xcc, .-64
bgu,pt %icc, .+64
bgu,a,pn %xcc, .-64
bcc,pt %icc, .+64
bcc,a,pn %xcc, .-64
bpos,pt %icc, .+64
bpos,a,pn %xcc, .-64
bvc,pt %icc, .+64
bvc,a,pn %xcc, .-64
ba .-0x800000
ba .+0x7ffffc
ba,pt %xcc, .-0x100000
ba,pt %xcc, .+0xffffc

! On registers
brz,pt %o0, .+16
brz,a,pn %i7, .-0x20000
brlez,pt %o0, .+16
brlez,a,pn %i7, .-0x20000
brlz,pt %o0, .+16
brlz,a,pn %i7, .-0x20000
brnz,pt %o0, .+16
brnz,a,pn %i7, .-0x20000
brgz,pt %o0, .+16
brgz,a,pn %i7, .-0x20000
brgez,pt %o0, .+16
brgez,a,pn %i7, .-0x20000
brz,pt %o0, .+0x1fffc

! On floating-point condition codes
fbn .+16
fbn,a,pn %fcc3, .-16
fbne .+16
fbne,a,pn %fcc3, .-16
fblg .+16
fblg,a,pn %fcc3, .-16
fbul .+16
fbul,a,pn %fcc3, .-16
fbl .+16
fbl,a,pn %fcc3, .-16
fbug .+16
fbug,a,pn %fcc3, .-16
fbg .+16
fbg,a,pn %fcc3, .-16
fbu .+16
fbu,a,pn %fcc3, .-16
fba .+16
fba,a,pn %fcc3, .-16
fbe .+16
fbe,a,pn %fcc3, .-16
fbue .+16
fbue,a,pn %fcc3, .-16
fbge .+16
fbge,a,pn %fcc3, .-16
fbuge .+16
fbuge,a,pn %fcc3, .-16
fble .+16
fble,a,pn %fcc3, .-16
fbule .+16
fbule,a,pn %fcc3, .-16
fbo .+16
fbo,a,pn %fcc3, .-16

! Compare and branch
cwbe %o0, %o1, .+16
cxbe %i0, -16, .-2048
cwble %o0, %o1, .+16
cxble %i0, -16, .-2048
cwbl %o0, %o1, .+16
cxbl %i0, -16, .-2048
cwbleu %o0, %o1, .+16
cxbleu %i0, -16, .-2048
cwbcs %o0, %o1, .+16
cxbcs %i0, -16, .-2048
cwbneg %o0, %o1, .+16
cxbneg %i0, -16, .-2048
cwbvs %o0, %o1, .+16
cxbvs %i0, -16, .-2048
cwbne %o0, %o1, .+16
cxbne %i0, -16, .-2048
cwbg %o0, %o1, .+16
cxbg %i0, -16, .-2048
cwbge %o0, %o1, .+16
cxbge %i0, -16, .-2048
cwbgu %o0, %o1, .+16
cxbgu %i0, -16, .-2048
cwbcc %o0, %o1, .+16
cxbcc %i0, -16, .-2048
cwbpos %o0, %o1, .+16
cxbpos %i0, -16, .-2048
cwbvc %o0, %o1, .+16
cxbvc %i0, -16, .-2048
cxbe %o0, 15, .+2044

! Calls, jumps, returns
call .+16
call .-0x20000000
call %g1
call %o0+8
call %l0+%l1
jmp %g1
jmp %o0+16
jmpl %g1+4, %l0
jmp %i7+16
ret
retl
jmp %o7+12
jmp %i7+12
return %i7+8
return %l2
return %i7+16

! Traps and what returns from them
tn 5
te 5
tle 5
tl 5
tleu 5
tcs 5
tneg 5
tvs 5
ta 5
tne 5
tg 5
tge 5
tgu 5
tcc 5
tpos 5
tvc 5
ta %xcc, 0x6d
ta %g1
ta %icc, %g1+%g2
illtrap 0
illtrap 0x1234
done
retry
sir 1

! Everything else goes on
nop
sethi %hi(0xfffffc00), %g1
add %g4, %g6, %g2
and %g4, %g6, %g2
or %g4, %g6, %g2
xor %g4, %g6, %g2
sub %g4, %g6, %g2
andn %g4, %g6, %g2
orn %g4, %g6, %g2
xnor %g4, %g6, %g2
addc %g4, %g6, %g2
mulx %g4, %g6, %g2
umul %g4, %g6, %g2
smul %g4, %g6, %g2
subc %g4, %g6, %g2
udivx %g4, %g6, %g2
udiv %g4, %g6, %g2
sdiv %g4, %g6, %g2
addcc %g4, %g6, %g2
andcc %g4, %g6, %g2
orcc %g4, %g6, %g2
xorcc %g4, %g6, %g2
subcc %g4, %g6, %g2
andncc %g4, %g6, %g2
orncc %g4, %g6, %g2
xnorcc %g4, %g6, %g2
addccc %g4, %g6, %g2
aes_eround01 %f4, %f6, %f0, %f2
umulcc %g4, %g6, %g2
smulcc %g4, %g6, %g2
subccc %g4, %g6, %g2
udivcc %g4, %g6, %g2
sdivcc %g4, %g6, %g2
taddcc %g4, %g6, %g2
tsubcc %g4, %g6, %g2
taddcctv %g4, %g6, %g2
tsubcctv %g4, %g6, %g2
mulscc %g4, %g6, %g2
sll %g4, %g6, %g2
srl %g4, %g6, %g2
sra %g4, %g6, %g2
movl %fcc0, %g6, %g2
sdivx %g4, %g6, %g2
wr %g4, %g6, %ccr
wrpr %g4, %g6, %tstate
edge8cc %g4, %g6, %g2
fpmaddx %f4, %f6, %f0, %f2
flush [ %g4 + %g6 ]
save %g4, %g6, %g2
restore %g4, %g6, %g2
add %g4, 6, %g2
and %g4, 6, %g2
or %g4, 6, %g2
xor %g4, 6, %g2
sub %g4, 6, %g2
andn %g4, 6, %g2
orn %g4, 6, %g2
xnor %g4, 6, %g2
addc %g4, 6, %g2
mulx %g4, 6, %g2
umul %g4, 6, %g2
smul %g4, 6, %g2
subc %g4, 6, %g2
udivx %g4, 6, %g2
udiv %g4, 6, %g2
sdiv %g4, 6, %g2
addcc %g4, 6, %g2
andcc %g4, 6, %g2
orcc %g4, 6, %g2
xorcc %g4, 6, %g2
subcc %g4, 6, %g2
andncc %g4, 6, %g2
orncc %g4, 6, %g2
xnorcc %g4, 6, %g2
addccc %g4, 6, %g2
aes_eround01 %f4, %f6, %f16, %f2
umulcc %g4, 6, %g2
smulcc %g4, 6, %g2
subccc %g4, 6, %g2
udivcc %g4, 6, %g2
sdivcc %g4, 6, %g2
taddcc %g4, 6, %g2
tsubcc %g4, 6, %g2
taddcctv %g4, 6, %g2
tsubcctv %g4, 6, %g2
mulscc %g4, 6, %g2
sll %g4, 6, %g2
srl %g4, 6, %g2
sra %g4, 6, %g2
movl %fcc0, 6, %g2
sdivx %g4, 6, %g2
wr %g4, 6, %ccr
wrpr %g4, 6, %tstate
fpmaddx %f4, %f6, %f16, %f2
flush [ %g4 + 6 ]
save %g4, 6, %g2
restore %g4, 6, %g2
ld [ %g4 + %g6 ], %g2
ldub [ %g4 + %g6 ], %g2
lduh [ %g4 + %g6 ], %g2
ldtw [ %g4 + %g6 ], %g2
st %g2, [ %g4 + %g6 ]
stb %g2, [ %g4 + %g6 ]
sth %g2, [ %g4 + %g6 ]
sttw %g2, [ %g4 + %g6 ]
ldsw [ %g4 + %g6 ], %g2
ldsb [ %g4 + %g6 ], %g2
ldsh [ %g4 + %g6 ], %g2
ldx [ %g4 + %g6 ], %g2
ldstub [ %g4 + %g6 ], %g2
stx %g2, [ %g4 + %g6 ]
swap [ %g4 + %g6 ], %g2
lda [ %g4 + %g6 ] (0), %g2
lduba [ %g4 + %g6 ] (0), %g2
lduha [ %g4 + %g6 ] (0), %g2
ldtwa [ %g4 + %g6 ] (0), %g2
sta %g2, [ %g4 + %g6 ] (0)
stba %g2, [ %g4 + %g6 ] (0)
stha %g2, [ %g4 + %g6 ] (0)
sttwa %g2, [ %g4 + %g6 ] (0)
ldswa [ %g4 + %g6 ] (0), %g2
ldsba [ %g4 + %g6 ] (0), %g2
ldsha [ %g4 + %g6 ] (0), %g2
ldxa [ %g4 + %g6 ] (0), %g2
ldstuba [ %g4 + %g6 ] (0), %g2
stxa %g2, [ %g4 + %g6 ] (0)
swapa [ %g4 + %g6 ] (0), %g2
ld [ %g4 + %g6 ], %f2
ldd [ %g4 + %g6 ], %f2
st %f2, [ %g4 + %g6 ]
std %f2, [ %g4 + %g6 ]
prefetch [ %g4 + %g6 ], #n_writes
lda [ %g4 + %g6 ] (0), %f2
ldda [ %g4 + %g6 ] (0), %f2
sta %f2, [ %g4 + %g6 ] (0)
stda %f2, [ %g4 + %g6 ] (0)
casa [ %g4 ] (0), %g6, %g2
prefetcha [ %g4 + %g6 ] (0), #n_writes
casxa [ %g4 ] (0), %g6, %g2
ld [ %g4 + 6 ], %g2
ldub [ %g4 + 6 ], %g2
lduh [ %g4 + 6 ], %g2
ldtw [ %g4 + 6 ], %g2
st %g2, [ %g4 + 6 ]
stb %g2, [ %g4 + 6 ]
sth %g2, [ %g4 + 6 ]
sttw %g2, [ %g4 + 6 ]
ldsw [ %g4 + 6 ], %g2
ldsb [ %g4 + 6 ], %g2
ldsh [ %g4 + 6 ], %g2
ldx [ %g4 + 6 ], %g2
ldstub [ %g4 + 6 ], %g2
stx %g2, [ %g4 + 6 ]
swap [ %g4 + 6 ], %g2
lda [ %g4 + 6 ] %asi, %g2
lduba [ %g4 + 6 ] %asi, %g2
lduha [ %g4 + 6 ] %asi, %g2
ldtwa [ %g4 + 6 ] %asi, %g2
sta %g2, [ %g4 + 6 ] %asi
stba %g2, [ %g4 + 6 ] %asi
stha %g2, [ %g4 + 6 ] %asi
sttwa %g2, [ %g4 + 6 ] %asi
ldswa [ %g4 + 6 ] %asi, %g2
ldsba [ %g4 + 6 ] %asi, %g2
ldsha [ %g4 + 6 ] %asi, %g2
ldxa [ %g4 + 6 ] %asi, %g2
ldstuba [ %g4 + 6 ] %asi, %g2
stxa %g2, [ %g4 + 6 ] %asi
swapa [ %g4 + 6 ] %asi, %g2
ld [ %g4 + 6 ], %f2
ldd [ %g4 + 6 ], %f2
st %f2, [ %g4 + 6 ]
std %f2, [ %g4 + 6 ]
prefetch [ %g4 + 6 ], #n_writes
lda [ %g4 + 6 ] %asi, %f2
ldda [ %g4 + 6 ] %asi, %f2
sta %f2, [ %g4 + 6 ] %asi
stda %f2, [ %g4 + 6 ] %asi
casa [ %g4 ] %asi, %g6, %g2
prefetcha [ %g4 + 6 ] %asi, #n_writes
casxa [ %g4 ] %asi, %g6, %g2
sllx %g4, %g6, %g2
sll %g4, 0x1f, %g2
sllx %g4, 0x3f, %g2
srlx %g4, 0x3f, %g2
srax %g4, 0x3f, %g2
rd %y, %g2
rd %ccr, %g2
rd %asi, %g2
rd %tick, %g2
rd %pc, %g2
rd %fprs, %g2
rd %pcr, %g2
rd %pic, %g2
rd %gsr, %g2
rd %softint, %g2
rd %tick_cmpr, %g2
rd %stick, %g2
rd %stick_cmpr, %g2
wr %g4, 6, %y
wr %g4, 6, %asi
wr %g4, 6, %fprs
wr %g4, 6, %pcr
wr %g4, 6, %pic
wr %g4, 6, %gsr
wr %g4, 6, %softint_set
wr %g4, 6, %softint_clear
wr %g4, 6, %softint
wr %g4, 6, %tick_cmpr
wr %g4, 6, %stick
wr %g4, 6, %stick_cmpr
stbar
membar #Sync
membar #StoreLoad|#LoadLoad
flushw
saved
restored
allclean
otherw
normalw
invalw
flush %g1+8
popc %g1, %g2
rdpr %tpc, %g2
wrpr %g4, 6, %tpc
rdpr %tnpc, %g2
wrpr %g4, 6, %tnpc
rdpr %tstate, %g2
rdpr %tt, %g2
wrpr %g4, 6, %tt
rdpr %tick, %g2
wrpr %g4, 6, %tick
rdpr %tba, %g2
wrpr %g4, 6, %tba
rdpr %pstate, %g2
wrpr %g4, 6, %pstate
rdpr %tl, %g2
wrpr %g4, 6, %tl
rdpr %pil, %g2
wrpr %g4, 6, %pil
rdpr %cwp, %g2
wrpr %g4, 6, %cwp
rdpr %cansave, %g2
wrpr %g4, 6, %cansave
rdpr %canrestore, %g2
wrpr %g4, 6, %canrestore
rdpr %cleanwin, %g2
wrpr %g4, 6, %cleanwin
rdpr %otherwin, %g2
wrpr %g4, 6, %otherwin
rdpr %wstate, %g2
wrpr %g4, 6, %wstate
rdpr %fq, %g2
wrpr %g4, 6, %fq
rdpr %gl, %g2
wrpr %g4, 6, %gl
rdpr %ver, %g1
rdhpr %hpstate, %g2
rdhpr %htstate, %g2
rdhpr %hintp, %g2
rdhpr %htba, %g2
rdhpr %hver, %g2
rdhpr %hstick_cmpr, %g2
wrhpr %g4, 6, %hpstate
wrhpr %g4, 6, %htstate
wrhpr %g4, 6, %hintp
wrhpr %g4, 6, %htba
wrhpr %g4, 6, %hstick_cmpr
movn %icc, %g1, %g2
movn %xcc, -5, %g2
move %icc, %g1, %g2
move %xcc, -5, %g2
movle %icc, %g1, %g2
movle %xcc, -5, %g2
movl %icc, %g1, %g2
movl %xcc, -5, %g2
movleu %icc, %g1, %g2
movleu %xcc, -5, %g2
movcs %icc, %g1, %g2
movcs %xcc, -5, %g2
movneg %icc, %g1, %g2
movneg %xcc, -5, %g2
movvs %icc, %g1, %g2
movvs %xcc, -5, %g2
mova %icc, %g1, %g2
mova %xcc, -5, %g2
movne %icc, %g1, %g2
movne %xcc, -5, %g2
movg %icc, %g1, %g2
movg %xcc, -5, %g2
movge %icc, %g1, %g2
movge %xcc, -5, %g2
movgu %icc, %g1, %g2
movgu %xcc, -5, %g2
movcc %icc, %g1, %g2
movcc %xcc, -5, %g2
movpos %icc, %g1, %g2
movpos %xcc, -5, %g2
movvc %icc, %g1, %g2
movvc %xcc, -5, %g2
movn %fcc2, %g1, %g2
movne %fcc2, %g1, %g2
movlg %fcc2, %g1, %g2
movul %fcc2, %g1, %g2
movl %fcc2, %g1, %g2
movug %fcc2, %g1, %g2
movg %fcc2, %g1, %g2
movu %fcc2, %g1, %g2
mova %fcc2, %g1, %g2
move %fcc2, %g1, %g2
movue %fcc2, %g1, %g2
movge %fcc2, %g1, %g2
movuge %fcc2, %g1, %g2
movle %fcc2, %g1, %g2
movule %fcc2, %g1, %g2
movo %fcc2, %g1, %g2
movrz %g1, %g2, %g3
movrz %g1, -5, %g3
movrlez %g1, %g2, %g3
movrlez %g1, -5, %g3
movrlz %g1, %g2, %g3
movrlz %g1, -5, %g3
movrnz %g1, %g2, %g3
movrnz %g1, -5, %g3
movrgz %g1, %g2, %g3
movrgz %g1, -5, %g3
movrgez %g1, %g2, %g3
movrgez %g1, -5, %g3
ldxa [%g1] 0x11, %g2
stxa %g2, [%g1] 0x11
ldxa [%g1] 0x80, %g2
stxa %g2, [%g1] 0x80
ldxa [%g1] 0x14, %g2
stxa %g2, [%g1] 0x14
ldxa [%g1] 0x24, %g2
stxa %g2, [%g1] 0x24
save %sp, -176, %sp
restore
restore %g1, 5, %o0
ld [%g1], %fsr
ldx [%g1], %fsr
st %fsr, [%g1]
stx %fsr, [%g1]
ldd [%g1], %f62
casx [%g1], %g2, %g3
cas [%g1], %g2, %g3

! Floating point and VIS
fmovs %f6, %f2
fmovd %f6, %f2
fnegs %f6, %f2
fnegd %f6, %f2
fabss %f6, %f2
fabsd %f6, %f2
fsqrts %f6, %f2
fsqrtd %f6, %f2
fadds %f0, %f6, %f2
faddd %f0, %f6, %f2
fsubs %f0, %f6, %f2
fsubd %f0, %f6, %f2
fmuls %f0, %f6, %f2
fmuld %f0, %f6, %f2
fdivs %f0, %f6, %f2
fdivd %f0, %f6, %f2
fnadds %f0, %f6, %f2
fnaddd %f0, %f6, %f2
fnmuls %f0, %f6, %f2
fnmuld %f0, %f6, %f2
fhadds %f0, %f6, %f2
fhaddd %f0, %f6, %f2
fhsubs %f0, %f6, %f2
fhsubd %f0, %f6, %f2
fsmuld %f0, %f6, %f2
fnhadds %f0, %f6, %f2
fnhaddd %f0, %f6, %f2
fnsmuld %f0, %f6, %f2
fstox %f6, %f2
fdtox %f6, %f2
fxtos %f6, %f2
fxtod %f6, %f2
fitos %f6, %f2
fdtos %f6, %f2
fitod %f6, %f2
fstod %f6, %f2
fstoi %f6, %f2
fdtoi %f6, %f2
fmovsn %fcc0, %f6, %f2
fmovdn %fcc0, %f6, %f2
fmovrse %g0, %f6, %f2
fmovrde %g0, %f6, %f2
fcmps %fcc2, %f0, %f6
fcmpd %fcc2, %f0, %f6
fcmpes %fcc2, %f0, %f6
fcmped %fcc2, %f0, %f6
fmovsn %fcc2, %f6, %f2
fmovsn %icc, %f6, %f2
fmovsn %xcc, %f6, %f2
edge8n %g4, %g6, %g2
edge8lcc %g4, %g6, %g2
edge8ln %g4, %g6, %g2
edge16cc %g4, %g6, %g2
edge16n %g4, %g6, %g2
edge16lcc %g4, %g6, %g2
edge16ln %g4, %g6, %g2
edge32cc %g4, %g6, %g2
edge32n %g4, %g6, %g2
edge32lcc %g4, %g6, %g2
edge32ln %g4, %g6, %g2
array8 %g4, %g6, %g2
addxc %g4, %g6, %g2
array16 %g4, %g6, %g2
addxccc %g4, %g6, %g2
array32 %g4, %g6, %g2
umulxhi %g4, %g6, %g2
lzcnt %g6, %g2
alignaddr %g4, %g6, %g2
bmask %g4, %g6, %g2
alignaddrl %g4, %g6, %g2
cmask8 %g6
dictunpack %f4, 6, %f2
cmask16 %g6
revbytesw %g4, %g2
cmask32 %g6
fpcmple16 %f4, %f6, %g2
fsll16 %f4, %f6, %f2
fpcmpne16 %f4, %f6, %g2
fsrl16 %f4, %f6, %f2
fpcmple32 %f4, %f6, %g2
fsll32 %f4, %f6, %f2
fpcmpne32 %f4, %f6, %g2
fsrl32 %f4, %f6, %f2
fpcmpgt16 %f4, %f6, %g2
fslas16 %f4, %f6, %f2
fpcmpeq16 %f4, %f6, %g2
fsra16 %f4, %f6, %f2
fpcmpgt32 %f4, %f6, %g2
fslas32 %f4, %f6, %f2
fpcmpeq32 %f4, %f6, %g2
fsra32 %f4, %f6, %f2
rle_burst %g4, %g6, %g2
fmul8x16 %f4, %f6, %f2
rle_length %g6, %g2
fmul8x16au %f4, %f6, %f2
fpcmple8 %f4, %f6, %g2
fmul8x16al %f4, %f6, %f2
fmul8sux16 %f4, %f6, %f2
fmul8ulx16 %f4, %f6, %f2
fmuld8sux16 %f4, %f6, %f2
fmuld8ulx16 %f4, %f6, %f2
fpack32 %f4, %f6, %f2
fpack16 %f6, %f2
fpcmpgt8 %f4, %f6, %g2
fpackfix %f6, %f2
pdist %f4, %f6, %f2
pdistn %f4, %f6, %g2
fmean16 %f4, %f6, %f2
subxc %g4, %g6, %g2
fpadd64 %f4, %f6, %f2
subxccc %g4, %g6, %g2
fchksm16 %f4, %f6, %f2
fpcmpde8shl %f4, %f54, 0, %g2
fpsub64 %f4, %f6, %f2
fpcmpde16shl %f4, %f54, 0, %g2
faligndata %f4, %f6, %f2
fpcmpde32shl %f4, %f54, 0, %g2
fpmerge %f4, %f6, %f2
bshuffle %f4, %f6, %f2
fexpand %f6, %f2
fpadd16 %f4, %f6, %f2
fpadd16s %f4, %f6, %f2
fpadd32 %f4, %f6, %f2
fpadd32s %f4, %f6, %f2
fpsub16 %f4, %f6, %f2
fpsub16s %f4, %f6, %f2
fpsub32 %f4, %f6, %f2
fpsub32s %f4, %f6, %f2
fpadds16 %f4, %f6, %f2
fpadds16s %f4, %f6, %f2
fpadds32 %f4, %f6, %f2
fpadds32s %f4, %f6, %f2
fpsubs16 %f4, %f6, %f2
fpsubs16s %f4, %f6, %f2
fpsubs32 %f4, %f6, %f2
fpsubs32s %f4, %f6, %f2
fzerod %f2
fzeros %f2
fnord %f4, %f6, %f2
fnors %f4, %f6, %f2
fandnot2d %f4, %f6, %f2
fandnot2s %f4, %f6, %f2
fnot2d %f6, %f2
fnot2s %f6, %f2
fandnot1d %f4, %f6, %f2
fandnot1s %f4, %f6, %f2
fnot1d %f4, %f2
fnot1s %f4, %f2
fxord %f4, %f6, %f2
fxors %f4, %f6, %f2
fnandd %f4, %f6, %f2
fnands %f4, %f6, %f2
fandd %f4, %f6, %f2
fands %f4, %f6, %f2
fxnord %f4, %f6, %f2
fxnors %f4, %f6, %f2
fsrc1d %f4, %f2
fsrc1s %f4, %f2
fornot2d %f4, %f6, %f2
fornot2s %f4, %f6, %f2
fsrc2d %f6, %f2
fsrc2s %f6, %f2
fornot1d %f4, %f6, %f2
fornot1s %f4, %f6, %f2
ford %f4, %f6, %f2
fors %f4, %f6, %f2
foned %f2
fones %f2
shutdown
siam 4
fpsll64x %f4, %f6, %f2
fpsrl64x %f4, %f6, %f2
fpsra64x %f4, %f6, %f2
movdtox %f6, %g2
movstouw %f6, %g2
movstosw %f6, %g2
xmulx %g4, %g6, %g2
xmulxhi %g4, %g6, %g2
movxtod %g6, %f2
movwtos %g6, %f2
fpmin8 %f4, %f6, %f2
fpmin16 %f4, %f6, %f2
fpmin32 %f4, %f6, %f2
fpmax8 %f4, %f6, %f2
fpmax16 %f4, %f6, %f2
fpmax32 %f4, %f6, %f2
fpcmpule8 %f4, %f6, %g2
fpcmpune8 %f4, %f6, %g2
fpaddus16 %f4, %f6, %f2
fpadd8 %f4, %f6, %f2
fpadds8 %f4, %f6, %f2
fpaddus8 %f4, %f6, %f2
fpcmpugt8 %f4, %f6, %g2
fpcmpueq8 %f4, %f6, %g2
fpcmpugt16 %f4, %f6, %g2
fpcmpugt32 %f4, %f6, %g2
fpcmpule16 %f4, %f6, %g2
fpcmpule32 %f4, %f6, %g2
aes_kexpand0 %f4, %f6, %f2
aes_kexpand2 %f4, %f6, %f2
des_ip %f4, %f2
des_iip %f4, %f2
des_kexpand %f4, 6, %f2
kasumi_fi_fi %f4, %f6, %f2
camellia_fl %f4, %f6, %f2
camellia_fli %f4, %f6, %f2
md5
sha1
sha256
sha512
sha3
crc32c %f4, %f6, %f2
mpmul 6
montmul 6
montsqr 6
flcmps %fcc2, %f4, %f6
flcmpd %fcc2, %f4, %f6
fpsubus16 %f4, %f6, %f2
fpsub8 %f4, %f6, %f2
fpsubs8 %f4, %f6, %f2
fpsubus8 %f4, %f6, %f2
fpminu8 %f4, %f6, %f2
fpminu16 %f4, %f6, %f2
fpminu32 %f4, %f6, %f2
fpmaxu8 %f4, %f6, %f2
fpmaxu16 %f4, %f6, %f2
fpmaxu32 %f4, %f6, %f2
fpcmpule8shl %f4, %f54, 0, %g2
fpcmpugt8shl %f4, %f54, 0, %g2
fpcmpeq8shl %f4, %f54, 0, %g2
fpcmpne8shl %f4, %f54, 0, %g2
fpcmpule16shl %f4, %f54, 0, %g2
fpcmpugt16shl %f4, %f54, 0, %g2
fpcmpeq16shl %f4, %f54, 0, %g2
fpcmpne16shl %f4, %f54, 0, %g2
fpcmpule32shl %f4, %f54, 0, %g2
fpcmpugt32shl %f4, %f54, 0, %g2
fpcmpeq32shl %f4, %f54, 0, %g2
fpcmpne32shl %f4, %f54, 0, %g2
fpcmpur8shl %f4, %f54, 0, %g2
fpcmpur16shl %f4, %f54, 0, %g2
fpcmpur32shl %f4, %f54, 0, %g2
aes_eround01 %f4, %f6, %f8, %f2
aes_eround23 %f4, %f6, %f8, %f2
aes_dround01 %f4, %f6, %f8, %f2
aes_dround23 %f4, %f6, %f8, %f2
aes_eround01_l %f4, %f6, %f8, %f2
aes_eround23_l %f4, %f6, %f8, %f2
aes_dround01_l %f4, %f6, %f8, %f2
aes_dround23_l %f4, %f6, %f8, %f2
aes_kexpand1 %f4, %f6, 0x8, %f2
des_round %f4, %f6, %f8, %f2
kasumi_fl_xor %f4, %f6, %f8, %f2
kasumi_fi_xor %f4, %f6, %f8, %f2
camellia_f %f4, %f6, %f8, %f2
fpmaddx %f4, %f6, %f8, %f2
fmadds %f4, %f6, %f8, %f2
fmaddd %f4, %f6, %f8, %f2
fpmaddxhi %f4, %f6, %f8, %f2
fmsubs %f4, %f6, %f8, %f2
fmsubd %f4, %f6, %f8, %f2
fnmsubs %f4, %f6, %f8, %f2
fnmsubd %f4, %f6, %f8, %f2
fnmadds %f4, %f6, %f8, %f2
fnmaddd %f4, %f6, %f8, %f2
fumadds %f4, %f6, %f8, %f2
fumaddd %f4, %f6, %f8, %f2
fumsubs %f4, %f6, %f8, %f2
fumsubd %f4, %f6, %f8, %f2
fnumsubs %f4, %f6, %f8, %f2
fnumsubd %f4, %f6, %f8, %f2
fnumadds %f4, %f6, %f8, %f2
fnumaddd %f4, %f6, %f8, %f2
ldq [%g4+%g6], %f4
stq %f4, [%g4+6]
ldqa [%g4] 0x80, %f8
stqa %f8, [%g4+6] %asi
fmovq %f4, %f8
fnegq %f4, %f8
fabsq %f4, %f8
fsqrtq %f4, %f8
faddq %f0, %f4, %f8
fsubq %f0, %f4, %f8
fmulq %f0, %f4, %f8
fdivq %f0, %f4, %f8
fdmulq %f0, %f2, %f8
fqtox %f4, %f2
fxtoq %f6, %f8
fqtos %f4, %f2
fqtod %f4, %f2
fitoq %f6, %f8
fstoq %f6, %f8
fdtoq %f6, %f8
fqtoi %f4, %f2
fmovqe %fcc0, %f4, %f8
fmovrqe %g1, %f4, %f8
fcmpq %fcc2, %f0, %f4
fcmpeq %fcc2, %f0, %f4

! No instructions: reserved opcodes, conditions and fields
.word 7<<22
.word 7<<22 | 8<<25
.word 1<<22 | 1<<20
.word 3<<22
.word 3<<22 | 4<<25
.word 3<<22 | 1<<28
.word 3<<22 | 1<<28 | 1<<29
.word 1<<25
.word 0x80000000 | 0x1d<<19
.word 0x80000000 | 1<<5
.word 0x80000000 | 0x19<<19 | 13<<5
.word 0x80000000 | 0x25<<19 | 1<<13 | 1<<5
.word 0x80000000 | 0x25<<19 | 1<<13 | 1<<12 | 1<<6
.word 0x80000000 | 0x28<<19 | 1<<13
.word 0x80000000 | 0x29<<19 | 2<<14
.word 0x80000000 | 0x2a<<19 | 17<<14
.word 0x80000000 | 0x2b<<19 | 1<<25
.word 0x80000000 | 0x2c<<19 | 1<<18 | 1<<11
.word 0x80000000 | 0x2e<<19 | 1<<14
.word 0x80000000 | 0x2f<<19 | 4<<10
.word 0x80000000 | 0x31<<19 | 6<<25
.word 0x80000000 | 0x33<<19 | 6<<25
.word 0x80000000 | 0x34<<19 | 0x40<<5
.word 0x80000000 | 0x35<<19 | 0x05<<5
.word 0x80000000 | 0x36<<19 | 0x82<<5
.word 0x80000000 | 0x37<<19 | 3<<5
.word 0x80000000 | 0x3e<<19 | 2<<25
.word 0xc0000000 | 0x0c<<19
.word 0xc0000000 | 0x21<<19 | 2<<25
.word 0xc0000000 | 0x25<<19 | 2<<25
.word 0xc0000000 | 0x28<<19
.word 0xc0000000 | 0x3f<<19
.word 0xc0000000 | 1<<19 | 1<<5
.word 0xffffffff
