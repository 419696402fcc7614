/* SPDX-License-Identifier: Apache-2.0 */
/*
 * perf_count TYPE EVENT[:FILTER]…: counts events of a PMU on CPU 0 until its standard input ends; then a line with the
 * numbers. EVENT and FILTER are config and config1 of perf_event_open, in hex. Linux AArch64, without a C library.
 */
typedef unsigned long u64;
typedef unsigned int u32;

enum { READ = 63, WRITE = 64, EXIT = 93, PERF_EVENT_OPEN = 241 };
enum { MOST = 8 };

struct perf_event_attr {
    u32 type, size;
    u64 config, sample_period, sample_type, read_format, flags;
    u32 wakeup_events, bp_type;
    u64 config1, config2;
};

static long call(long number, long a, long b, long c, long d, long e)
{
    register long x8 __asm__("x8") = number, x0 __asm__("x0") = a, x1 __asm__("x1") = b, x2 __asm__("x2") = c,
                     x3 __asm__("x3") = d, x4 __asm__("x4") = e;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4) : "memory");
    return x0;
}

static u64 hex(const char **at)
{
    u64 value = 0;
    for (;; (*at)++) {
        char c = **at;
        if (c >= '0' && c <= '9')
            value = value << 4 | (u64)(c - '0');
        else if (c >= 'a' && c <= 'f')
            value = value << 4 | (u64)(c - 'a' + 10);
        else
            return value;
    }
}

static void print(u64 value, char end)
{
    char text[24];
    int at = sizeof text;
    text[--at] = end;
    do
        text[--at] = (char)('0' + value % 10);
    while (value /= 10);
    call(WRITE, 1, (long)&text[at], (long)sizeof text - at, 0, 0);
}

static void fail(long status)
{
    print((u64)-status, '\n');
    call(EXIT, 1, 0, 0, 0, 0);
}

__attribute__((used)) static void start(long *stack)
{
    int count = (int)stack[0] - 2;
    char **argv = (char **)&stack[1];
    long files[MOST];
    const char *at = argv[1];
    u64 type = hex(&at), value;
    for (int n = 0; n < count && n < MOST; n++) {
        struct perf_event_attr attr = {.type = (u32)type, .size = sizeof attr};
        at = argv[2 + n];
        attr.config = hex(&at);
        if (*at++ == ':')
            attr.config1 = hex(&at);
        files[n] = call(PERF_EVENT_OPEN, (long)&attr, -1, 0, -1, 0);
        if (files[n] < 0)
            fail(files[n]);
    }
    call(WRITE, 1, (long)"counting\n", 9, 0, 0);
    while (call(READ, 0, (long)&value, sizeof value, 0, 0) > 0)
        ;
    for (int n = 0; n < count && n < MOST; n++) {
        long got = call(READ, files[n], (long)&value, sizeof value, 0, 0);
        if (got != sizeof value)
            fail(got);
        print(value, n + 1 < count ? ' ' : '\n');
    }
    call(EXIT, 0, 0, 0, 0, 0);
}

__asm__(".globl _start\n_start: mov x0, sp\n bl start\n");
