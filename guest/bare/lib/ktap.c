/* SPDX-License-Identifier: Apache-2.0 */
/* Runs a program's cases and prints KTAP (Documentation/dev-tools/ktap.rst of the kernel). */
#include "vt.h"

extern const struct vt_case vt_cases[], vt_cases_end[];

static const char *skipped;
static bool failed;

void vt_note(const char *format, ...)
{
	__builtin_va_list list;

	vt_print("# ");
	__builtin_va_start(list, format);
	vt_vprint(format, list);
	__builtin_va_end(list);
	vt_print("\n");
}

void vt_fail(const char *format, ...)
{
	__builtin_va_list list;

	failed = true;
	vt_print("# ");
	__builtin_va_start(list, format);
	vt_vprint(format, list);
	__builtin_va_end(list);
	vt_print("\n");
}

void vt_skip(const char *reason)
{
	skipped = reason;
}

void vt_bail(const char *reason)
{
	vt_print("Bail out! %s\n", reason);
	vt_power_off();
}

void vt_main(void);
void vt_main(void)
{
	const struct vt_case *each;
	unsigned int count = 0, at = 0;

	for (each = vt_cases; each < vt_cases_end; each++)
		count += vt_wanted(each->name);
	vt_print("KTAP version 1\n1..%u\n", count);
	vt_configure();
	for (each = vt_cases; each < vt_cases_end; each++) {
		if (!vt_wanted(each->name))
			continue;
		failed = false;
		skipped = NULL;
		each->run();
		vt_print("%sok %u %s", failed ? "not " : "", ++at, each->name);
		if (skipped && !failed)
			vt_print(" # SKIP %s", skipped);
		vt_print("\n");
	}
}
