/* puppet.h: a process that does what it is told, message by message, and tells its owner what it hears. */
#ifndef TRI_PUPPET_H
#define TRI_PUPPET_H

#include "actors.h"

/* Orders. `from` is the process they are about; `reason` and `number` as each needs. */
enum {
    DO_TRAP = TR_MESSAGE_USER, /* number: on or off */
    DO_LINK,
    DO_UNLINK,
    DO_MONITOR, /* its ref is in the answer to the next ask() */
    DO_DEMONITOR,
    DO_EXIT, /* send it an exit signal */
    DO_END   /* end yourself */
};

static void obey(tr_process *self, actor *me, tr_message *message) {
    tr_engine *engine = tr_process_engine(self);
    tr_reason *reason = tr_reason_retain(message->reason);
    switch (message->kind) {
    case DO_TRAP: tr_trap_exit(self, message->number != 0); break;
    case DO_LINK: me->number = tr_link(self, message->from); break;
    case DO_UNLINK: tr_unlink(self, message->from); break;
    case DO_MONITOR: CHECK_EQ(tr_monitor(self, message->from, NULL, (tr_ref *)&me->number), TR_OK); break;
    case DO_DEMONITOR: tr_demonitor(self, message->ref, message->number != 0); break;
    case DO_EXIT: tr_exit(engine, tr_process_pid(self), message->from, reason); return;
    case DO_END: tr_exit_self(self, reason); return;
    case TR_MESSAGE_CALL: tr_reply(engine, message->from, message->ref, term(me->number)); break;
    case TR_MESSAGE_EXIT:
        if (message->from == 0) { /* the engine stops */
            tr_exit_self(self, reason);
            return;
        }
        /* fall through */
    case TR_MESSAGE_DOWN: {
        tr_message *copy = tr_message_new(message->kind);
        *copy = (tr_message){.kind = message->kind, .from = message->from, .ref = message->ref,
                             .reason = reason, .number = tr_process_pid(self)};
        tr_send_message(engine, me->peer, copy);
        return;
    }
    default: CHECK(!"an order");
    }
    tr_reason_release(reason);
}

UNUSED static tr_pid puppet(tr_engine *engine) {
    return start(engine, &(actor){.handle = obey, .peer = here(engine)});
}

UNUSED static void order(tr_engine *engine, tr_pid pid, uint32_t kind, tr_pid about,
                         tr_reason *reason, uint64_t number) {
    tr_message *message = tr_message_new(kind);
    CHECK(message != NULL);
    message->from = about;
    message->reason = reason;
    message->number = number;
    tr_send_message(engine, pid, message);
}

/* Wait until it has obeyed all orders; what it remembers of the last. False if it is dead. */
UNUSED static bool ask(tr_engine *engine, tr_pid pid, int64_t *number) {
    tr_process *self = tr_self(engine);
    tr_call_options options = {.kind = TR_MESSAGE_CALL, .term = term(0)};
    if (tr_call(self, pid, &options) != TR_OK) return false;
    CHECK_EQ(tr_call_wait(self, in(LIMIT)), TR_OK);
    tr_term reply;
    tr_reason *reason;
    tr_call_take(self, &reply, &reason);
    bool answered = reply != NULL;
    if (answered && number != NULL) *number = value_of(reply);
    if (answered) release_term(NULL, reply);
    tr_reason_release(reason);
    return answered;
}

UNUSED static tr_ref watch(tr_engine *engine, tr_pid pid) {
    tr_ref ref;
    CHECK_EQ(tr_monitor(tr_self(engine), pid, NULL, &ref), TR_OK);
    return ref;
}

#endif
