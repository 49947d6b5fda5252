/*
 * The gradients of a step, read straight from their array objects.
 *
 * In most loops each step brings new arrays of the same layout. To ask Python for the address,
 * dtype and shape of an array takes microseconds; to read them from the object, nanoseconds.
 *
 * Python alone decides which arrays are fit: a gradient passes here if it has the layout of its
 * parameter, or of the gradient that Python checked last, and overlaps nothing that the step
 * writes. At any other fs_take stops, and Python checks it.
 */
#define Py_LIMITED_API 0x030a0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#define NPY_NO_DEPRECATED_API NPY_2_0_API_VERSION
#define NPY_TARGET_VERSION NPY_2_0_API_VERSION
#include <numpy/ndarraytypes.h>

#include "api.h"

/* Returns 1 if bytes [low, high) overlap no range that the step writes. */
static int lies_clear(const fs_table *table, intptr_t low, intptr_t high) {
    int64_t first = 0, last = table->nranges; /* ranges before `last` begin below `high` */
    while (first < last) {
        int64_t middle = first + (last - first) / 2;
        if (table->lows[middle] < high)
            first = middle + 1;
        else
            last = middle;
    }
    return last == 0 || table->highs[last - 1] <= low;
}

static int equal(const intptr_t *known, const npy_intp *found, int n) {
    for (int i = 0; i < n; i++)
        if (known[i] != found[i])
            return 0;
    return 1;
}

/* Returns 1 if a parameter may be written to and has the memory that it was found with. Whatever
 * else its object says by now, its shape and dtype are those that were checked. Only an array that
 * owns its memory can be resized. */
static int stands(const fs_parameter *known) {
    PyArrayObject *array = (PyArrayObject *)known->array;
    if (!array)
        return 1;
    int flags = PyArray_FLAGS(array);
    if (!(flags & NPY_ARRAY_WRITEABLE) || (intptr_t)PyArray_DATA(array) != known->data)
        return 0;
    if (!(flags & NPY_ARRAY_OWNDATA))
        return 1;
    int64_t elements = 1;
    for (int axis = 0; axis < PyArray_NDIM(array); axis++)
        elements *= PyArray_DIM(array, axis);
    return elements == known->elements;
}

/* Returns 1 if `item` is as its header says, and puts its address into the row. */
static int take(fs_table *table, PyObject *item, fs_header *known) {
    if (!known->row)
        return item == Py_None;
    if (!stands(table->parameters + (known - table->headers)))
        return 0;
    if ((uintptr_t)Py_TYPE(item) != table->ndarray)
        return 0;
    PyArrayObject *array = (PyArrayObject *)item;
    if ((uintptr_t)PyArray_DESCR(array) != known->dtype || PyArray_NDIM(array) != known->ndim ||
        !equal(known->layout, PyArray_DIMS(array), known->ndim) ||
        !equal(known->layout + known->ndim, PyArray_STRIDES(array), known->ndim))
        return 0;
    if (table->zeroes && !(known->writeable && PyArray_FLAGS(array) & NPY_ARRAY_WRITEABLE))
        return 0;
    intptr_t data = (intptr_t)PyArray_DATA(array);
    if (data == known->data)
        return 1;
    intptr_t low = data + known->below;
    if (known->scratch || data % known->itemsize != 0 ||
        !lies_clear(table, low, low + known->bytes))
        return 0;
    known->data = data;
    known->row->g = (void *)low;
    table->moves++;
    return 1;
}

/* A list as CPython lays it out. The limited API hides its items behind a call for each, which for
 * thousands of gradients takes as long as to look at them. */
typedef struct {
    PyVarObject head;
    PyObject **items;
} list_object;

/* Returns 1 if this Python lays lists out so: where it should say where the items are stands the
 * address of memory that begins with them. */
static int lists_are_known(void) {
    static int known = -1;
    if (known >= 0)
        return known;
    PyObject *list = Py_BuildValue("[OO]", Py_True, Py_False);
    if (!list) {
        PyErr_Clear();
        return 0;
    }
    uintptr_t items = (uintptr_t)((list_object *)list)->items;
    known = items > UINT16_MAX && items % sizeof(PyObject *) == 0 &&
            ((PyObject **)items)[0] == Py_True && ((PyObject **)items)[1] == Py_False;
    Py_DECREF(list);
    return known;
}

/* How many arrays ahead their objects are fetched into the cache: of thousands of tensors, each is
 * somewhere else in memory. */
enum { AHEAD = 16 };

static void fetch_object(const void *array) {
    __builtin_prefetch(array);
    __builtin_prefetch((const char *)array + 64);
}

int64_t fs_take(fs_table *table, uintptr_t list, int64_t start, int zeroes) {
    int64_t at = start;
    table->zeroes = zeroes;
    PyGILState_STATE gil = PyGILState_Ensure();
    int64_t n = PyList_Size((PyObject *)list);
    n = n < table->nheaders ? n : table->nheaders;
    PyObject **items = lists_are_known() ? ((list_object *)list)->items : NULL;
    for (; at < n; at++) {
        if (items && at + AHEAD < n) {
            fetch_object(items[at + AHEAD]);
            fetch_object((void *)table->parameters[at + AHEAD].array);
        }
        PyObject *item = items ? items[at] : PyList_GetItem((PyObject *)list, at);
        if (!take(table, item, table->headers + at))
            break;
    }
    PyGILState_Release(gil);
    return at;
}
