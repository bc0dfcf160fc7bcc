/* load.c: see load.h. */
#include "load.h"

#include "clock.h"

#define INTERVAL UINT64_C(1000000000)

void tri_load_init(tri_load *load, uint64_t now) {
    *load = (tri_load){.began = now, .changed = now, .mark = now};
}

void tri_load_change(tri_load *load, uint32_t working, uint64_t now) {
    if (now > load->changed) { /* else another thread read the clock later and came first */
        load->busy += load->working * (now - load->changed);
        load->changed = now;
    }
    load->working = working;
}

void tri_load_roll(tri_load *load, uint64_t now) {
    if (now < load->mark + INTERVAL) return;
    tri_load_change(load, load->working, now);
    load->recent = load->changed - load->mark;
    load->recent_busy = load->busy - load->mark_busy;
    load->mark = load->changed;
    load->mark_busy = load->busy;
}

void tri_load_handed_over(tri_load *load) {
    uint64_t now = tri_clock_monotonic();
    uint64_t took = now > load->handed_off ? now - load->handed_off : 0;
    load->handed_off = 0;
    load->timed++;
    load->time += took;
    if (took > load->longest) load->longest = took;
}
