/* Arrays as their objects describe them: NumPy's, and those of libraries with DLPack's exchange. */
#pragma once
#include "objects.h"

#define NPY_NO_DEPRECATED_API NPY_2_0_API_VERSION
#define NPY_TARGET_VERSION NPY_2_0_API_VERSION
#include <numpy/ndarraytypes.h>

#include "api.h"

/* A description of an array in memory, as DLPack 1.x has it, whose structs never change. */
typedef struct {
    void *data;
    int32_t device, ordinal;
    int32_t ndim;
    uint8_t code, bits;
    uint16_t lanes;
    const int64_t *shape;
    const int64_t *strides; /* in elements */
    uint64_t offset;        /* bytes from `data` to the first element */
} dltensor;

typedef int (*dlpack_reader)(void *array, dltensor *to);

enum { INTERFACE_AXES = 16 };

_Static_assert(sizeof(npy_intp) == sizeof(int64_t),
               "shapes are read as numbers of 64 bits, so this needs a system of 64 bits");

/* An array as its object describes it. */
typedef struct {
    intptr_t data;
    uintptr_t dtype; /* NumPy's: address of the dtype object; DLPack's: code, bits, lanes */
    int ndim;
    int writeable;
    const int64_t *shape, *strides;
    int64_t room[2 * INTERFACE_AXES]; /* for both, where no object has them as such numbers */
} description;

static inline int64_t elements_of(const description *array) {
    int64_t elements = 1;
    for (int axis = 0; axis < array->ndim; axis++)
        elements *= array->shape[axis];
    return elements;
}

/* Returns 1, and the description, if the library has one of the array. */
static inline int describe(const fs_library *library, PyObject *item, description *to) {
    if (library->way == FS_AS_NUMPYS) {
        PyArrayObject *array = (PyArrayObject *)item;
        to->data = (intptr_t)PyArray_DATA(array);
        to->dtype = (uintptr_t)PyArray_DESCR(array);
        to->ndim = PyArray_NDIM(array);
        to->writeable = PyArray_FLAGS(array) & NPY_ARRAY_WRITEABLE;
        to->shape = (const int64_t *)PyArray_DIMS(array);
        to->strides = (const int64_t *)PyArray_STRIDES(array);
        return 1;
    }
    if (library->way != FS_BY_DLPACK)
        return 0;
    dltensor seen;
    if (((dlpack_reader)library->read)(item, &seen) != 0) {
        pass_over();
        return 0;
    }
    to->data = (intptr_t)seen.data + (intptr_t)seen.offset;
    to->dtype = (uintptr_t)seen.code | (uintptr_t)seen.bits << 8 | (uintptr_t)seen.lanes << 16;
    to->ndim = seen.ndim;
    to->writeable = 1;
    to->shape = seen.shape;
    to->strides = seen.strides;
    return seen.device == library->device &&
           (library->ordinal < 0 || seen.ordinal == library->ordinal) &&
           (seen.strides || !seen.ndim) &&
           (seen.data || !elements_of(to)); /* zeros of torch's autograd are nowhere */
}

/* Returns 1 if the memory of an array holds its values. */
static inline int is_plain(const fs_library *library, PyObject *item) {
    if (!library->deferred)
        return 1;
    PyObject *answer = PyObject_CallFunctionObjArgs((PyObject *)library->deferred, item, NULL);
    if (!answer)
        pass_over();
    Py_XDECREF(answer);
    return answer == Py_False;
}

static inline int equal(const intptr_t *known, const int64_t *found, int n) {
    for (int i = 0; i < n; i++)
        if (known[i] != found[i])
            return 0;
    return 1;
}
