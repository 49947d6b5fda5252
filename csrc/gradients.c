/*
 * The gradients of a step, read straight from their array objects.
 *
 * In most loops each step brings new arrays of the same layout. To ask Python for the address,
 * dtype and shape of an array takes microseconds; to read them from the object, nanoseconds. An
 * object of NumPy's is read as it lies in memory; one of another library by the function that
 * DLPack's exchange interface has for it, which fills in a description and owns nothing.
 *
 * Python alone decides which arrays are fit: a gradient passes here if it has the layout of its
 * parameter, or of the gradient that Python checked last, and overlaps nothing that the step
 * writes. At any other fs_take stops, and Python checks it.
 */
#include "gradients.h"

/* How many of the ranges that the step writes begin below an address. Which half it is in nobody
 * can guess, so the search asks without a branch. */
static int64_t ranges_before(const fs_table *table, intptr_t high) {
    int64_t before = 0;
    for (int64_t left = table->nranges; left > 0;) {
        const int64_t half = (left + 1) / 2;
        before += table->lows[before + half - 1] < high ? half : 0;
        left -= half;
    }
    return before;
}

/* Returns 1 if bytes [low, high) overlap no range that the step writes. Most arrays lie between the
 * same two ranges as the one before, behind the first `*gap` ranges. */
static int lies_between(const fs_table *table, intptr_t low, intptr_t high, int64_t *gap) {
    int64_t before = *gap;
    if ((before > 0 && table->lows[before - 1] >= high) ||
        (before < table->nranges && table->lows[before] < high))
        *gap = before = ranges_before(table, high);
    return before == 0 || table->highs[before - 1] <= low;
}

static int lies_clear(const fs_table *table, intptr_t low, intptr_t high) {
    int64_t gap = ranges_before(table, high);
    return lies_between(table, low, high, &gap);
}

/* Returns 1 if an array may be written to and has the memory that it was found with. Whatever
 * else its object says by now, its shape and dtype are those that were checked. */
static int stands(const fs_table *table, const fs_array *known) {
    if (!known->array)
        return 1;
    if (known->library < 0)
        return 0;
    description found;
    PyObject *item = (PyObject *)known->array;
    const fs_library *library = table->libraries + known->library;
    if (!describe(library, item, &found) || !found.writeable)
        return 0;
    if (found.data != known->data && known->elements)
        return 0;
    if (known->layout && (found.dtype != known->dtype || found.ndim != known->ndim ||
                          !equal(known->layout, found.shape, found.ndim) ||
                          !equal(known->layout + found.ndim, found.strides, found.ndim)))
        return 0;
    /* Of NumPy's only an array that owns its memory can be resized. */
    if (library->way == FS_AS_NUMPYS && !(PyArray_FLAGS((PyArrayObject *)item) & NPY_ARRAY_OWNDATA))
        return 1;
    return elements_of(&found) == known->elements;
}

static int holds_what_is_known(const fs_cell *cell) {
    return cell->itemsize == sizeof(float) ? *(float *)cell->at == (float)cell->known
                                           : *(double *)cell->at == cell->known;
}

static void fetch_array(const fs_array *array) {
    fetch((void *)array->array, 2);
    for (int part = 0; part < 2; part++)
        if (array->parts[part])
            fetch((void *)array->parts[part], part == 0 ? 4 : 1);
}

static void learn(const fs_table *table, fs_array *array) {
    description found;
    if (!describe(table->libraries + array->library, (PyObject *)array->array, &found) ||
        found.ndim != array->ndim)
        return;
    array->dtype = found.dtype;
    for (int axis = 0; axis < found.ndim; axis++) {
        array->layout[axis] = found.shape[axis];
        array->layout[found.ndim + axis] = found.strides[axis];
    }
}

void fs_learn(fs_table *table) {
    PyGILState_STATE gil = PyGILState_Ensure();
    for (int64_t at = 0; at < table->nwatched; at++)
        learn(table, table->watched + at);
    PyGILState_Release(gil);
}

/* The arrays come first: cells are read where the arrays that hold them are. */
int fs_stands(const fs_table *table, int all) {
    int64_t at = 0, n = all ? table->nwatched : table->nexposed;
    PyGILState_STATE gil = PyGILState_Ensure();
    for (; at < n; at++) {
        if (at + FAR < n)
            fetch_array(table->watched + at + FAR);
        if (!stands(table, table->watched + at))
            break;
    }
    PyGILState_Release(gil);
    if (at < n)
        return 0;
    for (int64_t cell = 0; cell < table->ncells; cell++) {
        if (cell + FAR < table->ncells)
            fetch(table->cells[cell + FAR].at, 1);
        if (!holds_what_is_known(table->cells + cell))
            return 0;
    }
    return 1;
}

/* Returns 1 if an array of NumPy's can be read as contiguous numbers of that dtype, and overlaps
 * nothing that the step writes. */
static int lies_well(const fs_table *table, PyObject *item, uintptr_t dtype, int ndim,
                     int64_t itemsize, description *found) {
    if ((uintptr_t)Py_TYPE(item) != table->libraries[0].type ||
        !describe(table->libraries, item, found))
        return 0;
    if (found->dtype != dtype || found->ndim != ndim || found->data % itemsize != 0)
        return 0;
    int64_t stride = itemsize;
    for (int axis = ndim - 1; axis >= 0; stride *= found->shape[axis--])
        if (found->strides[axis] != stride)
            return 0;
    return lies_clear(table, found->data, found->data + stride);
}

/* Returns 1 if each of the slices touched has its next step's scalars in the table. */
static int have_entries(const fs_slices *slices) {
    for (int64_t j = 0; slices->entries && slices->counts && j < slices->n; j++) {
        const int64_t t = slices->counts[slices->ids ? slices->ids[j] : j] + 1;
        if (t >= slices->nentries || slices->entries[t] < 0)
            return 0;
    }
    return 1;
}

/* Takes numbers of rows and their gradients into the slices of a row. */
static int take_arrays(fs_table *table, PyObject *index, PyObject *values, fs_header *known) {
    fs_slices *slices = known->row->slices;
    description numbers, found;
    if (!lies_well(table, index, table->integers, 1, sizeof(int64_t), &numbers) ||
        !lies_well(table, values, known->dtype, known->ndim, known->itemsize, &found))
        return 0;
    const int64_t k = numbers.shape[0], room = slices->capacity + 1;
    if (k > slices->capacity || found.shape[0] != k ||
        !equal(known->layout + 1, found.shape + 1, known->ndim - 1))
        return 0;
    int64_t *order = slices->room, *ids = order + room, *starts = ids + room;
    slices->n = fs_order((const int64_t *)numbers.data, k, known->layout[0], order, ids, starts);
    if (slices->n < 0) {
        slices->n = 0;
        return 0;
    }
    slices->ids = ids, slices->starts = starts, slices->order = order;
    known->row->g = (void *)found.data;
    table->moves++;
    return have_entries(slices);
}

/* Takes a whole gradient for slices that are all of their tensor. */
static int take_whole(fs_table *table, PyObject *item, fs_header *known) {
    description found;
    if (!lies_well(table, item, known->dtype, known->ndim, known->itemsize, &found) ||
        !equal(known->layout, found.shape, known->ndim))
        return 0;
    known->row->g = (void *)found.data;
    table->moves++;
    return have_entries(known->row->slices);
}

/* Returns 1 if a gradient of a tensor that is stepped by slices can be taken here, and takes it:
 * NumPy's arrays, as most are, and of rows if the one before was of some. */
static int take_slices(fs_table *table, PyObject *item, fs_header *known) {
    const fs_slices *slices = known->row->slices;
    if (!slices->taken || table->leaves == FS_ZEROS ||
        !stands(table, table->parameters + (known - table->headers)))
        return 0;
    if (!slices->ids)
        return take_whole(table, item, known);
    if ((uintptr_t)Py_TYPE(item) != table->of_rows || !slices->room)
        return 0;
    PyObject *mask = PyObject_GetAttr(item, (PyObject *)table->mask);
    PyObject *index = PyObject_GetAttr(item, (PyObject *)table->index);
    PyObject *values = PyObject_GetAttr(item, (PyObject *)table->values);
    if (!mask || !index || !values)
        pass_over();
    int taken = mask == Py_None && index && values && take_arrays(table, index, values, known);
    Py_XDECREF(mask);
    Py_XDECREF(index);
    Py_XDECREF(values);
    return taken;
}

/* Returns 1 if the array that a description is of is laid out as its header says. */
int is_alike(const fs_header *known, const description *found) {
    return found->dtype == known->dtype && found->ndim == known->ndim &&
           equal(known->layout, found->shape, known->ndim) &&
           equal(known->layout + known->ndim, found->strides, known->ndim);
}

/* Returns 1, and the description, if `item` is as its header says, but for its address. */
static int is_as_known(const fs_table *table, PyObject *item, const fs_header *known, int zeroes,
                       description *found) {
    if (known->library < 0 || !stands(table, table->parameters + (known - table->headers)))
        return 0;
    const fs_library *library = table->libraries + known->library;
    if ((uintptr_t)Py_TYPE(item) != library->type || !describe(library, item, found))
        return 0;
    if (!is_alike(known, found))
        return 0;
    if (zeroes && !(known->writeable && found->writeable))
        return 0;
    return is_plain(library, item);
}

/* Returns 1 if a gradient that is as its header says may be read at another address. */
static int may_move(const fs_table *table, const fs_header *known, intptr_t data, int64_t *gap) {
    intptr_t low = data + known->below;
    return !known->scratch && data % known->itemsize == 0 &&
           lies_between(table, low, low + known->bytes, gap);
}

/* Lets a row read its gradient from there, if it is laid out as the one before: 1, or 0 if Python
 * has to look. */
int move(fs_table *table, fs_header *known, intptr_t data) {
    if (data == known->data || !known->bytes)
        return 1;
    if (!may_move(table, known, data, &table->gap))
        return 0;
    known->data = data;
    known->row->g = (void *)(data + known->below);
    table->moves++;
    return 1;
}

/* Returns 1 if `item` is as its header says, and puts its address into the row. */
static int take(fs_table *table, PyObject *item, fs_header *known) {
    if (!known->row)
        return item == Py_None;
    if (known->row->slices)
        return take_slices(table, item, known);
    description found;
    return is_as_known(table, item, known, table->leaves == FS_ZEROS, &found) &&
           move(table, known, found.data);
}

/* The word of an array object where NumPy has its memory, and torch what a tensor consists of. */
enum { BEHIND_THE_HEAD = 2 };

/* Returns 1 for an array of NumPy, or of the library that came next. */
static int is_readable(const fs_table *table, PyObject *item) {
    uintptr_t type = (uintptr_t)Py_TYPE(item);
    return type == table->libraries[0].type || type == table->libraries[1].type;
}

int64_t fs_take(fs_table *table, uintptr_t list, int64_t start, int zeroes) {
    int64_t at = start;
    table->leaves = zeroes ? FS_ZEROS : FS_GRADIENTS;
    PyGILState_STATE gil = PyGILState_Ensure();
    int64_t n = PyList_Size((PyObject *)list);
    n = n < table->nheaders ? n : table->nheaders;
    PyObject **items = items_of((PyObject *)list);
    for (; at < n; at++) {
        if (table->memories && is_asked(table, table->headers + at)) {
            const int64_t next = take_asked(table, (PyObject *)list, at, n);
            if (next == at)
                break;
            at = next - 1;
            items = items_of((PyObject *)list); /* Python may have changed the list */
            n = PyList_Size((PyObject *)list) < n ? PyList_Size((PyObject *)list) : n;
            continue;
        }
        if (at + FAR < n)
            fetch_array(table->parameters + at + FAR);
        if (items && at + FAR < n)
            fetch(items[at + FAR], 2);
        if (items && at + NEAR < n && is_readable(table, items[at + NEAR]))
            fetch_from(items[at + NEAR], BEHIND_THE_HEAD);
        PyObject *item = items ? items[at] : PyList_GetItem((PyObject *)list, at);
        if (!take(table, item, table->headers + at))
            break;
    }
    PyGILState_Release(gil);
    return at;
}

/* Returns 1 if `take` would take this, of the whole of its tensor, and find no new address to write
 * zeros to: those must be held against one another. */
static int fits(const fs_table *table, PyObject *item, const fs_header *known, int zeroes) {
    if (!known->row)
        return item == Py_None;
    description found;
    if (known->row->slices || !is_as_known(table, item, known, zeroes, &found))
        return 0;
    int64_t gap = 0;
    return found.data == known->data || (!zeroes && may_move(table, known, found.data, &gap));
}

int64_t fs_fits(const fs_table *table, uintptr_t list, int64_t start, int zeroes) {
    int64_t at = start;
    PyGILState_STATE gil = PyGILState_Ensure();
    int64_t n = PyList_Size((PyObject *)list);
    n = n < table->nheaders ? n : table->nheaders;
    while (at < n && fits(table, PyList_GetItem((PyObject *)list, at), table->headers + at, zeroes))
        at++;
    PyGILState_Release(gil);
    return at;
}
