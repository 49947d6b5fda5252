/*
 * Arrays on a device, which tell where they are by attributes alone.
 *
 * Those of a step were made one after the other, and are looked at for the first time: to wait for
 * the memory of one object after the other would take longer than to read it. So several are
 * looked at together, each a little further at a time, and what comes next is fetched meanwhile.
 */
#include "attributes.h"

static struct {
    PyObject *interface, *mask, *data, *typestr, *shape, *strides, *version, *stream, *descr;
    PyObject *gpu_data, *pointer, *value; /* Numba's */
    PyObject *contiguous, *ptr, *ordinal; /* CuPy's */
    PyObject *dtype;
} names;

static int have_names(void) {
    static const char *const all[] = {"__cuda_array_interface__",
                                      "mask",
                                      "data",
                                      "typestr",
                                      "shape",
                                      "strides",
                                      "version",
                                      "stream",
                                      "descr",
                                      "gpu_data",
                                      "device_ctypes_pointer",
                                      "value",
                                      "_c_contiguous",
                                      "ptr",
                                      "device_id",
                                      "dtype"};
    PyObject **to = &names.interface;
    enum { N = sizeof all / sizeof *all };
    _Static_assert(sizeof names == N * sizeof *to, "each name has its place");
    for (int k = 0; !names.dtype && k < N; k++)
        if (!to[k])
            to[k] = PyUnicode_InternFromString(all[k]);
    for (int k = 0; k < N; k++)
        if (!to[k]) {
            pass_over();
            return 0;
        }
    return 1;
}

/* The attribute of an array, as a new reference; or NULL. */
static PyObject *attribute(PyObject *item, PyObject *name) {
    PyObject *found = PyObject_GetAttr(item, name);
    if (!found)
        pass_over();
    return found;
}

static int is_a(PyObject *object, const PyTypeObject *type) {
    return object && Py_TYPE(object) == type;
}

/* The version of Python as 0x30b, say; 0 if it is unknown. */
static long version(void) {
    static long known = -1;
    if (known < 0) {
        PyObject *number = PySys_GetObject("hexversion");
        known = number ? PyLong_AsLong(number) >> 16 : 0;
    }
    return known;
}

/* Python 3.11 and 3.12 have the attributes of an object of a class at the address in a word before
 * the object, if a flag of its type says so; others have them in the object, or in a dict. */
int word_of_attributes(const PyTypeObject *type) {
    enum { ARE_BEFORE = 1 << 4 };
    const int word = version() == 0x30b ? -4 : version() == 0x30c ? -3 : 0;
    return word && PyType_GetFlags((PyTypeObject *)type) & ARE_BEFORE ? word : 0;
}

/* Up to Python 3.13 a word of each dict is a number that is another one after each change, and that
 * no other dict has; see PEP 509. Elsewhere the addresses of all values make one. */
uintptr_t mark_of(PyObject *dict) {
    enum { TAG_OF_A_DICT = 3 };
    if (version() && version() <= 0x30d)
        return ((const uintptr_t *)dict)[TAG_OF_A_DICT] << 1 | 1;
    PyObject *key, *value;
    uintptr_t mark = 0;
    for (Py_ssize_t next = 0; PyDict_Next(dict, &next, &key, &value);)
        mark = 31 * mark + (uintptr_t)value / 8;
    return mark | 1;
}

static void fetch_value(const PyObject *object) {
    if (object)
        fetch(object, 1);
}

/* ---- `__cuda_array_interface__` ---- */

/* Finds the values that count in a dict with keys that are others than usual. */
static int look_up(look *to) {
    PyObject *mask = PyDict_GetItem(to->dict, names.mask);
    to->data = PyDict_GetItem(to->dict, names.data);
    to->dtype = PyDict_GetItem(to->dict, names.typestr);
    to->shape = PyDict_GetItem(to->dict, names.shape);
    to->strides = PyDict_GetItem(to->dict, names.strides);
    return !mask || mask == Py_None;
}

/* Finds the values that count in a dict whose keys are names of programs, as most are: then each is
 * the one object of its name. */
static int find_values(look *to) {
    PyObject *key, *value, *mask = NULL;
    int others = 0;
    for (Py_ssize_t next = 0; PyDict_Next(to->dict, &next, &key, &value);) {
        if (key == names.data)
            to->data = value;
        else if (key == names.shape)
            to->shape = value;
        else if (key == names.typestr)
            to->dtype = value;
        else if (key == names.strides)
            to->strides = value;
        else if (key == names.mask)
            mask = value;
        else if (key != names.version && key != names.stream && key != names.descr)
            others = 1;
    }
    return others ? look_up(to) : !mask || mask == Py_None;
}

PyObject *interface_of(PyObject *item) {
    PyObject *dict = have_names() ? attribute(item, names.interface) : NULL;
    if (is_a(dict, &PyDict_Type))
        return dict;
    Py_XDECREF(dict);
    return NULL;
}

/* What a tuple of Python's begins with, borrowed; NULL if it is none. */
static PyObject *first_of(PyObject *tuple) {
    return is_a(tuple, &PyTuple_Type) && PyTuple_Size(tuple) ? PyTuple_GetItem(tuple, 0) : NULL;
}

static int64_t ask_dicts(look *looks, int64_t n) {
    int64_t k = 0;
    for (; k < n; k++) {
        looks[k].dict = attribute(looks[k].item, names.interface);
        if (!is_a(looks[k].dict, &PyDict_Type))
            break;
        fetch((const char *)looks[k].dict + sizeof(PyObject), 1);
    }
    n = k;
    for (k = 0; k < n; k++)
        fetch_from(looks[k].dict, KEYS_OF_A_DICT);
    for (k = 0; k < n && find_values(looks + k); k++) {
        looks[k].mark = mark_of(looks[k].dict);
        fetch_value(looks[k].data);
        fetch_value(looks[k].dtype);
        fetch_value(looks[k].shape);
    }
    n = k;
    for (k = 0; k < n; k++) {
        fetch_value(first_of(looks[k].data));
        fetch_value(first_of(looks[k].shape));
    }
    return n;
}

/* ---- Numba's and CuPy's ---- */

/* Puts an attribute of what is there in its place. */
static int follow(PyObject **object, PyObject *name) {
    PyObject *found = attribute(*object, name);
    Py_DECREF(*object);
    *object = found;
    return found != NULL;
}

static int64_t ask_numbas(look *looks, int64_t n) {
    int64_t k = 0;
    int word;
    for (; k < n; k++) {
        look *to = looks + k;
        if (to->recalled)
            continue;
        to->data = attribute(to->item, names.gpu_data);
        to->shape = attribute(to->item, names.shape);
        to->strides = attribute(to->item, names.strides);
        to->dtype = attribute(to->item, names.dtype);
        if (!to->data || !to->shape || !to->strides || !to->dtype)
            break;
        fetch((const void *const *)to->data - 4, 2);
        fetch_value(to->shape);
        fetch_value(to->strides);
    }
    n = k;
    for (k = 0; k < n; k++)
        if (looks[k].data && (word = word_of_attributes(Py_TYPE(looks[k].data))) != 0)
            fetch(((void *const *)looks[k].data)[word], 2);
    for (k = 0; k < n && (looks[k].recalled || follow(&looks[k].data, names.pointer)); k++)
        if (looks[k].data)
            fetch(looks[k].data, 2);
    n = k;
    for (k = 0; k < n && (looks[k].recalled || follow(&looks[k].data, names.value)); k++)
        ;
    return k;
}

/* Returns 1 if the memory of an array of CuPy is on the device of that number. */
static int is_on(PyObject *data, int64_t ordinal) {
    PyObject *found = attribute(data, names.ordinal);
    int is_there = is_a(found, &PyLong_Type) && PyLong_AsSsize_t(found) == ordinal;
    Py_XDECREF(found);
    return is_there;
}

static int64_t ask_cupys(const fs_library *library, look *looks, int64_t n) {
    int64_t k = 0;
    for (; k < n; k++) {
        look *to = looks + k;
        if (to->recalled)
            continue;
        to->data = attribute(to->item, names.data);
        if (!to->data)
            break;
        fetch_value(to->data);
    }
    n = k;
    for (k = 0; k < n; k++) {
        look *to = looks + k;
        if (to->recalled)
            continue;
        PyObject *contiguous = attribute(to->item, names.contiguous);
        Py_XDECREF(contiguous); /* True and False are there for ever */
        if (contiguous != Py_True && !(to->strides = attribute(to->item, names.strides)))
            break;
        to->shape = attribute(to->item, names.shape);
        to->dtype = attribute(to->item, names.dtype);
        if (library->read && !is_on(to->data, library->ordinal))
            break;
        if (!to->shape || !to->dtype || !follow(&to->data, names.ptr))
            break;
    }
    return k;
}

int64_t ask(const fs_library *library, look *looks, int64_t n) {
    if (!have_names())
        return 0;
    switch (library->way) {
    case FS_BY_ATTRIBUTE:
        return ask_dicts(looks, n);
    case FS_BY_NUMBAS:
        return ask_numbas(looks, n);
    case FS_BY_CUPYS:
        return ask_cupys(library, looks, n);
    default: /* they are remembered, or not known */
        for (int64_t k = 0; k < n; k++)
            if (!looks[k].recalled)
                return k;
        return n;
    }
}

void end_look(look *seen) {
    if (seen->dict) {
        Py_DECREF(seen->dict);
    } else {
        Py_XDECREF(seen->data);
        Py_XDECREF(seen->dtype);
        Py_XDECREF(seen->shape);
        Py_XDECREF(seen->strides);
    }
    Py_DECREF(seen->item);
}

/* ---- what attributes say ---- */

/* Reads a tuple of numbers: how many there are, or -1 if it is none of so few. No number is -1. */
static int read_tuple(PyObject *tuple, int64_t *to) {
    if (!is_a(tuple, &PyTuple_Type) || PyTuple_Size(tuple) > INTERFACE_AXES)
        return -1;
    int n = (int)PyTuple_Size(tuple);
    for (int k = 0; k < n; k++) {
        PyObject *number = PyTuple_GetItem(tuple, k);
        to[k] = is_a(number, &PyLong_Type) ? PyLong_AsSsize_t(number) : -1;
        if (to[k] == -1) {
            PyErr_Clear();
            return -1;
        }
    }
    return n;
}

static int read_address(PyObject *number, description *to) {
    if (!is_a(number, &PyLong_Type))
        return 0;
    to->data = PyLong_AsSsize_t(number);
    if (to->data == -1)
        PyErr_Clear();
    return to->data != -1;
}

static int read_layout(const look *seen, int64_t itemsize, description *to) {
    int64_t *steps = to->room + INTERFACE_AXES, stride = itemsize;
    to->ndim = read_tuple(seen->shape, to->room);
    to->shape = to->room, to->strides = steps;
    if (to->ndim < 0)
        return 0;
    if (seen->strides && seen->strides != Py_None)
        return read_tuple(seen->strides, steps) == to->ndim;
    for (int axis = to->ndim - 1; axis >= 0; stride *= to->shape[axis--])
        steps[axis] = stride;
    return 1;
}

/* The bytes of an IEEE float, by the text of its type; 0 of any other, at which Python looks. */
static int64_t itemsize_of(PyObject *typestr) {
    Py_ssize_t length;
    const char *text =
        is_a(typestr, &PyUnicode_Type) ? PyUnicode_AsUTF8AndSize(typestr, &length) : NULL;
    if (!text)
        PyErr_Clear();
    return text && length == 3 && text[0] == '<' && text[1] == 'f' ? text[2] - '0' : 0;
}

static int read_dict(const look *seen, description *to) {
    if (!is_a(seen->data, &PyTuple_Type) || PyTuple_Size(seen->data) != 2)
        return 0;
    PyObject *readonly = PyTuple_GetItem(seen->data, 1);
    if (readonly != Py_False && readonly != Py_True)
        return 0;
    to->writeable = readonly == Py_False;
    const int64_t itemsize = itemsize_of(seen->dtype);
    to->dtype = (uintptr_t)itemsize;
    return itemsize && read_address(PyTuple_GetItem(seen->data, 0), to) &&
           read_layout(seen, itemsize, to);
}

/* The dtype is NumPy's, of which there is one object, and the itemsize is that of the parameter. */
static int read_attributes(const look *seen, int64_t itemsize, description *to) {
    to->writeable = 1;
    to->dtype = (uintptr_t)seen->dtype;
    return read_address(seen->data, to) && read_layout(seen, itemsize, to);
}

int read_look(const look *seen, int64_t itemsize, description *to) {
    int read = seen->dict ? read_dict(seen, to) : read_attributes(seen, itemsize, to);
    return read && (to->data || !elements_of(to));
}
