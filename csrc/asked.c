/*
 * Gradients on a device, which are asked where they are, or are remembered.
 *
 * To ask one takes 100 ns or more, for Python's objects are made and read on the way. In a loop
 * over the same arrays, or a few sets of them in turns, all but the first times go by what is
 * remembered; arrays that come but once are remembered by their addresses alone, which costs
 * nothing to forget.
 */
#include "attributes.h"
#include "gradients.h"

/* What is let go of once no gradient is looked at any more: to free an object may run code. */
typedef struct {
    PyObject *objects[2 * TOGETHER];
    int n;
} dropped;

static void drop(dropped *to, uintptr_t object) {
    if (object)
        to->objects[to->n++] = (PyObject *)object;
}

static void end_drops(dropped *from) {
    while (from->n)
        Py_DECREF(from->objects[--from->n]);
}

/* Frees a slot. Of two objects that it may hold the dict is one. */
static void empty_slot(fs_memory *memory, int slot, dropped *to) {
    if (memory->holders[slot] && memory->marks[slot])
        drop(to, memory->keys[slot]);
    drop(to, memory->holders[slot]);
    memory->keys[slot] = memory->holders[slot] = 0;
}

/* Finds the slot that an object had before, if it has one, and what is remembered of it, if the
 * object must still be the same. */
static void recall(const fs_memory *memory, PyObject *key, look *to) {
    to->slot = -1;
    for (int slot = 0; slot < FS_MEMORIES; slot++) {
        if (memory->keys[slot] != (uintptr_t)key || memory->marks[slot] != to->mark)
            continue;
        PyObject *holder = (PyObject *)memory->holders[slot];
        to->slot = slot;
        to->at = memory->data[slot];
        to->recalled =
            holder && (to->dict ? holder == to->data : PyWeakref_GetObject(holder) == key);
        return;
    }
}

/* Remembers where an array was read, for as long as its object is there, if `lasting`, or else by
 * the address alone. */
static void remember(fs_memory *memory, const look *seen, int lasting, dropped *to) {
    int slot = seen->slot;
    PyObject *holder = NULL;
    if (slot < 0) {
        slot = (int)memory->next;
        memory->next = (memory->next + 1) % FS_MEMORIES;
    }
    if (lasting && seen->dict) {
        holder = seen->data;
        Py_INCREF(holder);
        Py_INCREF(seen->dict);
    } else if (lasting && !(holder = PyWeakref_NewRef(seen->item, NULL))) {
        PyErr_Clear(); /* there can be none: it is read each time */
    }
    empty_slot(memory, slot, to);
    memory->keys[slot] = (uintptr_t)(seen->dict ? seen->dict : seen->item);
    memory->marks[slot] = seen->mark;
    memory->data[slot] = seen->at;
    memory->holders[slot] = (uintptr_t)holder;
}

void fs_remember(fs_table *table, int64_t index, uintptr_t array) {
    const fs_header *known = table->headers + index;
    if (!is_asked(table, known) || known->scratch ||
        table->libraries[known->library].way == FS_BY_ATTRIBUTE)
        return;
    PyGILState_STATE gil = PyGILState_Ensure();
    fs_memory *memory = table->memories + index;
    dropped old = {.n = 0};
    look seen = {.item = (PyObject *)array};
    recall(memory, seen.item, &seen);
    seen.at = known->data;
    remember(memory, &seen, 1, &old);
    end_drops(&old);
    PyGILState_Release(gil);
}

int fs_look(fs_table *table, int64_t index, uintptr_t array, intptr_t data) {
    if (!move(table, table->headers + index, data))
        return 0;
    fs_remember(table, index, array);
    return 1;
}

void fs_forget(fs_table *table, int64_t index) {
    PyGILState_STATE gil = PyGILState_Ensure();
    dropped old = {.n = 0};
    for (int slot = 0; slot < FS_MEMORIES; slot++)
        empty_slot(table->memories + index, slot, &old);
    end_drops(&old);
    PyGILState_Release(gil);
}

void fs_forget_all(fs_table *table) {
    for (int64_t index = 0; table->memories && index < table->nheaders; index++)
        fs_forget(table, index);
}

/* Takes an array that was asked: 1, or 0 if Python has to look. */
static int take_seen(fs_table *table, look *seen, fs_header *known, dropped *old) {
    if (!seen->recalled) {
        description found;
        if (!read_look(seen, known->itemsize, &found) || !is_alike(known, &found) ||
            (known->writeable && !found.writeable))
            return 0;
        seen->at = found.data;
    }
    if (!move(table, known, seen->at))
        return 0;
    if (!seen->recalled)
        remember(table->memories + (known - table->headers), seen, seen->slot >= 0, old);
    return 1;
}

/* Takes up to n arrays together that are of one library. Returns how many. */
static int64_t take_together(fs_table *table, PyObject **items, fs_header *known, int64_t n) {
    const fs_library *library = table->libraries + known->library;
    fs_memory *memory = table->memories + (known - table->headers);
    const int by_dict = library->way == FS_BY_ATTRIBUTE;
    look looks[TOGETHER];
    dropped old = {.n = 0};
    int64_t held = 0, taken = 0;
    for (; held < n && (uintptr_t)Py_TYPE(items[held]) == library->type; held++) {
        looks[held] = (look){.item = items[held], .slot = -1};
        Py_INCREF(looks[held].item);
        fetch(memory + held, 3);
    }
    for (int64_t k = 0; k < held && !by_dict; k++)
        recall(memory + k, looks[k].item, looks + k);
    int64_t asked = ask(library, looks, held);
    for (int64_t k = 0; k < asked && by_dict; k++)
        recall(memory + k, looks[k].dict, looks + k);
    while (taken < asked && take_seen(table, looks + taken, known + taken, &old))
        taken++;
    for (int64_t k = 0; k < held; k++)
        end_look(looks + k);
    end_drops(&old);
    return taken;
}

/* Returns 1, and where the memory is, if an array is remembered. */
static int recall_array(const fs_memory *memory, PyObject *item, intptr_t *at) {
    for (int slot = 0; slot < FS_MEMORIES; slot++)
        if (memory->keys[slot] == (uintptr_t)item && memory->holders[slot] &&
            PyWeakref_GetObject((PyObject *)memory->holders[slot]) == item) {
            *at = memory->data[slot];
            return 1;
        }
    return 0;
}

/* The same by the dict of an array, in which nothing may have changed. */
static int recall_dict(const fs_memory *memory, PyObject *dict, intptr_t *at) {
    for (int slot = 0; slot < FS_MEMORIES; slot++)
        if (memory->keys[slot] == (uintptr_t)dict && memory->holders[slot] &&
            memory->marks[slot] == mark_of(dict)) {
            *at = memory->data[slot];
            return 1;
        }
    return 0;
}

static int recall_interface(const fs_memory *memory, PyObject *item, intptr_t *at) {
    Py_INCREF(item); /* the attribute may be a function that changes the list */
    PyObject *dict = interface_of(item);
    int recalled = dict && recall_dict(memory, dict, at);
    Py_XDECREF(dict);
    Py_DECREF(item);
    return recalled;
}

/* Returns 1 if gradients of a parameter are asked for in a step that leaves what it leaves. */
static int may_ask(const fs_table *table, const fs_header *known) {
    return is_asked(table, known) && (table->leaves != FS_ZEROS || known->writeable);
}

/* Takes arrays that are remembered, as all are in a loop over the same ones. */
static int64_t take_known(fs_table *table, PyObject *list, int64_t at, int64_t end) {
    PyObject **all = items_of(list);
    for (; all && at < end && may_ask(table, table->headers + at); at++) {
        fs_header *known = table->headers + at;
        const fs_memory *memory = table->memories + at;
        const fs_library *library = table->libraries + known->library;
        if (at + FAR < end) {
            fetch(all[at + FAR], 2);
            fetch(memory + FAR, 2);
        }
        intptr_t data;
        if ((uintptr_t)Py_TYPE(all[at]) != library->type)
            break;
        if (library->way == FS_BY_ATTRIBUTE) {
            if (!recall_interface(memory, all[at], &data))
                break;
            const list_object *now = (list_object *)list; /* the attribute may have changed it */
            all = now->items;
            end = now->head.ob_size < end ? now->head.ob_size : end;
        } else if (!recall_array(memory, all[at], &data)) {
            break;
        }
        if (!move(table, known, data))
            break;
    }
    return at;
}

/* How many parameters from this one on have gradients of the same library, up to n. */
static int64_t alike(const fs_table *table, const fs_header *known, int64_t n) {
    int64_t k = 0;
    n = n < 3 * TOGETHER ? n : 3 * TOGETHER;
    while (k < n && may_ask(table, known + k) && known[k].library == known->library)
        k++;
    return k;
}

/* Fetches the heads of objects, and the attributes of those that are there by now. */
static void fetch_heads(PyObject **items, int64_t from, int64_t n) {
    for (int64_t k = from; k < n && k < from + TOGETHER; k++)
        fetch((void *const *)items[k] - 4, 2);
}

static void fetch_contents(PyObject **items, int64_t from, int64_t n, const PyTypeObject *type) {
    const int word = word_of_attributes(type);
    for (int64_t k = from; word && k < n && k < from + TOGETHER; k++)
        if (Py_TYPE(items[k]) == type)
            fetch(((void *const *)items[k])[word], 2);
}

int64_t take_asked(fs_table *table, PyObject *list, int64_t at, int64_t end) {
    at = take_known(table, list, at, end);
    for (int64_t first = at, taken = TOGETHER; taken == TOGETHER; at += taken) {
        PyObject **items = items_of(list); /* which Python may have changed since the last time */
        end = PyList_Size(list) < end ? PyList_Size(list) : end;
        fs_header *known = table->headers + at;
        int64_t n = items && at < end ? alike(table, known, end - at) : 0;
        if (!n)
            break;
        items += at;
        const PyTypeObject *type = (PyTypeObject *)table->libraries[known->library].type;
        if (at == first) {
            fetch_heads(items, 0, n);
            fetch_heads(items, TOGETHER, n);
            fetch_contents(items, 0, n, type);
        }
        fetch_heads(items, 2 * TOGETHER, n);
        fetch_contents(items, TOGETHER, n, type);
        taken = take_together(table, items, known, n < TOGETHER ? n : TOGETHER);
    }
    return at;
}
