/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Entry of a bare-metal program, and the exception vectors.
 *
 * Entered with MMU and caches off, which stays so: all of memory is Device memory, and what a master writes is
 * there at the next load. A program runs at EL1; entered at EL2 it goes there, and calls firmware by SMC from then on,
 * for HVC is a call of EL2. An exception is a fault of the program: it is printed and ends the guest.
 */
	.section .text.start, "ax"
	.global	_start
_start:
	mrs	x19, currentel
	cmp	x19, #2 << 2
	b.ne	at_el1
	mov	x0, #1 << 31		// HCR_EL2.RW: EL1 is AArch64
	msr	hcr_el2, x0
	mov	x0, #3			// CNTHCTL_EL2: EL1 may read the counter
	msr	cnthctl_el2, x0
	msr	cntvoff_el2, xzr
	mov	x0, #0x3c5		// EL1h, all exceptions masked
	msr	spsr_el2, x0
	adr	x0, at_el1
	msr	elr_el2, x0
	eret
at_el1:
	adrp	x0, vt_stack_top
	add	x0, x0, :lo12:vt_stack_top
	mov	sp, x0
	adrp	x0, vectors
	add	x0, x0, :lo12:vectors
	msr	vbar_el1, x0
	isb
	adrp	x0, vt_bss
	add	x0, x0, :lo12:vt_bss
	adrp	x1, vt_bss_end
	add	x1, x1, :lo12:vt_bss_end
1:	cmp	x0, x1
	b.hs	2f
	stp	xzr, xzr, [x0], #16
	b	1b
2:	adrp	x0, vt_entered_at
	str	x19, [x0, :lo12:vt_entered_at]
	bl	vt_main
	b	vt_power_off

	.balign	2048
vectors:
	.rept	16
	.balign	128
	b	unexpected
	.endr

unexpected:
	adrp	x0, vt_stack_top	// the stack may be what is wrong
	add	x0, x0, :lo12:vt_stack_top
	mov	sp, x0
	mrs	x0, esr_el1
	mrs	x1, elr_el1
	mrs	x2, far_el1
	b	vt_exception
