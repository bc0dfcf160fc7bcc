/* lock_code.c: what a function's bytecode says of the locks that it takes and lets go of.
 *
 * It goes by names: whatever is called `acquire` or `release`, by a method, a global or a variable of that name,
 * is taken for a lock's. Up to 3.13 `with` needs none of it, as no interrupt gets between the lock and the block.
 * A lock that a function of another name takes for its caller is not seen. */
#include "lock_code.h"

#include <opcode.h>

/* ---- Names --------------------------------------------------------------------------------------*/

enum { NO_LOCK, TAKES, GIVES };

static int kind_of(PyObject *name) {
    static const char *const takes[] = {"acquire", "__enter__", "_acquire_restore", "_acquireLock"};
    static const char *const gives[] = {"release", "__exit__", "_release_save", "_releaseLock"};
    for (size_t i = 0; i < sizeof takes / sizeof *takes; i++) {
        if (PyUnicode_CompareWithASCIIString(name, takes[i]) == 0) return TAKES;
        if (PyUnicode_CompareWithASCIIString(name, gives[i]) == 0) return GIVES;
    }
    return NO_LOCK;
}

static int kind_at(PyObject *names, int index) {
    if (names == NULL || index < 0 || index >= PyTuple_GET_SIZE(names)) return NO_LOCK;
    return kind_of(PyTuple_GET_ITEM(names, index));
}

static int kind_of_any(PyObject *names) {
    int kind = NO_LOCK;
    Py_ssize_t count = names == NULL ? 0 : PyTuple_GET_SIZE(names);
    for (Py_ssize_t i = 0; i < count && kind == NO_LOCK; i++) kind = kind_at(names, (int)i);
    return kind;
}

/* Which of the variables that functions share it is takes more to find out than it is worth. */
static int kind_of_shared(PyCodeObject *code) {
    PyObject *free = PyCode_GetFreevars(code), *cells = PyCode_GetCellvars(code);
    int kind = kind_of_any(free);
    if (kind == NO_LOCK) kind = kind_of_any(cells);
    Py_XDECREF(free);
    Py_XDECREF(cells);
    return kind;
}

/* ---- Instructions -------------------------------------------------------------------------------*/

static bool is_call(int opcode) {
#ifdef CALL_KW
    if (opcode == CALL_KW) return true;
#endif
    return opcode == CALL || opcode == CALL_FUNCTION_EX;
}

static bool is_at_call(int opcode) {
#if PY_VERSION_HEX < 0x030C0000
    if (opcode == PRECALL) return true;
#endif
    return is_call(opcode);
}

static bool is_back_jump(int opcode) {
#if PY_VERSION_HEX < 0x030C0000
    if (opcode == POP_JUMP_BACKWARD_IF_TRUE || opcode == POP_JUMP_BACKWARD_IF_FALSE) return true;
#endif
    return opcode == JUMP_BACKWARD;
}

/* Where Python looks for interrupts. At the turnstile a thread stands elsewhere, too, and looks at the next one. */
static bool is_look(int opcode) { return is_call(opcode) || opcode == RESUME || is_back_jump(opcode); }

static int argument_of(const tr_text *text, int at) {
    int argument = text->text[at + 1];
    for (int shift = 8; at >= 2 && shift < 24 && text->text[at - 2] == EXTENDED_ARG; at -= 2, shift += 8)
        argument |= text->text[at - 1] << shift;
    return argument;
}

/* The instruction before this one, caches left out; or a negative number. */
static int before(const tr_text *text, int at) {
    do at -= 2;
    while (at >= 0 && text->text[at] == CACHE);
    return at;
}

/* Loads of names: the number of the name begins at this bit of the argument; the bits below it tell a method. */
#if PY_VERSION_HEX < 0x030C0000
enum { METHOD = LOAD_METHOD, METHOD_BITS = 0, IS_METHOD = 0 };
#else
enum { METHOD = LOAD_ATTR, METHOD_BITS = 1, IS_METHOD = 1 };
#endif

static bool loads_local(int opcode) {
#ifdef LOAD_FAST_CHECK
    if (opcode == LOAD_FAST_CHECK) return true;
#endif
#ifdef LOAD_FAST_BORROW
    if (opcode == LOAD_FAST_BORROW) return true;
#endif
    return opcode == LOAD_FAST;
}

static bool loads_two_locals(int opcode) {
#ifdef LOAD_FAST_BORROW_LOAD_FAST_BORROW
    if (opcode == LOAD_FAST_BORROW_LOAD_FAST_BORROW) return true;
#endif
#ifdef LOAD_FAST_LOAD_FAST
    return opcode == LOAD_FAST_LOAD_FAST;
#else
    return false;
#endif
}

static bool loads_second_local(int opcode) {
#ifdef STORE_FAST_LOAD_FAST
    if (opcode == STORE_FAST_LOAD_FAST) return true;
#endif
    return loads_two_locals(opcode);
}

static int kind_of_variable(const tr_text *text, int opcode, int argument) {
    if (loads_local(opcode)) return kind_at(text->locals, argument);
    int first = loads_two_locals(opcode) ? kind_at(text->locals, argument >> 4) : NO_LOCK;
    if (first != NO_LOCK) return first;
    if (loads_second_local(opcode)) return kind_at(text->locals, argument & 15);
    return opcode == LOAD_DEREF ? kind_of_shared(text->code) : NO_LOCK;
}

/* Since 3.14 `with` calls these as others are called, and looks for interrupts after it. */
static bool is_special(int opcode) {
#ifdef LOAD_SPECIAL
    return opcode == LOAD_SPECIAL;
#else
    (void)opcode;
    return false;
#endif
}

static int kind_of_special(int argument) {
    static const int kinds[] = {TAKES, GIVES, TAKES, GIVES}; /* __enter__, __exit__, and those of `async with` */
    return argument < (int)(sizeof kinds / sizeof *kinds) ? kinds[argument] : NO_LOCK;
}

/* What it loads: something named like what takes a lock, like what gives it back, or something else. */
static int loads(const tr_text *text, int at) {
    int opcode = text->text[at], argument = argument_of(text, at);
    PyObject *names = text->code->co_names;
    if (is_special(opcode)) return kind_of_special(argument);
    if (opcode == METHOD) return kind_at(names, argument >> METHOD_BITS);
    if (opcode == LOAD_GLOBAL) return kind_at(names, argument >> 1);
    if (opcode == LOAD_NAME) return kind_at(names, argument);
#ifdef LOAD_SUPER_ATTR
    if (opcode == LOAD_SUPER_ATTR) return kind_at(names, argument >> 2);
#endif
    return kind_of_variable(text, opcode, argument);
}

static bool is_method(const unsigned char *at) {
#ifdef LOAD_SUPER_ATTR
    if (at[0] == LOAD_SUPER_ATTR) return (at[1] & 1) != 0;
#endif
    return at[0] == METHOD && (at[1] & IS_METHOD) == IS_METHOD;
}

/* What has the name of what is to be called, if that is loaded here: a method, a global, or what is beside
 * PUSH_NULL; or -1. */
static int callee_at(const tr_text *text, int at) {
    const unsigned char *here = text->text + at;
    if (is_method(here) || is_special(here[0]) || (here[0] == LOAD_GLOBAL && (here[1] & 1) != 0)) return at;
    if (here[0] != PUSH_NULL) return -1;
    at = PY_VERSION_HEX < 0x030D0000 ? at + 2 : before(text, at);
    return at < text->size ? at : -1;
}

/* ---- Calls --------------------------------------------------------------------------------------*/

enum { NEARBY = 24, LONGEST_CALL = 200 }; /* instructions, caches among them */

/* Where that is loaded which is called at this instruction or, if it is no call, was called last; or -1. What the
 * arguments of the call call is none of it. */
static int callee_of(const tr_text *text, int instruction) {
    bool calls = is_at_call(text->text[instruction]);
    int last = instruction - 2 * (calls ? LONGEST_CALL : NEARBY), nested = 0;
    for (int i = calls ? instruction - 2 : instruction; i >= 0 && i >= last; i -= 2) {
        if (calls && is_call(text->text[i])) nested++;
        int callee = callee_at(text, i);
        if (callee >= 0 && nested-- == 0) return callee;
    }
    return -1;
}

static bool lock_was_called(const tr_text *text, int instruction) {
    int callee = callee_of(text, instruction);
    return callee >= 0 && loads(text, callee) != NO_LOCK;
}

/* Whether one will be called before the thread looks for interrupts. */
static bool lock_will_be_called(const tr_text *text, int instruction) {
    bool found = false;
    for (int i = instruction; i < text->size && !is_look(text->text[i]) && !found; i += 2)
        found = loads(text, i) != NO_LOCK;
    return found;
}

/* Whether what the call says that gets what is loaded here is dropped. */
static bool drops_result(const tr_text *text, int loaded, int end) {
    int nested = 0, at = loaded + 2;
    for (; at < end; at += 2) {
        int callee = callee_at(text, at);
        if (callee >= 0 && callee != loaded) nested++;
        if (is_call(text->text[at]) && nested-- == 0) break;
    }
    do at += 2;
    while (at < end && text->text[at] == CACHE);
    return at < end && text->text[at] == POP_TOP;
}

/* Whether each round of the loop takes a lock more, or gives one back: `for lock in locks: lock.acquire()`. One that
 * looks whether it got the lock leaves when it has. */
static bool counts_locks(const tr_text *text, int jump) {
    enum { JUMP_CACHES = PY_VERSION_HEX >= 0x030D0000 };
    int start = jump + 2 + 2 * JUMP_CACHES - 2 * argument_of(text, jump);
    bool seen[3] = {false}, dropped = false;
    for (int i = start < 0 ? 0 : start; i < jump; i += 2) {
        int kind = loads(text, i);
        seen[kind] = true;
        if (kind != NO_LOCK) dropped = dropped || drops_result(text, i, jump);
    }
    return dropped && seen[TAKES] != seen[GIVES];
}

/* Where the call before this instruction is, which has just returned; or -1. */
static int call_before(const tr_text *text, int instruction) {
    int at = before(text, instruction);
    return at >= 0 && is_call(text->text[at]) ? at : -1;
}

/* ---- Answers ------------------------------------------------------------------------------------*/

bool tr_text_open(tr_text *text, PyCodeObject *code) {
    *text = (tr_text){.code = code, .bytes = PyCode_GetCode(code), .locals = PyCode_GetVarnames(code)};
    if (text->bytes == NULL || text->locals == NULL) {
        PyErr_Clear();
        tr_text_close(text);
        return false;
    }
    text->text = (const unsigned char *)PyBytes_AS_STRING(text->bytes);
    text->size = (int)PyBytes_GET_SIZE(text->bytes);
    return true;
}

void tr_text_close(tr_text *text) {
    Py_CLEAR(text->bytes);
    Py_CLEAR(text->locals);
}

/* A condition waits by taking a lock which nobody else will want, and has its `try`: whoever is killed there must not
 * go on with what it waited for. */
static bool is_named_wait(const tr_text *text) {
    return PyUnicode_CompareWithASCIIString(text->code->co_name, "wait") == 0;
}

/* With one argument it only tries. */
bool tr_text_is_condition_wait(const tr_text *text, int instruction) {
    const unsigned char *at = text->text + instruction;
    return is_named_wait(text) && is_at_call(at[0]) && at[1] != 1 && lock_was_called(text, instruction);
}

/* At the end of a loop what was taken in it is in good hands. */
int tr_text_look(const tr_text *text, int instruction) {
    bool loops = is_back_jump(text->text[instruction]);
    if (kind_of(text->code->co_name) != NO_LOCK) return loops ? TR_HELD_COMPUTING : TR_HELD_WAITING;
    if (loops && counts_locks(text, instruction)) return TR_HELD_WAITING;
    if (!loops && lock_was_called(text, instruction) && !is_named_wait(text)) return TR_HELD_WAITING;
    return lock_will_be_called(text, instruction) ? TR_HELD_WAITING : TR_INTERRUPTED;
}

/* Not where a Python function has returned, which may have taken something for its caller; nor after a call of nobody
 * knows what. A conditional jump back, of 3.11, is none: its condition may be that something was taken. */
bool tr_text_may_end(const tr_text *text, int instruction, int stood) {
    bool loops = text->text[instruction] == JUMP_BACKWARD;
    int at = loops ? instruction : call_before(text, instruction);
    if (at < 0 || (!loops && at != stood)) return false;
    if (!loops && callee_of(text, at) < 0 && tr_text_mentions_a_lock(text)) return false;
    return tr_text_look(text, at) == TR_INTERRUPTED;
}

static bool calls_special(const tr_text *text) {
    for (int i = 0; i < text->size; i += 2)
        if (is_special(text->text[i])) return true;
    return false;
}

bool tr_text_mentions_a_lock(const tr_text *text) {
    return kind_of_any(text->code->co_names) != NO_LOCK || kind_of_any(text->locals) != NO_LOCK ||
           kind_of_shared(text->code) != NO_LOCK || calls_special(text);
}
