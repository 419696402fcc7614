/* SPDX-License-Identifier: Apache-2.0 */
/* Console, power, memory and the configuration: what every program needs before it tests anything. */
#include "vt.h"

#define UART 0x09000000UL /* PL011 of QEMU's virt machine */
#define UARTDR 0x00
#define UARTFR 0x18
#define UARTFR_TXFF (1 << 5)

#define GICD 0x08000000UL
#define GICD_ISPENDR 0x200
#define GICD_ICPENDR 0x280
#define GICD_ICFGR 0xc00

#define PSCI_SYSTEM_OFF 0x84000008UL

struct vt_config vt_config __attribute__((section(".vt_config")));
_Static_assert(sizeof(struct vt_case) == 64, "bare.py reads cases of 64 bytes");

extern char vt_heap[];

static void put(char c)
{
	while (vt_read32(UART + UARTFR) & UARTFR_TXFF)
		;
	vt_write32(UART + UARTDR, (unsigned char)c);
}

static void put_number(uint64_t value, unsigned int base, int width)
{
	char digits[24];
	int count = 0;

	do {
		digits[count++] = "0123456789abcdef"[value % base];
		value /= base;
	} while (value || count < width);
	while (count)
		put(digits[--count]);
}

void vt_vprint(const char *format, __builtin_va_list list)
{
	for (; *format; format++) {
		bool wide = false;
		int width = 0;

		if (*format != '%') {
			put(*format);
			continue;
		}
		format++;
		while (*format >= '0' && *format <= '9')
			width = width * 10 + (*format++ - '0');
		while (*format == 'l' || *format == 'z') {
			wide = true;
			format++;
		}
		if (*format == 's') {
			for (const char *text = __builtin_va_arg(list, const char *); *text; text++)
				put(*text);
		} else if (*format == 'c') {
			put((char)__builtin_va_arg(list, int));
		} else if (*format == 'd') {
			long value = wide ? __builtin_va_arg(list, long) : __builtin_va_arg(list, int);

			if (value < 0)
				put('-');
			put_number(value < 0 ? 0 - (uint64_t)value : (uint64_t)value, 10, width);
		} else if (*format == 'u' || *format == 'x') {
			uint64_t value =
				wide ? __builtin_va_arg(list, uint64_t) : __builtin_va_arg(list, uint32_t);

			put_number(value, *format == 'x' ? 16 : 10, width);
		} else {
			put(*format);
		}
	}
}

void vt_print(const char *format, ...)
{
	__builtin_va_list list;

	__builtin_va_start(list, format);
	vt_vprint(format, list);
	__builtin_va_end(list);
}

/* CurrentEL at the start. */
uint64_t vt_entered_at;

void vt_power_off(void)
{
	register uint64_t function __asm__("x0") = PSCI_SYSTEM_OFF;

	if (vt_entered_at == 2 << 2)
		__asm__ volatile("smc #0" : "+r"(function) : : "memory");
	else
		__asm__ volatile("hvc #0" : "+r"(function) : : "memory");
	for (;;)
		__asm__ volatile("wfi");
}

void vt_exception(uint64_t esr, uint64_t elr, uint64_t far);
void vt_exception(uint64_t esr, uint64_t elr, uint64_t far)
{
	vt_print("\nvt: unexpected exception: ESR %lx ELR %lx FAR %lx\n", esr, elr, far);
	vt_power_off();
}

/* volatile: or the compiler makes each of them a call of itself. */
void *memset(void *at, int value, size_t size)
{
	volatile unsigned char *to = at;

	while (size--)
		*to++ = (unsigned char)value;
	return at;
}

void *memcpy(void *to, const void *from, size_t size)
{
	volatile unsigned char *out = to;
	const volatile unsigned char *in = from;

	while (size--)
		*out++ = *in++;
	return to;
}

int memcmp(const void *a, const void *b, size_t size)
{
	const volatile unsigned char *left = a, *right = b;

	for (; size--; left++, right++) {
		unsigned char l = *left, r = *right;

		if (l != r)
			return l - r;
	}
	return 0;
}

int vt_strcmp(const char *a, const char *b)
{
	for (; *a && *a == *b; a++, b++)
		;
	return *a - *b;
}

bool vt_starts_with(const char *text, const char *start)
{
	for (; *start && *text == *start; text++, start++)
		;
	return !*start;
}

void *vt_alloc(size_t size, size_t alignment)
{
	static uint64_t next;
	uint64_t at = ((next ? next : (uint64_t)vt_heap) + alignment - 1) & ~(uint64_t)(alignment - 1);

	next = at + size;
	if (next > 0x43f00000) /* of 64 MiB, the least that a machine has */
		vt_bail("out of memory");
	return memset((void *)at, 0, size);
}

void vt_configure(void)
{
	if (vt_config.magic != VT_MAGIC || vt_config.size != sizeof(vt_config))
		vt_bail("the launcher's configuration is not the one that this program was built for");
	for (uint32_t i = 0; i < vt_config.writes; i++)
		vt_write32(vt_config.write[i].address, (uint32_t)vt_config.write[i].value);
	vt_barrier();
}

const struct vt_master_config *vt_master(const char *compatible, unsigned int index)
{
	for (uint32_t i = 0; i < vt_config.masters; i++)
		if (!vt_strcmp(vt_config.master[i].compatible, compatible) && !index--)
			return &vt_config.master[i];
	return NULL;
}

/* Where 'name' ends among the arguments, which blanks part, or NULL. */
static const char *find_argument(const char *name)
{
	const char *at = vt_config.arguments;

	while (*at) {
		while (*at == ' ')
			at++;
		if (vt_starts_with(at, name)) {
			const char *end = at;

			for (const char *c = name; *c; c++)
				end++;
			if (*end == '=' || *end == ' ' || !*end)
				return end;
		}
		while (*at && *at != ' ')
			at++;
	}
	return NULL;
}

uint64_t vt_argument(const char *name, uint64_t otherwise)
{
	const char *at = find_argument(name);
	unsigned int base = 10;
	uint64_t value = 0;

	if (!at)
		return otherwise;
	if (*at++ != '=')
		return 1;
	if (vt_starts_with(at, "0x")) {
		base = 16;
		at += 2;
	}
	for (; *at && *at != ' '; at++)
		value = value * base + (unsigned int)(*at <= '9' ? *at - '0' : (*at | 0x20) - 'a' + 10);
	return value;
}

/* Whether 'name' is what 'pattern' says up to a comma, a space or its end; a '*' there stands for anything. */
static bool matches(const char *pattern, const char *name)
{
	for (; *pattern && *pattern != ',' && *pattern != ' '; pattern++, name++) {
		if (*pattern == '*') {
			while (!matches(pattern + 1, name))
				if (!*name++)
					return false;
			return true;
		}
		if (*pattern != *name)
			return false;
	}
	return !*name;
}

bool vt_wanted(const char *name)
{
	const char *at = find_argument("cases");

	if (!at || *at++ != '=')
		return true;
	while (*at && *at != ' ') {
		if (matches(at, name))
			return true;
		while (*at && *at != ',' && *at != ' ')
			at++;
		if (*at == ',')
			at++;
	}
	return false;
}

void vt_interrupt_listen(uint32_t intid)
{
	uint64_t config = GICD + GICD_ICFGR + intid / 16 * 4;

	vt_write32(config, vt_read32(config) | 2U << (intid % 16 * 2));
	vt_write32(GICD + GICD_ICPENDR + intid / 32 * 4, 1U << (intid % 32));
}

bool vt_interrupt_pending(uint32_t intid)
{
	return vt_read32(GICD + GICD_ISPENDR + intid / 32 * 4) >> (intid % 32) & 1;
}
