/*
 * Lists and dicts of Python, read without Python code: the gradients of thousands of parameters,
 * and whether the parameters and their state are still the objects that they were.
 */
#include "objects.h"

#include "api.h"

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

PyObject **items_of(PyObject *list) {
    return lists_are_known() ? ((list_object *)list)->items : NULL;
}

void pass_over(void) {
    int interrupted = PyErr_ExceptionMatches(PyExc_KeyboardInterrupt);
    PyErr_Clear();
    if (interrupted)
        PyErr_SetInterrupt();
}

static int64_t gather(PyObject *list, PyObject *name, PyObject *into) {
    int64_t at = 0;
    PyObject **items = items_of(list);
    for (; at < PyList_Size(list) && at < PyList_Size(into); at++) {
        if (items && at + FAR < PyList_Size(list))
            fetch(items[at + FAR], 2);
        PyObject *item = PyList_GetItem(list, at);
        if (item == Py_None)
            continue;
        Py_INCREF(item); /* the attribute may be a function that changes the list */
        PyObject *value = PyObject_GetAttr(item, name);
        Py_DECREF(item);
        if (!value || PyList_SetItem(into, at, value) < 0) {
            pass_over();
            break;
        }
    }
    return at;
}

int64_t fs_gather(uintptr_t list, uintptr_t name, uintptr_t into) {
    PyGILState_STATE gil = PyGILState_Ensure();
    int64_t gathered = gather((PyObject *)list, (PyObject *)name, (PyObject *)into);
    PyGILState_Release(gil);
    return gathered;
}

void fs_empty(uintptr_t list) {
    PyGILState_STATE gil = PyGILState_Ensure();
    for (int64_t at = 0; at < PyList_Size((PyObject *)list); at++) {
        Py_INCREF(Py_None);
        PyList_SetItem((PyObject *)list, at, Py_None);
    }
    PyGILState_Release(gil);
}

int fs_counts(uintptr_t list, const int64_t *counts) {
    PyGILState_STATE gil = PyGILState_Ensure();
    int64_t at = 0, n = PyList_Size((PyObject *)list);
    while (at < n && Py_REFCNT(PyList_GetItem((PyObject *)list, at)) == counts[at])
        at++;
    PyGILState_Release(gil);
    return at == n;
}

static int same(PyObject *list, PyObject *other) {
    int64_t n = PyList_Size(list);
    if (n != PyList_Size(other))
        return 0;
    for (int64_t at = 0; at < n; at++)
        if (PyList_GetItem(list, at) != PyList_GetItem(other, at))
            return 0;
    return 1;
}

int fs_same(uintptr_t list, uintptr_t other) {
    PyGILState_STATE gil = PyGILState_Ensure();
    int is_same = same((PyObject *)list, (PyObject *)other);
    PyGILState_Release(gil);
    return is_same;
}

/* Returns 1 if the values of a dict are the objects of `list` from `at` on, and moves `at` on. */
static int has(PyObject *dict, PyObject *list, int64_t *at) {
    PyObject *value;
    for (Py_ssize_t next = 0; PyDict_Next(dict, &next, NULL, &value); ++*at)
        if (*at >= PyList_Size(list) || value != PyList_GetItem(list, *at))
            return 0;
    return 1;
}

static int holds(PyObject *dict, PyObject *inner, PyObject *list) {
    int64_t at = 0, outer = 0, n = PyList_Size(inner);
    PyObject **items = items_of(inner), *value;
    for (Py_ssize_t next = 0; PyDict_Next(dict, &next, NULL, &value); outer++) {
        if (items && outer + FAR < n)
            fetch(items[outer + FAR], 2);
        if (items && outer + NEAR < n && PyDict_Check(items[outer + NEAR]))
            fetch_from(items[outer + NEAR], KEYS_OF_A_DICT);
        if (outer >= n || value != PyList_GetItem(inner, outer))
            return 0;
        if (PyDict_Check(value) && !has(value, list, &at))
            return 0;
    }
    return outer == n && at == PyList_Size(list);
}

int fs_holds(uintptr_t dict, uintptr_t inner, uintptr_t list) {
    PyGILState_STATE gil = PyGILState_Ensure();
    int is_so = holds((PyObject *)dict, (PyObject *)inner, (PyObject *)list);
    PyGILState_Release(gil);
    return is_so;
}
