/* Python objects, as far as C reads them by itself. */
#pragma once
#define Py_LIMITED_API 0x030a0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>

/* The items of a list, in memory, or NULL where this Python lays lists out in another way. The
 * limited API hides them behind a call for each, which for thousands of gradients takes as long as
 * to look at them. */
PyObject **items_of(PyObject *list);
