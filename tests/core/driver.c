/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What runs fuzz.c where there is no libFuzzer: random inputs, each one a changed copy of an earlier one or new.
 *
 * Takes the few arguments of libFuzzer's that the Makefile gives, or files to run again. Blind: it does not see which
 * input got further than others. The input that ends the program is kept as a file and named.
 */
#define _POSIX_C_SOURCE 200809L
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <sanitizer/common_interface_defs.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MOST = 2048, KEPT = 64, MOST_SECONDS = 20 };

static uint8_t input[MOST];
static size_t input_size;
static const char *prefix = "";
static uint64_t random_state;

static uint64_t random_below(uint64_t end)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (random_state >> 11) % end;
}

static void keep_input(void)
{
    char name[256];
    snprintf(name, sizeof name, "%scrash-%d", prefix, (int)getpid());
    FILE *file = fopen(name, "wb");
    if (!file)
        return;
    fwrite(input, 1, input_size, file);
    fclose(file);
    fprintf(stderr, "fuzz: the input is %s; give it to this program to see it again\n", name);
}

static void on_signal(int number)
{
    if (number == SIGALRM)
        fprintf(stderr, "fuzz: no end within %d s\n", MOST_SECONDS);
    keep_input();
    _exit(1);
}

static void run(void)
{
    alarm(MOST_SECONDS);
    /* A copy of its own size, so that a read behind it is seen. */
    uint8_t *copy = malloc(input_size ? input_size : 1);
    if (!copy)
        exit(1);
    memcpy(copy, input, input_size);
    LLVMFuzzerTestOneInput(copy, input_size);
    free(copy);
    alarm(0);
}

static void change_input(void)
{
    for (uint64_t changes = 1 + random_below(8); changes; changes--) {
        size_t at = random_below(input_size ? input_size : 1);
        switch (random_below(4)) {
        case 0:
            input[at] ^= (uint8_t)(1 << random_below(8));
            break;
        case 1:
            input[at] = (uint8_t)random_below(256);
            break;
        case 2: { /* from here to there */
            size_t to = random_below(input_size ? input_size : 1), most = input_size - (at > to ? at : to);
            memmove(input + to, input + at, most ? random_below(most + 1) : 0);
            break;
        }
        default:
            for (size_t more = random_below(32); more && input_size < MOST; more--)
                input[input_size++] = (uint8_t)random_below(256);
        }
    }
}

static int run_files(char **names, int count)
{
    for (int at = 0; at < count; at++) {
        FILE *file = fopen(names[at], "rb");
        if (!file) {
            perror(names[at]);
            return 2;
        }
        input_size = fread(input, 1, MOST, file);
        fclose(file);
        run();
        printf("fuzz: %s passed\n", names[at]);
    }
    return 0;
}

int main(int count, char **arguments)
{
    double seconds = 10;
    uint64_t seed = (uint64_t)time(NULL) << 16 ^ (uint64_t)getpid();
    int first_file = 1;
    for (; first_file < count && arguments[first_file][0] == '-'; first_file++) {
        const char *option = arguments[first_file];
        if (!strncmp(option, "-max_total_time=", 16))
            seconds = atof(option + 16);
        else if (!strncmp(option, "-seed=", 6))
            seed = strtoull(option + 6, NULL, 0);
        else if (!strncmp(option, "-artifact_prefix=", 17))
            prefix = option + 17;
    }
    signal(SIGALRM, on_signal);
    signal(SIGABRT, on_signal);
    __sanitizer_set_death_callback(keep_input);
    if (first_file < count)
        return run_files(arguments + first_file, count - first_file);

    printf("fuzz: the standalone driver (there is no libFuzzer here), -seed=%llu\n", (unsigned long long)seed);
    fflush(stdout);
    random_state = seed * UINT64_C(0x9E3779B97F4A7C15) | 1;
    static uint8_t kept[KEPT][MOST];
    static size_t kept_size[KEPT];
    unsigned long long inputs = 0;
    struct timespec start, now;
    clock_gettime(CLOCK_MONOTONIC, &start);
    do {
        unsigned slot = (unsigned)random_below(KEPT);
        input_size = kept_size[slot];
        memcpy(input, kept[slot], MOST);
        if (!input_size || random_below(4) == 0) {
            input_size = 1 + random_below(MOST);
            for (size_t at = 0; at < input_size; at++)
                input[at] = (uint8_t)random_below(256);
        } else {
            change_input();
        }
        memcpy(kept[slot], input, MOST);
        kept_size[slot] = input_size;
        run();
        inputs++;
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while ((double)(now.tv_sec - start.tv_sec) + 1e-9 * (double)(now.tv_nsec - start.tv_nsec) < seconds);
    printf("fuzz: %llu inputs passed\n", inputs);
    return 0;
}
