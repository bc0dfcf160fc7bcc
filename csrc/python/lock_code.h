/* lock_code.h: what a function's bytecode says of the locks that it takes and lets go of. See lock_code.c. All of
 * it attached; nothing here runs code of the program's. */
#ifndef TR_PYTHON_LOCK_CODE_H
#define TR_PYTHON_LOCK_CODE_H

#include "state.h"

typedef struct tr_text {
    PyCodeObject *code;        /* borrowed */
    PyObject *bytes, *locals;  /* owned */
    const unsigned char *text; /* of `bytes`: instructions of two bytes each, caches among them */
    int size;
} tr_text;

/* False, without an exception, if it cannot be read. */
bool tr_text_open(tr_text *text, PyCodeObject *code);
void tr_text_close(tr_text *text);

/* Whether a thread that stands at this instruction may be interrupted there: what tr_host.interrupt returns. */
int tr_text_look(const tr_text *text, int instruction);

/* Whether a thread may raise Killed itself before this instruction, armed when it stood at that one. */
bool tr_text_may_end(const tr_text *text, int instruction, int stood);

/* Whether it waits here in a condition's own lock. */
bool tr_text_is_condition_wait(const tr_text *text, int instruction);

/* Whether anything that it uses is named like a method of a lock's. */
bool tr_text_mentions_a_lock(const tr_text *text);

#endif
