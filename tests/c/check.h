/* check.h: the smallest C test harness that still says what failed.
 *
 * A test program defines `static void name(void)` functions, lists them in main with RUN(name) and
 * ends with `return check_report();`. CHECK aborts the program at the first false condition, with
 * file, line and the condition, so that a sanitizer's report stands next to its cause.
 * A test program is single-threaded in its use of RUN; CHECK may be used from any thread. */
#ifndef TRI_CHECK_H
#define TRI_CHECK_H

#include <stdio.h>
#include <stdlib.h>

static int check_passed;

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: CHECK failed: %s\n", __FILE__, __LINE__, #condition);          \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

#define CHECK_EQ(left, right)                                                                      \
    do {                                                                                           \
        long long check_left = (long long)(left), check_right = (long long)(right);                \
        if (check_left != check_right) {                                                           \
            fprintf(stderr, "%s:%d: CHECK_EQ failed: %s is %lld, expected %s = %lld\n", __FILE__,  \
                    __LINE__, #left, check_left, #right, check_right);                             \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

#define RUN(test)                                                                                  \
    do {                                                                                           \
        test();                                                                                    \
        check_passed++;                                                                            \
        printf("ok %s\n", #test);                                                                  \
    } while (0)

static inline int check_report(void) {
    printf("%d passed, 0 failed\n", check_passed);
    return check_passed == 0;
}

#endif
