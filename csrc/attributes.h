/* Arrays on a device as their attributes tell of them, several looked at together. */
#pragma once
#include "describe.h"

enum { TOGETHER = 16 };

/* An array that is looked at. All objects are held, but for the values of a dict, which is. */
typedef struct {
    PyObject *item;                           /* the array */
    PyObject *dict;                           /* its `__cuda_array_interface__`, or NULL */
    PyObject *data, *dtype, *shape, *strides; /* as the attributes have them; NULL: not asked for */
    uintptr_t mark;                           /* of a dict, see `mark_of`; else 0 */
    intptr_t at;                              /* where the memory is, if that is remembered, */
    int recalled;                             /* and 1: it is */
    int slot;                                 /* where it was remembered before, or -1 */
} look;

/* The attribute `__cuda_array_interface__` of an array, a dict, as a new reference; or NULL. */
PyObject *interface_of(PyObject *item);

/* A number, and not 0, that a dict has for as long as it is there and has the same values. */
uintptr_t mark_of(PyObject *dict);

/* The word, counted from an object of that type, where the address of its attributes is; or 0. */
int word_of_attributes(const PyTypeObject *type);

/* Asks n arrays for the attributes that say where they are and how they lie, but those that are
 * recalled. Returns how many could be asked, up to the first that could not. Code of Python's may
 * run. */
int64_t ask(const fs_library *library, look *looks, int64_t n);

/* Reads what an array was asked for: 1, or 0 if that cannot be done here. The itemsize is that of
 * the dtype that it should have. */
int read_look(const look *seen, int64_t itemsize, description *to);

/* Lets go of what an array was asked for. */
void end_look(look *seen);
