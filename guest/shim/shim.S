/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Boot shim: does what firmware would do for PCI functions, then starts the real kernel.
 *
 * Entered as an arm64 kernel is: MMU off, x0 = device tree. Leaves x0 as it is and clears x1..x3, as the
 * arm64 boot protocol asks. Python appends the table:
 *   u64 entry; u64 count; count times { u64 address; u64 value }: 32-bit stores, in order.
 */
	.text
	.global	_start
_start:
	adr	x4, table
	ldp	x5, x6, [x4], #16	// x5 = entry of the kernel, x6 = count
1:	cbz	x6, 2f
	ldp	x7, x8, [x4], #16
	str	w8, [x7]
	sub	x6, x6, #1
	b	1b
2:	dsb	sy
	isb
	mov	x1, xzr
	mov	x2, xzr
	mov	x3, xzr
	br	x5
	.balign	8
table:
