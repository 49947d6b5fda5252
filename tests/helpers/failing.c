/*
 * Calls that fail in turn: whatever asks for memory, for a thread or for something else that a
 * system may refuse.
 *
 * Python's and NumPy's own memory is asked for through functions that both let be replaced. What
 * the extension itself calls stands in its table of addresses, in which the functions below take
 * the place of those that they are named after. While `attempt` makes a call, all of them count,
 * and one of them is refused.
 */
#define _GNU_SOURCE
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#define NPY_NO_DEPRECATED_API NPY_2_0_API_VERSION
#include <numpy/arrayobject.h>

#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <link.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

static _Atomic long calls;
static long refused_call;
static int counting, told_to;
static const char *refused; /* what was refused; NULL: nothing was */

/* Counts a call, and returns 1 if it is refused. */
static int is_refused(const char *name) {
    if (!counting)
        return 0;
    long call = atomic_fetch_add(&calls, 1);
    if (call == refused_call)
        refused = name;
    return call == refused_call;
}

/* Calls `action` while the call of number `at` is refused. Only that one: Python 3.11 looks for
 * memory for ever where it has none to leave a `finally` by. */
PyObject *attempt(PyObject *action, long at) {
    calls = 0;
    refused_call = at;
    refused = NULL;
    counting = 1;
    PyObject *result = PyObject_CallNoArgs(action);
    counting = 0;
    return result;
}

long calls_made(void) { return calls; }

const char *what_was_refused(void) { return refused ? refused : ""; }

/* Ends the process by a line that names the library that a fault is in: it is the extension's, or
 * that of Python or NumPy, who do not always look whether there was memory. */
static void tell(int number, siginfo_t *info, void *context) {
    (void)number, (void)info;
    const ucontext_t *at = context;
#ifdef __x86_64__
    void *fault = (void *)at->uc_mcontext.gregs[REG_RIP];
#else
    void *fault = (void *)at->uc_mcontext.pc;
#endif
    Dl_info found = {.dli_fname = ""};
    dladdr(fault, &found);
    dprintf(told_to, "%s\tcrash in %s\t%s\n", what_was_refused(), basename(found.dli_fname),
            strstr(found.dli_fname, "_engine") ? "False" : "True");
    _exit(1);
}

/* Has faults told to a file. */
void tell_faults(int file) {
    told_to = file;
    struct sigaction action = {.sa_sigaction = tell, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGBUS, &action, NULL);
    sigaction(SIGABRT, &action, NULL);
}

/* ---- what the extension calls ---- */

static int no_memory(const char *name) {
    if (!is_refused(name))
        return 0;
    PyErr_NoMemory();
    return 1;
}

static PyObject *own_PyBytes_FromStringAndSize(const char *bytes, Py_ssize_t n) {
    return no_memory("PyBytes_FromStringAndSize") ? NULL : PyBytes_FromStringAndSize(bytes, n);
}

static PyObject *own__Py_BuildValue_SizeT(const char *format, ...) {
    if (no_memory("Py_BuildValue"))
        return NULL;
    va_list values;
    va_start(values, format);
    PyObject *made = Py_VaBuildValue(format, values);
    va_end(values);
    return made;
}

static PyObject *own_PyObject_GetAttr(PyObject *object, PyObject *name) {
    return no_memory("PyObject_GetAttr") ? NULL : PyObject_GetAttr(object, name);
}

static PyObject *own_PyObject_CallFunctionObjArgs(PyObject *function, PyObject *item, void *end) {
    (void)end;
    return no_memory("PyObject_CallFunctionObjArgs") ? NULL : PyObject_CallOneArg(function, item);
}

static int own_PyList_SetItem(PyObject *list, Py_ssize_t at, PyObject *item) {
    if (!no_memory("PyList_SetItem"))
        return PyList_SetItem(list, at, item);
    Py_XDECREF(item);
    return -1;
}

/* Python has these numbers from its start on, and takes no memory for them. */
enum { LEAST_NUMBER = -5, LARGEST_NUMBER = 256 };

static PyObject *own_PyLong_FromLong(long value) {
    const int is_there = LEAST_NUMBER <= value && value <= LARGEST_NUMBER;
    return !is_there && no_memory("PyLong_FromLong") ? NULL : PyLong_FromLong(value);
}

static PyObject *own_PyFloat_FromDouble(double value) {
    return no_memory("PyFloat_FromDouble") ? NULL : PyFloat_FromDouble(value);
}

static int own_pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
                              void *(*run)(void *), void *argument) {
    return is_refused("pthread_create") ? EAGAIN
                                        : pthread_create(thread, attributes, run, argument);
}

static int own_pthread_getcpuclockid(pthread_t thread, clockid_t *clock) {
    return is_refused("pthread_getcpuclockid") ? ENOENT : pthread_getcpuclockid(thread, clock);
}

static void *own_dlopen(const char *name, int flags) {
    return is_refused("dlopen") ? NULL : dlopen(name, flags);
}

static void *own_dlsym(void *library, const char *name) {
    return is_refused("dlsym") ? NULL : dlsym(library, name);
}

static int own_stat(const char *path, struct stat *to) {
    return is_refused("stat") ? -1 : stat(path, to);
}

static int own_clock_gettime(clockid_t clock, struct timespec *to) {
    return is_refused("clock_gettime") ? -1 : clock_gettime(clock, to);
}

static long own_syscall(long number, long a, long b, long c, long d, long e, long f) {
    return is_refused("syscall") ? -1 : syscall(number, a, b, c, d, e, f);
}

#define OWN(name)                                                                                  \
    { #name, (void *)own_##name }

static const struct {
    const char *name;
    void *function;
} owns[] = {
    OWN(PyBytes_FromStringAndSize),
    OWN(_Py_BuildValue_SizeT),
    OWN(PyObject_GetAttr),
    OWN(PyObject_CallFunctionObjArgs),
    OWN(PyList_SetItem),
    OWN(PyLong_FromLong),
    OWN(PyFloat_FromDouble),
    OWN(pthread_create),
    OWN(pthread_getcpuclockid),
    OWN(dlopen),
    OWN(dlsym),
    OWN(stat),
    OWN(clock_gettime),
    OWN(syscall),
};

static void put(void **slot, const char *name) {
    for (size_t at = 0; at < sizeof owns / sizeof *owns; at++)
        if (strcmp(owns[at].name, name) == 0) {
            const uintptr_t page = (uintptr_t)getpagesize(), begin = (uintptr_t)slot & -page;
            mprotect((void *)begin, page, PROT_READ | PROT_WRITE);
            *slot = owns[at].function;
        }
}

/* Goes over the relocations of a library, of which each names a function and where its address is
 * kept. */
static int put_all(struct dl_phdr_info *library, size_t size, void *name) {
    (void)size;
    if (!strstr(library->dlpi_name, name))
        return 0;
    const ElfW(Dyn) *entry = NULL;
    for (int k = 0; k < library->dlpi_phnum; k++)
        if (library->dlpi_phdr[k].p_type == PT_DYNAMIC)
            entry = (const void *)(library->dlpi_addr + library->dlpi_phdr[k].p_vaddr);
    const ElfW(Rela) * tables[2] = {NULL, NULL};
    size_t sizes[2] = {0, 0};
    const ElfW(Sym) *symbols = NULL;
    const char *strings = NULL;
    for (; entry && entry->d_tag != DT_NULL; entry++) {
        const void *at = (const void *)entry->d_un.d_ptr;
        switch (entry->d_tag) {
        case DT_JMPREL:
            tables[0] = at;
            break;
        case DT_PLTRELSZ:
            sizes[0] = entry->d_un.d_val;
            break;
        case DT_RELA:
            tables[1] = at;
            break;
        case DT_RELASZ:
            sizes[1] = entry->d_un.d_val;
            break;
        case DT_SYMTAB:
            symbols = at;
            break;
        case DT_STRTAB:
            strings = at;
            break;
        }
    }
    for (int k = 0; k < 2; k++)
        for (const ElfW(Rela) *each = tables[k]; each < tables[k] + sizes[k] / sizeof *each; each++)
            if (ELF64_R_SYM(each->r_info))
                put((void **)(library->dlpi_addr + each->r_offset),
                    strings + symbols[ELF64_R_SYM(each->r_info)].st_name);
    return 1;
}

/* ---- Python's and NumPy's memory ---- */

static PyMemAllocatorEx before[3];

static void *own_malloc(void *domain, size_t size) {
    const PyMemAllocatorEx *of = domain;
    return is_refused("malloc of Python") ? NULL : of->malloc(of->ctx, size);
}

static void *own_calloc(void *domain, size_t n, size_t size) {
    const PyMemAllocatorEx *of = domain;
    return is_refused("calloc of Python") ? NULL : of->calloc(of->ctx, n, size);
}

static void *own_realloc(void *domain, void *at, size_t size) {
    const PyMemAllocatorEx *of = domain;
    return is_refused("realloc of Python") ? NULL : of->realloc(of->ctx, at, size);
}

static void own_free(void *domain, void *at) {
    const PyMemAllocatorEx *of = domain;
    of->free(of->ctx, at);
}

static void *numpys_malloc(void *context, size_t size) {
    (void)context;
    return is_refused("malloc of NumPy") ? NULL : malloc(size);
}

static void *numpys_calloc(void *context, size_t n, size_t size) {
    (void)context;
    return is_refused("calloc of NumPy") ? NULL : calloc(n, size);
}

static void *numpys_realloc(void *context, void *at, size_t size) {
    (void)context;
    return is_refused("realloc of NumPy") ? NULL : realloc(at, size);
}

static void numpys_free(void *context, void *at, size_t size) {
    (void)context, (void)size;
    free(at);
}

static PyDataMem_Handler handler = {
    "failing",
    1,
    {NULL, numpys_malloc, numpys_calloc, numpys_realloc, numpys_free},
};

/* Puts all of them in their places; returns 1 if the library was found. */
int begin(const char *library) {
    if (_import_array() < 0)
        return 0;
    for (int domain = 0; domain < 3; domain++) {
        PyMem_GetAllocator((PyMemAllocatorDomain)domain, before + domain);
        PyMemAllocatorEx own = {before + domain, own_malloc, own_calloc, own_realloc, own_free};
        PyMem_SetAllocator((PyMemAllocatorDomain)domain, &own);
    }
    PyObject *capsule = PyCapsule_New(&handler, "mem_handler", NULL);
    Py_XDECREF(PyDataMem_SetHandler(capsule));
    return dl_iterate_phdr(put_all, (void *)library);
}
