/* test_stage_memory.c: every allocation of the stage core fails once, in a run that uses all of it:
 * the input that needed it answers TR_ENOMEM, nothing leaks, and the other stages go on.
 *
 * malloc and friends are replaced here, which the sanitizers do not allow: with them this program
 * only says so. */
#include "stage_sim.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)

int main(void) {
    printf("1 passed, 0 failed (sanitizers have a malloc of their own: nothing to do)\n");
    return 0;
}

#else

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *memory, size_t size);
extern void __libc_free(void *memory);

static long until_failure; /* 0: never */
static bool failed;
static long living; /* blocks */

static bool fails(void) {
    if (sim.own_memory || !until_failure || --until_failure) return false;
    return failed = true;
}

static void *born(void *memory) {
    living += memory != NULL;
    return memory;
}

void *malloc(size_t size) { return fails() ? NULL : born(__libc_malloc(size)); }
void *calloc(size_t count, size_t size) { return fails() ? NULL : born(__libc_calloc(count, size)); }

void *realloc(void *memory, size_t size) {
    if (fails()) return NULL;
    return memory ? __libc_realloc(memory, size) : born(__libc_realloc(NULL, size));
}

void free(void *memory) {
    living -= memory != NULL;
    __libc_free(memory);
}

/* Many subscriptions, a buffer that joins, waiting input and accumulated events. */
static void use_everything(void) {
    node *source =
        start((tr_stage_options){.type = TR_PRODUCER, .buffer_size = 50, .accumulate = true});
    node *middle = both(emit_same);
    node *sinks[] = {consumer(), consumer(), consumer(), consumer(), consumer(), consumer()};
    sinks[0]->manual = true;
    for (int i = 0; i < 12 && source->alive; i++) push(source, i * 10, 3);
    if (source->alive) info(source, 1);
    if (middle->alive) subscribe_with(middle, source, 10, 5, TR_TEMPORARY);
    sim_run();
    if (source->alive) after(source, tr_stage_set_accumulate(&source->stage, false));
    sim_run();
    for (int i = 0; i < 10 && middle->alive; i++) info(middle, i);
    for (size_t i = 0; i < 6; i++)
        if (sinks[i]->alive) subscribe_with(sinks[i], middle, 4, 2, TR_TEMPORARY);
    sim_run_some(300);
    die(source, because("over"));
    sim_run();
    sim_end();
}

static void every_allocation_may_fail(void) {
    long number = 1;
    for (;; number++) {
        sim.failing = true;
        failed = false;
        until_failure = number;
        long before = living;
        use_everything();
        CHECK_EQ(living, before);
        until_failure = 0;
        if (!failed) break;
    }
    CHECK(number > 20);
}

int main(void) {
    RUN(every_allocation_may_fail);
    return check_report();
}

#endif
