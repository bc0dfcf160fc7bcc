/* test_supervisor.c: what a supervisor decides (O145 to O161, O165, O170 to O177).
 *
 * A small host stands in for the real one: processes are numbers, a child's name is one letter, and
 * everything the host is told to do is written into a log, as in "-c -b +b +c": - stops, + starts,
 * ! a start that fails, ~ one that is ignored, f forget, r retry, G give up, A automatic shutdown,
 * . end. Time is a number. */
#include "tailrace_supervisor.h"

#include <string.h>

#include "check.h"

#define SECOND UINT64_C(1000000000)

enum { MAX_CHILDREN = 64 };

static tr_supervisor *supervisor;
static char names[MAX_CHILDREN]; /* by handle */
static char logged[4096];
static const char *failing;      /* names whose start fails */
static const char *ignoring;     /* names whose start is ignored */
static tr_pid last_pid;
static uint64_t now;
static char retries[MAX_CHILDREN]; /* the host's own queue of retries, by name */
static bool ended;

static void log_action(char sign, char name) {
    size_t length = strlen(logged);
    CHECK(length + 4 < sizeof logged);
    snprintf(logged + length, sizeof logged - length, "%s%c%.1s", length ? " " : "", sign,
             name ? &name : "");
}

static void start(tr_child child) {
    char name = names[child];
    if (strchr(failing, name)) {
        log_action('!', name);
        CHECK_EQ(tr_supervisor_done(supervisor, TR_DONE_FAILED, 0), TR_OK);
    } else if (strchr(ignoring, name)) {
        log_action('~', name);
        CHECK_EQ(tr_supervisor_done(supervisor, TR_DONE_IGNORED, 0), TR_OK);
    } else {
        log_action('+', name);
        CHECK_EQ(tr_supervisor_done(supervisor, TR_DONE_STARTED, ++last_pid), TR_OK);
    }
}

static void work_off(void) {
    tr_action action;
    for (tr_supervisor_next(supervisor, &action); action.kind > TR_ACT_END;
         tr_supervisor_next(supervisor, &action)) {
        char name = names[action.child];
        switch (action.kind) {
        case TR_ACT_START: start(action.child); break;
        case TR_ACT_STOP:
            CHECK(action.pid != 0);
            log_action('-', name);
            CHECK_EQ(tr_supervisor_done(supervisor, TR_DONE_STOPPED, 0), TR_OK);
            break;
        case TR_ACT_FORGET: log_action('f', name); break;
        case TR_ACT_RETRY:
            log_action('r', name);
            CHECK(strlen(retries) + 1 < sizeof retries);
            strncat(retries, &name, 1);
            break;
        case TR_ACT_GIVE_UP: log_action('G', name); break;
        case TR_ACT_AUTO_SHUTDOWN: log_action('A', name); break;
        default: CHECK(false);
        }
    }
    if (action.kind == TR_ACT_END) {
        log_action('.', 0);
        ended = true;
    }
}

static void expect(const char *what) {
    if (strcmp(logged, what) != 0) {
        fprintf(stderr, "got      '%s'\nexpected '%s'\n", logged, what);
        CHECK(false);
    }
    logged[0] = 0;
}

static tr_child child(char name) {
    for (tr_child handle = MAX_CHILDREN - 1; handle > 0; handle--) { /* the newest of that name */
        if (names[handle] == name) {
            return handle;
        }
    }
    CHECK(false);
    return 0;
}

static tr_child_info info(char name) {
    tr_child_info found;
    CHECK_EQ(tr_supervisor_child(supervisor, child(name), &found), TR_OK);
    return found;
}

/* "p a" is permanent a, t transient, y temporary; a capital T or Y is significant. */
static tr_child_options options_of(char letter) {
    tr_child_options options = {.restart = TR_PERMANENT};
    options.restart = letter == 't' || letter == 'T' ? TR_TRANSIENT : options.restart;
    options.restart = letter == 'y' || letter == 'Y' ? TR_TEMPORARY : options.restart;
    options.significant = letter == 'T' || letter == 'Y' || letter == 'P';
    return options;
}

/* A supervisor with such children, e.g. "pa tb yc"; not started. */
static void make(const tr_supervisor_options *options, const char *children) {
    memset(names, 0, sizeof names);
    logged[0] = retries[0] = 0;
    failing = ignoring = "";
    last_pid = 100;
    now = 1000 * SECOND;
    ended = false;
    CHECK_EQ(tr_supervisor_new(options, &supervisor), TR_OK);
    for (; *children; children += children[2] ? 3 : 2) {
        tr_child made;
        tr_child_options child_options = options_of(children[0]);
        CHECK_EQ(tr_supervisor_add(supervisor, &child_options, &made), TR_OK);
        names[made] = children[1];
    }
}

static void boot(int strategy, const char *children) {
    tr_supervisor_options options = {strategy, TR_AUTO_NEVER, 3, 5 * SECOND};
    make(&options, children);
    CHECK_EQ(tr_supervisor_start(supervisor), TR_OK);
    work_off();
    logged[0] = 0;
}

static void boot_auto(int auto_shutdown, const char *children) {
    tr_supervisor_options options = {TR_ONE_FOR_ONE, auto_shutdown, 3, 5 * SECOND};
    make(&options, children);
    CHECK_EQ(tr_supervisor_start(supervisor), TR_OK);
    work_off();
    logged[0] = 0;
}

static void ends(char name, bool clean) {
    tr_child ended_child, expected = child(name);
    CHECK_EQ(tr_supervisor_child_exited(supervisor, info(name).pid, clean, now, &ended_child),
             TR_OK);
    CHECK_EQ(ended_child, expected);
    work_off();
}

static void crash(char name) { ends(name, false); }
static void end_clean(char name) { ends(name, true); }

/* The oldest retry in the host's queue comes. */
static void retry(void) {
    CHECK(retries[0] != 0);
    char name = retries[0];
    memmove(retries, retries + 1, strlen(retries));
    CHECK_EQ(tr_supervisor_retry(supervisor, child(name), now), TR_OK);
    work_off();
}

static int start_child(const char *what) {
    tr_child_options options = options_of(what[0]);
    tr_child made;
    int result = tr_supervisor_start_child(supervisor, &options, &made);
    if (result == TR_OK) {
        names[made] = what[1];
        work_off();
    }
    return result;
}

static void terminate(char name) {
    CHECK_EQ(tr_supervisor_terminate_child(supervisor, child(name)), TR_OK);
    work_off();
}

static void expect_children(const char *expected) {
    tr_child_info children[MAX_CHILDREN];
    char found[4 * MAX_CHILDREN] = "";
    size_t count = tr_supervisor_children(supervisor, children, MAX_CHILDREN);
    for (size_t i = 0; i < count; i++) {
        size_t length = strlen(found);
        const char *state = children[i].state == TR_CHILD_RUNNING      ? ""
                            : children[i].state == TR_CHILD_RESTARTING ? "?"
                                                                       : "-";
        CHECK((children[i].pid != 0) == (children[i].state == TR_CHILD_RUNNING));
        snprintf(found + length, sizeof found - length, "%s%c%s", i ? " " : "",
                 names[children[i].child], state);
    }
    if (strcmp(found, expected) != 0) {
        fprintf(stderr, "children '%s', expected '%s'\n", found, expected);
        CHECK(false);
    }
}

static void finish(void) { tr_supervisor_free(supervisor); }

/* ---- Start --------------------------------------------------------------------------------------*/

static void children_start_in_order_O145(void) {
    tr_supervisor_options options = {TR_ONE_FOR_ONE, TR_AUTO_NEVER, 3, 5 * SECOND};
    make(&options, "pa tb yc");
    expect_children("a- b- c-");
    CHECK_EQ(tr_supervisor_start(supervisor), TR_OK);
    work_off();
    expect("+a +b +c");
    expect_children("a b c");
    CHECK_EQ(tr_supervisor_start(supervisor), TR_EBUSY);
    finish();
}

static void a_failed_start_rolls_back_in_reverse_order_O146(void) {
    tr_supervisor_options options = {TR_ONE_FOR_ONE, TR_AUTO_NEVER, 3, 5 * SECOND};
    make(&options, "pa yb pc pd pe");
    failing = "d";
    CHECK_EQ(tr_supervisor_start(supervisor), TR_OK);
    work_off();
    expect("+a +b +c !d -c -b fb -a .");
    CHECK(ended);
    work_off();
    expect("."); /* said again */
    finish();
}

static void an_ignored_child_keeps_its_place_unless_temporary_O147(void) {
    tr_supervisor_options options = {TR_ONE_FOR_ONE, TR_AUTO_NEVER, 3, 5 * SECOND};
    make(&options, "ya pb yc td ye");
    ignoring = "abcde";
    CHECK_EQ(tr_supervisor_start(supervisor), TR_OK);
    work_off();
    expect("~a fa ~b ~c fc ~d ~e fe");
    expect_children("b- d-");
    finish();
}

static void a_supervisor_without_children_runs(void) {
    boot(TR_ONE_FOR_ALL, "");
    expect("");
    tr_supervisor_shutdown(supervisor);
    work_off();
    expect(".");
    finish();
}

static void options_are_checked_O144_O173(void) {
    tr_supervisor_options options = {TR_ONE_FOR_ONE, TR_AUTO_NEVER, 3, 5 * SECOND}, bad = options;
    bad.strategy = 3;
    CHECK_EQ(tr_supervisor_new(&bad, &supervisor), TR_EINVAL);
    bad = options;
    bad.auto_shutdown = -1;
    CHECK_EQ(tr_supervisor_new(&bad, &supervisor), TR_EINVAL);
    bad = options;
    bad.max_time = 0;
    CHECK_EQ(tr_supervisor_new(&bad, &supervisor), TR_EINVAL);
    make(&options, "");
    tr_child made;
    tr_child_options child_options = {.restart = 3};
    CHECK_EQ(tr_supervisor_add(supervisor, &child_options, &made), TR_EINVAL);
    child_options = options_of('T'); /* significant under TR_AUTO_NEVER */
    CHECK_EQ(tr_supervisor_add(supervisor, &child_options, &made), TR_EINVAL);
    finish();
    options.auto_shutdown = TR_AUTO_ANY_SIGNIFICANT;
    make(&options, "Ta Yb");
    child_options = options_of('P'); /* significant and permanent */
    CHECK_EQ(tr_supervisor_add(supervisor, &child_options, &made), TR_EINVAL);
    CHECK_EQ(tr_supervisor_start(supervisor), TR_OK);
    work_off();
    CHECK_EQ(start_child("Pc"), TR_EINVAL);
    expect_children("a b");
    finish();
}

/* ---- Restart ------------------------------------------------------------------------------------*/

static void a_permanent_child_always_comes_back_O149(void) {
    boot(TR_ONE_FOR_ONE, "pa pb");
    tr_pid before = info('a').pid, other = info('b').pid;
    end_clean('a');
    crash('a');
    expect("+a +a");
    CHECK(info('a').pid != before);
    CHECK_EQ(info('b').pid, other);
    finish();
}

static void a_transient_child_comes_back_from_a_crash_only_O150(void) {
    boot(TR_ONE_FOR_ONE, "ta pb");
    crash('a');
    expect("+a");
    end_clean('a');
    expect("");
    expect_children("a- b");
    finish();
}

static void a_temporary_child_never_comes_back_O151(void) {
    boot(TR_ONE_FOR_ONE, "ya yb pc");
    crash('a');
    end_clean('b');
    expect("fa fb");
    expect_children("c");
    finish();
}

static void an_end_without_restart_leaves_the_siblings_alone_O152(void) {
    int strategies[] = {TR_ONE_FOR_ONE, TR_ONE_FOR_ALL, TR_REST_FOR_ONE};
    for (int i = 0; i < 3; i++) {
        boot(strategies[i], "ta yb pc");
        for (int times = 0; times < 10; times++) { /* and does not count */
            end_clean('a');
            CHECK_EQ(tr_supervisor_restart_child(supervisor, child('a')), TR_OK);
            work_off();
        }
        logged[0] = 0;
        end_clean('a');
        crash('b');
        expect("fb");
        expect_children("a- c");
        finish();
    }
}

static void one_for_all_restarts_all_O153(void) {
    boot(TR_ONE_FOR_ALL, "pa pb pc");
    crash('b');
    expect("-c -a +a +b +c");
    finish();
}

static void rest_for_one_restarts_those_after_it_O153(void) {
    boot(TR_REST_FOR_ONE, "pa pb pc pd");
    tr_pid before = info('a').pid;
    crash('b');
    expect("-d -c +b +c +d");
    CHECK_EQ(info('a').pid, before);
    crash('d');
    expect("+d");
    finish();
}

static void a_group_restart_removes_temporary_siblings_O154(void) {
    boot(TR_ONE_FOR_ALL, "ya pb yc pd ye");
    crash('b');
    expect("-e fe -d -c fc -a fa +b +d");
    expect_children("b d");
    finish();
    boot(TR_REST_FOR_ONE, "ya pb yc");
    crash('b');
    expect("-c fc +b");
    expect_children("a b");
    finish();
}

static void a_group_restart_starts_every_spec_that_is_down_O155(void) {
    boot(TR_ONE_FOR_ALL, "pa tb pc pd");
    end_clean('b');
    terminate('c');
    expect("-c");
    crash('d');
    expect("-a +a +b +c +d");
    finish();
}

static void the_fourth_restart_in_five_seconds_is_fatal_O156_O159(void) {
    boot(TR_ONE_FOR_ONE, "pa pb");
    for (int i = 0; i < 3; i++) {
        crash('b');
    }
    expect("+b +b +b");
    now += 5 * SECOND; /* an age of exactly max_seconds still counts (O158) */
    crash('b');
    expect("Gb -a .");
    CHECK(ended);
    finish();
}

static void old_restarts_do_not_count_O156_O158(void) {
    boot(TR_ONE_FOR_ONE, "pa");
    for (int i = 0; i < 100; i++) {
        crash('a');
        now += i % 3 == 2 ? 5 * SECOND + 1 : 0;
    }
    CHECK(!ended);
    finish();
}

static void the_window_slides_O156(void) {
    boot(TR_ONE_FOR_ONE, "pa");
    for (int i = 0; i < 50; i++) { /* four in any six seconds, three in any five */
        crash('a');
        now += 2 * SECOND;
    }
    CHECK(!ended);
    crash('a');
    crash('a');
    CHECK(ended);
    finish();
}

static void no_restart_allowed_means_the_first_end_is_fatal_O156(void) {
    tr_supervisor_options options = {TR_ONE_FOR_ONE, TR_AUTO_NEVER, 0, 5 * SECOND};
    make(&options, "pa pb");
    CHECK_EQ(tr_supervisor_start(supervisor), TR_OK);
    work_off();
    logged[0] = 0;
    crash('a');
    expect("Ga -b .");
    finish();
}

static void many_restarts_may_be_allowed(void) {
    tr_supervisor_options options = {TR_ONE_FOR_ONE, TR_AUTO_NEVER, 1000, UINT64_MAX};
    make(&options, "pa");
    CHECK_EQ(tr_supervisor_start(supervisor), TR_OK);
    work_off();
    for (int i = 0; i < 1000; i++) {
        crash('a');
        logged[0] = 0;
    }
    CHECK(!ended);
    crash('a');
    expect("Ga .");
    finish();
}

static void a_clock_that_seems_to_go_back_counts_as_now(void) {
    boot(TR_ONE_FOR_ONE, "pa");
    for (int i = 0; i < 4; i++) {
        crash('a');
        now -= 10 * SECOND;
    }
    CHECK(ended);
    finish();
}

static void a_group_restart_counts_once_O157(void) {
    boot(TR_ONE_FOR_ALL, "pa pb pc pd pe");
    crash('a');
    crash('b');
    crash('c');
    CHECK(!ended);
    crash('d');
    CHECK(ended);
    finish();
}

static void a_start_that_always_fails_runs_four_times_O160(void) {
    boot(TR_ONE_FOR_ONE, "pa pb"); /* the first, successful */
    failing = "a";
    crash('a');
    expect("!a ra");
    expect_children("a? b");
    retry();
    retry();
    expect("!a ra !a ra");
    retry();
    expect("Ga -b .");
    finish();
}

static void a_retry_that_works_ends_the_trouble_O160(void) {
    boot(TR_ONE_FOR_ONE, "pa pb");
    failing = "a";
    crash('a');
    crash('b'); /* others are served between the tries */
    expect("!a ra +b");
    failing = "";
    retry();
    expect("+a");
    expect_children("a b");
    finish();
}

static void a_failing_group_restart_goes_on_from_that_child_O161(void) {
    boot(TR_REST_FOR_ONE, "pa pb pc pd");
    failing = "c";
    crash('b');
    expect("-d -c +b !c rc");
    expect_children("a b c? d-");
    failing = "";
    retry();
    expect("+c +d");
    finish();
    boot(TR_ONE_FOR_ALL, "pa pb pc");
    failing = "b";
    crash('c');
    expect("-b -a +a !b rb");
    failing = "";
    retry();
    expect("-a +a +b +c");
    finish();
}

static void a_group_restart_includes_a_child_waiting_for_its_retry_O155_O160(void) {
    boot(TR_ONE_FOR_ALL, "pa pb");
    failing = "a";
    crash('a');
    expect("-b !a ra");
    expect_children("a? b-");
    CHECK_EQ(tr_supervisor_restart_child(supervisor, child('b')), TR_OK);
    work_off();
    crash('b'); /* the group again; a is tried and fails, its retry is on its way already */
    expect("+b !a");
    expect_children("a? b-");
    CHECK_EQ(strlen(retries), 1);
    failing = "";
    retry();
    expect("+a +b");
    finish();
}

static void ignoring_a_restart_counts_as_success_O161(void) {
    boot(TR_ONE_FOR_ALL, "pa pb");
    ignoring = "a";
    crash('a');
    expect("-b ~a +b");
    expect_children("a- b");
    finish();
}

static void a_retry_does_nothing_once_it_is_not_wanted_O160(void) {
    boot(TR_ONE_FOR_ONE, "pa pb pc");
    failing = "abc";
    crash('a');
    crash('b');
    crash('c');
    failing = "";
    logged[0] = 0;
    terminate('a');
    expect_children("a- b? c?");
    terminate('b');
    CHECK_EQ(tr_supervisor_delete_child(supervisor, child('b')), TR_OK);
    terminate('c');
    CHECK_EQ(tr_supervisor_restart_child(supervisor, child('c')), TR_OK);
    work_off();
    expect("+c");
    retry();
    retry();
    retry();
    expect("");
    expect_children("a- c");
    finish();
}

/* ---- Shutdown -----------------------------------------------------------------------------------*/

static void shutdown_stops_in_reverse_order_O165(void) {
    boot(TR_ONE_FOR_ONE, "pa tb yc pd");
    end_clean('b');
    tr_supervisor_shutdown(supervisor);
    work_off();
    expect("-d -c fc -a .");
    tr_child unused;
    CHECK_EQ(tr_supervisor_child_exited(supervisor, 101, false, now, &unused), TR_EBUSY);
    CHECK_EQ(start_child("pe"), TR_EBUSY);
    tr_supervisor_shutdown(supervisor);
    work_off();
    expect(".");
    finish();
}

static void shutdown_replaces_a_plan_that_is_under_way(void) {
    tr_action action;
    boot(TR_ONE_FOR_ALL, "pa pb pc");
    tr_child unused;
    CHECK_EQ(tr_supervisor_child_exited(supervisor, info('a').pid, false, now, &unused), TR_OK);
    tr_supervisor_next(supervisor, &action);
    CHECK_EQ(action.kind, TR_ACT_STOP); /* not reported: c still runs */
    tr_supervisor_shutdown(supervisor);
    work_off();
    expect("-c -b .");
    finish();
}

static void shutdown_is_possible_before_the_start(void) {
    tr_supervisor_options options = {TR_ONE_FOR_ONE, TR_AUTO_NEVER, 3, 5 * SECOND};
    make(&options, "pa");
    tr_supervisor_shutdown(supervisor);
    CHECK_EQ(tr_supervisor_start(supervisor), TR_EBUSY);
    work_off();
    expect(".");
    finish();
}

/* ---- Automatic shutdown -------------------------------------------------------------------------*/

static void any_significant_end_shuts_down_O170(void) {
    boot_auto(TR_AUTO_ANY_SIGNIFICANT, "pa Tb pc");
    crash('b'); /* a transient crash is restarted instead */
    expect("+b");
    end_clean('b');
    expect("Ab -c -a .");
    finish();
    boot_auto(TR_AUTO_ANY_SIGNIFICANT, "pa tb yc Yd");
    end_clean('b');
    crash('c');
    expect("fc");
    crash('d'); /* the last of the table, and temporary */
    expect("Ad fd -a .");
    finish();
}

static void all_significant_ends_shut_down_O171(void) {
    boot_auto(TR_AUTO_ALL_SIGNIFICANT, "Ya Tb Tc pd");
    crash('a');
    end_clean('b');
    expect("fa");
    failing = "c";
    crash('c');
    expect("!c rc"); /* being restarted counts as running */
    failing = "";
    retry();
    expect("+c");
    end_clean('c');
    expect("Ac -d .");
    finish();
}

static void a_child_being_restarted_counts_as_running_O171(void) {
    boot_auto(TR_AUTO_ALL_SIGNIFICANT, "Ta Tb");
    failing = "a";
    crash('a');
    end_clean('b');
    CHECK(!ended);
    expect("!a ra");
    finish();
}

static void administration_triggers_no_automatic_shutdown_O172(void) {
    boot_auto(TR_AUTO_ANY_SIGNIFICANT, "Ta Yb pc");
    terminate('a');
    terminate('b');
    expect("-a -b fb");
    CHECK(!ended);
    finish();
}

static void a_group_restart_triggers_no_automatic_shutdown_O172(void) {
    tr_supervisor_options options = {TR_ONE_FOR_ALL, TR_AUTO_ANY_SIGNIFICANT, 3, 5 * SECOND};
    make(&options, "Ta Yb pc");
    CHECK_EQ(tr_supervisor_start(supervisor), TR_OK);
    work_off();
    logged[0] = 0;
    crash('c');
    expect("-b fb -a +a +c");
    CHECK(!ended);
    finish();
}

/* ---- Administration -----------------------------------------------------------------------------*/

static void start_child_appends_O174(void) {
    boot(TR_REST_FOR_ONE, "pa pb");
    CHECK_EQ(start_child("pc"), TR_OK);
    expect("+c");
    crash('b');
    expect("-c +b +c");
    finish();
}

static void a_child_that_fails_to_start_is_forgotten_O174(void) {
    boot(TR_ONE_FOR_ONE, "pa");
    failing = "b";
    CHECK_EQ(start_child("pb"), TR_OK);
    expect("!b fb");
    ignoring = "cd";
    CHECK_EQ(start_child("pc"), TR_OK);
    CHECK_EQ(start_child("yd"), TR_OK);
    expect("~c ~d fd");
    expect_children("a c-");
    finish();
}

static void terminate_child_keeps_the_spec_unless_temporary_O175(void) {
    boot(TR_ONE_FOR_ALL, "pa yb tc");
    terminate('a');
    terminate('b');
    terminate('a'); /* not running: succeeds */
    expect("-a -b fb");
    expect_children("a- c");
    CHECK_EQ(tr_supervisor_terminate_child(supervisor, child('b')), TR_ENOCHILD);
    CHECK_EQ(tr_supervisor_terminate_child(supervisor, 0), TR_ENOCHILD);
    CHECK_EQ(tr_supervisor_terminate_child(supervisor, 99), TR_ENOCHILD);
    finish();
}

static void a_stopped_child_is_not_known_by_its_old_pid_O172(void) {
    boot(TR_ONE_FOR_ONE, "pa");
    tr_pid before = info('a').pid;
    tr_child unused;
    terminate('a');
    CHECK_EQ(tr_supervisor_child_exited(supervisor, before, false, now, &unused), TR_ENOCHILD);
    CHECK_EQ(tr_supervisor_child_exited(supervisor, 0, false, now, &unused), TR_ENOCHILD);
    finish();
}

static void restart_and_delete_need_a_child_that_is_down_O176(void) {
    boot(TR_ONE_FOR_ONE, "pa pb");
    CHECK_EQ(tr_supervisor_restart_child(supervisor, child('a')), TR_ERUNNING);
    CHECK_EQ(tr_supervisor_delete_child(supervisor, child('a')), TR_ERUNNING);
    failing = "a";
    crash('a');
    CHECK_EQ(tr_supervisor_restart_child(supervisor, child('a')), TR_ERESTARTING);
    CHECK_EQ(tr_supervisor_delete_child(supervisor, child('a')), TR_ERESTARTING);
    CHECK_EQ(tr_supervisor_restart_child(supervisor, 77), TR_ENOCHILD);
    CHECK_EQ(tr_supervisor_delete_child(supervisor, 77), TR_ENOCHILD);
    terminate('a');
    logged[0] = 0;
    CHECK_EQ(tr_supervisor_restart_child(supervisor, child('a')), TR_OK);
    work_off();
    expect("!a"); /* no retry, no count */
    expect_children("a- b");
    CHECK_EQ(tr_supervisor_delete_child(supervisor, child('a')), TR_OK);
    expect_children("b");
    finish();
}

static void the_protocol_is_enforced(void) {
    tr_action action;
    tr_supervisor_options options = {TR_ONE_FOR_ONE, TR_AUTO_NEVER, 3, 5 * SECOND};
    make(&options, "pa pb");
    CHECK_EQ(start_child("pc"), TR_EBUSY); /* not started yet */
    CHECK_EQ(tr_supervisor_done(supervisor, TR_DONE_STARTED, 1), TR_EINVAL);
    CHECK_EQ(tr_supervisor_start(supervisor), TR_OK);
    CHECK_EQ(tr_supervisor_done(supervisor, TR_DONE_STARTED, 1), TR_EINVAL); /* not asked yet */
    for (int i = 0; i < 2; i++) {
        tr_supervisor_next(supervisor, &action); /* said again until reported */
        CHECK(action.kind == TR_ACT_START && action.child == child('a'));
    }
    tr_child unused;
    CHECK_EQ(tr_supervisor_child_exited(supervisor, 1, false, now, &unused), TR_EBUSY);
    CHECK_EQ(tr_supervisor_retry(supervisor, child('a'), now), TR_EBUSY);
    CHECK_EQ(tr_supervisor_terminate_child(supervisor, child('a')), TR_EBUSY);
    CHECK_EQ(tr_supervisor_restart_child(supervisor, child('a')), TR_EBUSY);
    CHECK_EQ(tr_supervisor_delete_child(supervisor, child('a')), TR_EBUSY);
    CHECK_EQ(tr_supervisor_done(supervisor, TR_DONE_STOPPED, 0), TR_EINVAL);
    CHECK_EQ(tr_supervisor_done(supervisor, 9, 0), TR_EINVAL);
    CHECK_EQ(tr_supervisor_done(supervisor, TR_DONE_STARTED, 0), TR_EINVAL);
    CHECK_EQ(tr_supervisor_done(supervisor, TR_DONE_STARTED, 1), TR_OK);
    CHECK_EQ(tr_supervisor_done(supervisor, TR_DONE_STARTED, 2), TR_EINVAL); /* not asked yet */
    tr_supervisor_next(supervisor, &action);
    CHECK_EQ(tr_supervisor_done(supervisor, TR_DONE_STARTED, 1), TR_EINVAL); /* a's pid */
    CHECK_EQ(tr_supervisor_done(supervisor, TR_DONE_STARTED, 2), TR_OK);
    tr_supervisor_next(supervisor, &action);
    CHECK_EQ(action.kind, TR_ACT_NONE);
    finish();
}

/* ---- Anything goes ------------------------------------------------------------------------------*/

static uint64_t random_state = 88172645463325252u;

static uint64_t random_word(void) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

/* After any history: the temporary children run, and nothing runs after the end. */
static void check_the_table(void) {
    tr_child_info children[MAX_CHILDREN];
    size_t count = tr_supervisor_children(supervisor, children, MAX_CHILDREN);
    for (size_t i = 0; i < count; i++) {
        bool temporary = strchr("xyz", names[children[i].child]) != NULL;
        CHECK(!temporary || children[i].state == TR_CHILD_RUNNING || ended);
        CHECK(!ended || children[i].state != TR_CHILD_RUNNING);
    }
}

static void random_event(char name, bool clean) {
    static const char *const subsets[] = {"", "", "", "a", "by", "cx"};
    failing = subsets[random_word() % 6];
    ignoring = subsets[random_word() % 6];
    tr_child_info found;
    if (tr_supervisor_child(supervisor, child(name), &found) != TR_OK) {
        return;
    }
    switch (random_word() % 6) {
    case 0: terminate(name); break;
    case 1:
        if (tr_supervisor_restart_child(supervisor, found.child) == TR_OK) work_off();
        break;
    case 2:
        if (retries[0] != 0) retry();
        break;
    case 3: now += random_word() % (4 * SECOND); break;
    default:
        if (found.state == TR_CHILD_RUNNING) ends(name, clean);
    }
    logged[0] = 0;
    check_the_table();
}

static void random_histories_keep_the_table_sound(void) {
    for (int round = 0; round < 3000; round++) {
        tr_supervisor_options options = {(int)(random_word() % 3), (int)(random_word() % 3),
                                         random_word() % 6, 5 * SECOND};
        make(&options, options.auto_shutdown == TR_AUTO_NEVER ? "pa yx pb yy tc yz"
                                                              : "pa yx Tb Yy Tc yz");
        CHECK_EQ(tr_supervisor_start(supervisor), TR_OK);
        work_off();
        for (int i = 0; i < 60 && !ended; i++) {
            random_event("abcxyz"[random_word() % 6], random_word() % 2);
        }
        tr_supervisor_shutdown(supervisor);
        work_off();
        CHECK(ended);
        check_the_table();
        finish();
    }
}

int main(void) {
    RUN(children_start_in_order_O145);
    RUN(a_failed_start_rolls_back_in_reverse_order_O146);
    RUN(an_ignored_child_keeps_its_place_unless_temporary_O147);
    RUN(a_supervisor_without_children_runs);
    RUN(options_are_checked_O144_O173);
    RUN(a_permanent_child_always_comes_back_O149);
    RUN(a_transient_child_comes_back_from_a_crash_only_O150);
    RUN(a_temporary_child_never_comes_back_O151);
    RUN(an_end_without_restart_leaves_the_siblings_alone_O152);
    RUN(one_for_all_restarts_all_O153);
    RUN(rest_for_one_restarts_those_after_it_O153);
    RUN(a_group_restart_removes_temporary_siblings_O154);
    RUN(a_group_restart_starts_every_spec_that_is_down_O155);
    RUN(the_fourth_restart_in_five_seconds_is_fatal_O156_O159);
    RUN(old_restarts_do_not_count_O156_O158);
    RUN(the_window_slides_O156);
    RUN(no_restart_allowed_means_the_first_end_is_fatal_O156);
    RUN(many_restarts_may_be_allowed);
    RUN(a_clock_that_seems_to_go_back_counts_as_now);
    RUN(a_group_restart_counts_once_O157);
    RUN(a_start_that_always_fails_runs_four_times_O160);
    RUN(a_retry_that_works_ends_the_trouble_O160);
    RUN(a_failing_group_restart_goes_on_from_that_child_O161);
    RUN(a_group_restart_includes_a_child_waiting_for_its_retry_O155_O160);
    RUN(ignoring_a_restart_counts_as_success_O161);
    RUN(a_retry_does_nothing_once_it_is_not_wanted_O160);
    RUN(shutdown_stops_in_reverse_order_O165);
    RUN(shutdown_replaces_a_plan_that_is_under_way);
    RUN(shutdown_is_possible_before_the_start);
    RUN(any_significant_end_shuts_down_O170);
    RUN(all_significant_ends_shut_down_O171);
    RUN(a_child_being_restarted_counts_as_running_O171);
    RUN(administration_triggers_no_automatic_shutdown_O172);
    RUN(a_group_restart_triggers_no_automatic_shutdown_O172);
    RUN(start_child_appends_O174);
    RUN(a_child_that_fails_to_start_is_forgotten_O174);
    RUN(terminate_child_keeps_the_spec_unless_temporary_O175);
    RUN(a_stopped_child_is_not_known_by_its_old_pid_O172);
    RUN(restart_and_delete_need_a_child_that_is_down_O176);
    RUN(the_protocol_is_enforced);
    RUN(random_histories_keep_the_table_sound);
    return check_report();
}
