/*
 * A table of one row that is aimed anew at each step: at arrays that lie as those before, wherever
 * they are.
 *
 * To lay out a step takes a hundred times as long as to step a small array. A caller who passes all
 * arrays at each call has laid out a step for each way in which they lie, and a table is aimed at
 * theirs by their addresses alone, and where threads do not share a step by their shape. It holds
 * none of them.
 */
#include <string.h>

#include "describe.h"

enum {
    ALIGNMENT = 8,  /* bytes: an address is a multiple of it, or the array may need a copy */
    MOST_AXES = 64, /* of an array of NumPy */
    MOST_AIMS = FS_STATES + 2,
};

/* The words of a layout: what stands for each array besides its shape and strides. */
enum { HEAD = 4 };

/* The library of an item, or NULL. */
static const fs_library *library_of(const fs_library *libraries, int64_t n, PyObject *item) {
    for (int64_t k = 0; k < n; k++)
        if (libraries[k].type == (uintptr_t)Py_TYPE(item))
            return libraries + k;
    return NULL;
}

/* Bytes of an element, as they are in strides: DLPack's count elements. */
static int64_t unit_of(const fs_library *library, int64_t itemsize) {
    return library->read ? 1 : itemsize;
}

/* Returns the elements of an array with strides in C order, the last one `unit`; else 0. */
static int64_t plain_elements(const description *array, int64_t unit) {
    int64_t elements = 1;
    for (int axis = array->ndim - 1; axis >= 0; axis--) {
        if (array->strides[axis] != elements * unit)
            return 0;
        elements *= array->shape[axis];
    }
    return elements;
}

static int is_small(int64_t elements) { return 0 < elements && elements < FS_SHARED; }

/* Bytes of an element of a plain array, which is float32 or float64; else 0. */
static int64_t itemsize_of(const fs_library *library, const description *array) {
    int64_t bytes = ALIGNMENT;
    if (library->read)
        bytes = (int64_t)(array->dtype >> 8 & 0xff) / 8;
    else if (array->ndim)
        bytes = array->strides[array->ndim - 1];
    return bytes == sizeof(float) || bytes == sizeof(double) ? bytes : 0;
}

/* Returns 1 if an array is plain, aligned and small. */
static int may_have_any_shape(const fs_library *library, const description *array) {
    int64_t bytes = itemsize_of(library, array);
    return bytes && array->data % bytes == 0 &&
           is_small(plain_elements(array, unit_of(library, bytes)));
}

/* Puts the words of a layout at `to`, and returns how many. */
static int put_layout(const fs_library *library, const description *array, int whole, int64_t *to) {
    size_t size = (size_t)array->ndim * sizeof(int64_t);
    to[0] = (int64_t)library->type;
    to[1] = (int64_t)array->dtype;
    to[2] = array->data % ALIGNMENT;
    to[3] = whole ? array->ndim : -1 - array->ndim;
    if (!whole)
        return HEAD;
    memcpy(to + HEAD, array->shape, size);
    memcpy(to + HEAD + array->ndim, array->strides, size);
    return HEAD + 2 * array->ndim;
}

/* Puts the words of all arrays in a list at `to`, and returns how many; 0 if C cannot read one. */
static int put_layouts(const fs_library *libraries, int64_t nlibraries, PyObject *list,
                       int64_t *to) {
    const fs_library *library[MOST_AIMS];
    description found[MOST_AIMS];
    Py_ssize_t items = PyList_Size(list);
    int whole = 0, n = 0;
    if (items > MOST_AIMS)
        return 0;
    for (Py_ssize_t k = 0; k < items; k++) {
        PyObject *item = PyList_GetItem(list, k);
        library[k] = library_of(libraries, nlibraries, item);
        if (!library[k] || !describe(library[k], item, found + k) || found[k].ndim > MOST_AXES)
            return 0;
        whole |= found[k].ndim != found->ndim || !may_have_any_shape(library[k], found + k) ||
                 !equal((const intptr_t *)found->shape, found[k].shape, found->ndim);
    }
    for (Py_ssize_t k = 0; k < items; k++)
        n += put_layout(library[k], found + k, whole, to + n);
    return n;
}

int fs_layout(const fs_library *libraries, int64_t nlibraries, uintptr_t list, uintptr_t into) {
    int64_t words[MOST_AIMS * (HEAD + 2 * MOST_AXES)];
    PyGILState_STATE gil = PyGILState_Ensure();
    int n = put_layouts(libraries, nlibraries, (PyObject *)list, words);
    if (n) {
        PyObject *key = PyBytes_FromStringAndSize((char *)words, n * (Py_ssize_t)sizeof(int64_t));
        if (!key || PyList_SetItem((PyObject *)into, 0, key) != 0) {
            pass_over();
            n = 0;
        }
    }
    PyGILState_Release(gil);
    return n > 0;
}

/* Returns 1 if an array has the shape and strides that it has to have. */
static int lies_as(const fs_table *table, const fs_target *aim, const description *array) {
    if (!table->any_shape)
        return equal(aim->layout, array->shape, array->ndim) &&
               equal(aim->layout + array->ndim, array->strides, array->ndim);
    const fs_library *library = table->libraries + aim->library;
    return is_small(plain_elements(array, unit_of(library, aim->itemsize)));
}

/* Describes `item`; 0 if it is not as the aim has it. */
static int sight(const fs_table *table, const fs_target *aim, PyObject *item, description *found) {
    const fs_library *library = table->libraries + aim->library;
    return (uintptr_t)Py_TYPE(item) == library->type && describe(library, item, found) &&
           found->dtype == aim->dtype && found->ndim == aim->ndim && found->writeable &&
           (!aim->at || found->data % aim->itemsize == 0) && lies_as(table, aim, found) &&
           is_plain(library, item);
}

/* Notes a range that the step writes, among `n` others; 0 if it overlaps one of them. */
static int note_range(intptr_t *lows, intptr_t *highs, int64_t n, intptr_t low, intptr_t high) {
    int64_t at = n;
    for (; at > 0 && lows[at - 1] > low; at--) {
        lows[at] = lows[at - 1];
        highs[at] = highs[at - 1];
    }
    lows[at] = low;
    highs[at] = high;
    return (at == 0 || highs[at - 1] <= low) && (at == n || high <= lows[at + 1]);
}

/* Lets the row, and the gradient that is expected, be of this shape. */
static void take_shape(fs_table *table, const description *p) {
    fs_header *header = table->headers;
    int64_t elements = elements_of(p);
    table->rows->n = table->elements[1] = elements;
    header->bytes = elements * header->itemsize;
    if (header->library < 0)
        return;
    intptr_t stride = unit_of(table->libraries + header->library, header->itemsize);
    for (int axis = p->ndim - 1; axis >= 0; axis--) {
        header->layout[axis] = p->shape[axis];
        header->layout[p->ndim + axis] = stride;
        stride *= p->shape[axis];
    }
}

static int aim(fs_table *table, PyObject *list) {
    description found[MOST_AIMS];
    intptr_t lows[MOST_AIMS], highs[MOST_AIMS], low[MOST_AIMS];
    int64_t n = table->naims;
    if (PyList_Size(list) < n)
        return 0;
    for (int64_t k = 0; k < n; k++) {
        const fs_target *each = table->aims + k;
        if (!sight(table, each, PyList_GetItem(list, k), found + k) ||
            !equal((const intptr_t *)found->shape, found[k].shape, found->ndim))
            return 0;
        int64_t bytes = table->any_shape ? elements_of(found) * each->itemsize : each->bytes;
        low[k] = found[k].data + each->below;
        if (!note_range(lows, highs, k, low[k], low[k] + bytes))
            return 0;
    }
    for (int64_t k = 0; k < n; k++) {
        if (table->aims[k].at)
            *table->aims[k].at = (void *)low[k];
        table->lows[k] = lows[k];
        table->highs[k] = highs[k];
    }
    if (table->any_shape)
        take_shape(table, found);
    table->headers->data = 0; /* the gradient may lie where these arrays do now */
    return 1;
}

int fs_aim(fs_table *table, uintptr_t list) {
    PyGILState_STATE gil = PyGILState_Ensure();
    int aimed = aim(table, (PyObject *)list);
    PyGILState_Release(gil);
    return aimed;
}

int64_t fs_aim_and_step(fs_table *table, uintptr_t list, uintptr_t grads, int threads) {
    PyGILState_STATE gil = PyGILState_Ensure(); /* nothing may come between the looks */
    int aimed = aim(table, (PyObject *)list);
    int64_t taken = aimed ? fs_take(table, grads, 0, 0) : FS_MISSED;
    PyGILState_Release(gil);
    if (taken < table->nheaders)
        return taken;
    return fs_step(table, threads, FS_GRADIENTS, 0) == FS_REFUSED ? FS_REFUSED : FS_STEPPED;
}
