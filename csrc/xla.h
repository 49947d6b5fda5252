/*
 * The part of XLA's foreign function interface that jax.c needs, in our own words. The interface
 * is stable: a struct grows at its end alone, and `size` says how much of it the caller has.
 *
 * tests/jax/test_layout.py holds each struct against the header that comes in jaxlib.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>

enum { XLA_MAJOR = 0, XLA_OLDEST = 1, XLA_MINOR = 3 }; /* the versions these were held against */

enum { XLA_S32 = 4, XLA_S64 = 5, XLA_U8 = 6, XLA_F32 = 11, XLA_F64 = 12 }; /* types of elements */
enum { XLA_EXECUTE = 3 };                                                  /* the stage of a step */
enum { XLA_METADATA = 1 };                                                 /* an extension's type */
enum { XLA_STRING = 4 };                                                   /* an attribute's type */
enum { XLA_INVALID_ARGUMENT = 3, XLA_FAILED_PRECONDITION = 9, XLA_INTERNAL = 13 }; /* of errors */

typedef struct xla_error xla_error;

typedef struct xla_extension {
    size_t size;
    int type;
    struct xla_extension *next;
} xla_extension;

typedef struct {
    size_t size;
    xla_extension *extensions;
    int major, minor;
} xla_version;

typedef struct {
    size_t size;
    xla_extension *extensions;
    const char *message;
    int code;
} xla_error_args;

/* What the caller offers: its version, and functions of which one is used. */
typedef struct {
    size_t size;
    xla_extension *extensions;
    xla_version version;
    const void *internal;
    xla_error *(*create_error)(xla_error_args *);
} xla_api;

typedef struct {
    size_t size;
    xla_extension *extensions;
    int dtype;
    void *data;
    int64_t rank;
    int64_t *dims;
} xla_buffer;

/* The arguments of a call, or its results: buffers, all of them. */
typedef struct {
    size_t size;
    xla_extension *extensions;
    int64_t n;
    int *types;
    xla_buffer **buffers;
} xla_buffers;

typedef struct {
    const char *text;
    size_t length;
} xla_string;

typedef struct {
    size_t size;
    xla_extension *extensions;
    int64_t n;
    int *types;
    xla_string **names;
    void **values; /* each of its type: an xla_string of XLA_STRING */
} xla_attributes;

typedef struct {
    size_t size;
    xla_extension *extensions;
    const xla_api *api;
    void *context;
    int stage;
    xla_buffers args, results;
    xla_attributes attributes;
} xla_call;

/* What a handler tells of itself. */
typedef struct {
    size_t size;
    xla_version version;
    uint32_t traits;
} xla_metadata;

/* The extension of a call that asks for it and for nothing else. */
typedef struct {
    xla_extension base;
    xla_metadata *metadata;
} xla_metadata_extension;
