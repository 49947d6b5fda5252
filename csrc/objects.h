/* Python objects, as far as C reads them by itself. */
#pragma once
#define Py_LIMITED_API 0x030a0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>

/* A list as CPython lays it out. */
typedef struct {
    PyVarObject head;
    PyObject **items;
} list_object;

/* The items of a list, in memory, or NULL where this Python lays lists out in another way. The
 * limited API hides them behind a call for each, which for thousands of gradients takes as long as
 * to look at them. */
PyObject **items_of(PyObject *list);

/* Forgets an exception: Python meets what raised it again, and says what is wrong. Only an interrupt
 * comes but once, so it is raised again as soon as Python runs. */
void pass_over(void);

/* Thousands of objects lie all over the memory, and most of the time goes to waiting for them. So
 * each is fetched into the cache FAR turns of a loop before it is needed, and, NEAR turns before,
 * the memory that it points to: a tensor of torch is little more than such a pointer. To fetch what
 * is no address does nothing. */
enum { FAR = 16, NEAR = 8 };

/* The word of a dict where CPython has its keys and values. */
enum { KEYS_OF_A_DICT = 4 };

static inline void fetch(const void *at, int lines) {
    for (int line = 0; line < lines; line++)
        __builtin_prefetch((const char *)at + 64 * line);
}

/* Fetches what word `word` of an object, which must have that many, points to. */
static inline void fetch_from(const PyObject *object, int word) {
    fetch(((void *const *)object)[word], 3);
}
