/* worker_talk.c: bytes to and from an operating-system worker, in a way that a kill ends.
 *
 * worker_send and worker_receive block, without the interpreter lock, on the thread of the process that
 * owns the worker. While they do, the thread's talk is in the list of tr_state: host_interrupt, which
 * runs when that process is killed, finds it there, kills the worker's process group and shuts the
 * socket down, so that the wait ends at once. A talk lives on the stack of its thread; `talks` and what
 * is linked in it are under talk_lock, which is held for a few instructions and two system calls, never
 * while anything waits. The worker has not been reaped while somebody talks with it (the same thread does
 * both), so the number of its group is still its own.
 *
 * The worker's end uses the same functions, without a process to watch. */
#include "state.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/uio.h>

typedef struct tr_talk {
    struct tr_talk *next, **link;
    unsigned long thread;
    int socket;
    int pidfd; /* readable once the worker has ended; -1: nobody watches */
    int group; /* of processes, to be killed; 0: none */
} tr_talk;

int tr_talk_init(tr_state *state) {
    state->talks = NULL;
    if (pthread_mutex_init(&state->talk_lock, NULL) == 0) return 0;
    PyErr_NoMemory();
    return -1;
}

void tr_talk_interrupt(tr_state *state, unsigned long thread) {
    pthread_mutex_lock(&state->talk_lock);
    for (tr_talk *talk = state->talks; talk != NULL; talk = talk->next) {
        if (talk->thread != thread) continue;
        if (talk->group > 0) kill(-talk->group, SIGKILL);
        shutdown(talk->socket, SHUT_RDWR);
    }
    pthread_mutex_unlock(&state->talk_lock);
}

/* -1 with Killed, if the process of this thread is dead already: then nobody would interrupt the wait. */
static int check_alive(tr_state *state) {
    tr_engine *engine = atomic_load(&state->engine);
    return engine == NULL ? 0 : tr_check_alive(state, engine);
}

static int begin(tr_state *state, tr_talk *talk) {
    talk->thread = PyThread_get_thread_ident();
    pthread_mutex_lock(&state->talk_lock);
    talk->next = state->talks;
    talk->link = &state->talks;
    if (talk->next != NULL) talk->next->link = &talk->next;
    state->talks = talk;
    pthread_mutex_unlock(&state->talk_lock);
    return check_alive(state);
}

static void end(tr_state *state, tr_talk *talk) {
    pthread_mutex_lock(&state->talk_lock);
    *talk->link = talk->next;
    if (talk->next != NULL) talk->next->link = talk->link;
    pthread_mutex_unlock(&state->talk_lock);
}

/* Wait until the socket is ready or the worker has ended: 1 if the socket may be tried, 0 if it is not ready
 * and the worker has ended, -1 with an exception. */
static int wait_ready(const tr_talk *talk, short events) {
    struct pollfd polled[] = {{.fd = talk->socket, .events = events},
                              {.fd = talk->pidfd, .events = POLLIN}};
    for (;;) {
        int result;
        Py_BEGIN_ALLOW_THREADS
        result = poll(polled, 2, -1);
        Py_END_ALLOW_THREADS
        if (result > 0) return polled[0].revents != 0;
        if (result < 0 && errno != EINTR) { /* the macros keep errno */
            PyErr_SetFromErrno(PyExc_OSError);
            return -1;
        }
        if (PyErr_CheckSignals() != 0) return -1;
    }
}

/* What is copied at once without giving the interpreter lock away: to get it back may take longer than
 * to copy so much, while another thread computes. */
enum { TALK_SMALL = 65536 };

static bool try_again(int error) { return error == EAGAIN || error == EWOULDBLOCK || error == EINTR; }

static bool peer_is_gone(int error) {
    return error == EPIPE || error == ECONNRESET || error == ENOTCONN;
}

/* ---- Receiving ----------------------------------------------------------------------------------*/

/* Fill the buffer with at least `minimum` bytes. How many; fewer at the end; -1 with an exception. */
static Py_ssize_t receive(const tr_talk *talk, char *buffer, Py_ssize_t size, Py_ssize_t minimum) {
    Py_ssize_t have = 0;
    while (have < minimum) {
        int ready = wait_ready(talk, POLLIN);
        if (ready <= 0) return ready < 0 ? -1 : have;
        PyThreadState *thread = size - have > TALK_SMALL ? PyEval_SaveThread() : NULL;
        ssize_t got = recv(talk->socket, buffer + have, (size_t)(size - have), MSG_DONTWAIT);
        int error = errno;
        if (thread != NULL) PyEval_RestoreThread(thread);
        errno = error;
        if (got > 0)
            have += got;
        else if (got == 0 || peer_is_gone(errno))
            return have;
        else if (!try_again(errno)) {
            PyErr_SetFromErrno(PyExc_OSError);
            return -1;
        }
    }
    return have;
}

/* worker_receive(socket, pidfd, group, buffer, minimum) -> how many bytes */
static PyObject *py_receive(PyObject *module, PyObject *args) {
    tr_state *state = tr_state_of(module);
    tr_talk talk;
    Py_buffer buffer;
    Py_ssize_t minimum, got = -1;
    if (!PyArg_ParseTuple(args, "iiiw*n:worker_receive", &talk.socket, &talk.pidfd, &talk.group,
                          &buffer, &minimum))
        return NULL;
    if (minimum > buffer.len)
        PyErr_SetString(PyExc_ValueError, "minimum: larger than the buffer");
    else {
        if (begin(state, &talk) == 0) got = receive(&talk, buffer.buf, buffer.len, minimum);
        end(state, &talk);
    }
    PyBuffer_Release(&buffer);
    if (got < 0 || check_alive(state) != 0) return NULL;
    return PyLong_FromSsize_t(got);
}

/* ---- Sending ------------------------------------------------------------------------------------*/

/* Drop `sent` bytes off the front. */
static void advance(struct iovec **vector, size_t *count, size_t sent) {
    while (*count > 0 && sent >= (*vector)->iov_len) {
        sent -= (*vector)->iov_len;
        ++*vector;
        --*count;
    }
    if (sent > 0) {
        (*vector)->iov_base = (char *)(*vector)->iov_base + sent;
        (*vector)->iov_len -= sent;
    }
}

/* 1 when all is sent, 0 when the other side is gone, -1 with an exception. */
static int send_all(const tr_talk *talk, struct iovec *vector, size_t count) {
    size_t total = 0;
    for (size_t i = 0; i < count; i++) total += vector[i].iov_len;
    bool large = total > TALK_SMALL;
    advance(&vector, &count, 0); /* empty ones */
    while (count > 0) {
        struct msghdr header = {.msg_iov = vector, .msg_iovlen = count < IOV_MAX ? count : IOV_MAX};
        PyThreadState *thread = large ? PyEval_SaveThread() : NULL;
        ssize_t sent = sendmsg(talk->socket, &header, MSG_DONTWAIT | MSG_NOSIGNAL);
        int error = errno;
        if (thread != NULL) PyEval_RestoreThread(thread);
        errno = error;
        if (sent >= 0) {
            advance(&vector, &count, (size_t)sent);
            continue;
        }
        if (peer_is_gone(errno)) return 0;
        if (!try_again(errno)) {
            PyErr_SetFromErrno(PyExc_OSError);
            return -1;
        }
        int ready = wait_ready(talk, POLLOUT);
        if (ready <= 0) return ready;
    }
    return 1;
}

/* The buffers of a sequence's items, and where they lie. How many were got; fewer with an exception. */
static Py_ssize_t get_buffers(PyObject *items, Py_buffer *buffers, struct iovec *vector) {
    Py_ssize_t count = PyTuple_GET_SIZE(items);
    for (Py_ssize_t i = 0; i < count; i++) {
        if (PyObject_GetBuffer(PyTuple_GET_ITEM(items, i), &buffers[i], PyBUF_SIMPLE) != 0) return i;
        vector[i].iov_base = buffers[i].buf;
        vector[i].iov_len = (size_t)buffers[i].len;
    }
    return count;
}

/* worker_send(socket, pidfd, group, parts) -> whether all was sent */
static PyObject *py_send(PyObject *module, PyObject *args) {
    tr_state *state = tr_state_of(module);
    tr_talk talk;
    PyObject *parts;
    int result = -1;
    if (!PyArg_ParseTuple(args, "iiiO:worker_send", &talk.socket, &talk.pidfd, &talk.group, &parts))
        return NULL;
    PyObject *items = PySequence_Tuple(parts);
    if (items == NULL) return NULL;
    Py_ssize_t count = PyTuple_GET_SIZE(items), got = 0;
    Py_buffer *buffers = PyMem_Calloc((size_t)count + 1, sizeof *buffers);
    struct iovec *vector = PyMem_Calloc((size_t)count + 1, sizeof *vector);
    if (buffers == NULL || vector == NULL)
        PyErr_NoMemory();
    else if ((got = get_buffers(items, buffers, vector)) == count) {
        if (begin(state, &talk) == 0) result = send_all(&talk, vector, (size_t)count);
        end(state, &talk);
    }
    for (Py_ssize_t i = 0; i < got; i++) PyBuffer_Release(&buffers[i]);
    PyMem_Free(buffers);
    PyMem_Free(vector);
    Py_DECREF(items);
    if (result < 0 || check_alive(state) != 0) return NULL;
    return PyBool_FromLong(result);
}

PyMethodDef tr_talk_functions[] = {
    {"worker_send", py_send, METH_VARARGS,
     "worker_send(socket, pidfd, group, parts, /)\n--\n\nSend all parts to a worker; False if it is "
     "gone."},
    {"worker_receive", py_receive, METH_VARARGS,
     "worker_receive(socket, pidfd, group, buffer, minimum, /)\n--\n\nFill a buffer with at least so "
     "many bytes; fewer if the worker is gone."},
    {NULL, NULL, 0, NULL},
};
