# cython: language_level=3, binding=True, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
# cython: freethreading_compatible=False, auto_pickle=False, autotestdict=False
"""The compiled extension: the C core as Python sees it.

Floor 2: imports tidelog.errors and nothing else of tidelog; numpy only once a column or an array is asked for.
The GIL is held by every function here except where a `with nogil` block says otherwise. Inside the core no Python code
runs while one of its locks is held, so an exception or a signal can come at any place.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_CheckBuffer, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_CheckSignals
from cpython.list cimport PyList_GET_ITEM, PyList_GET_SIZE, PyList_New, PyList_SET_ITEM
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF, Py_REFCNT
from cpython.tuple cimport PyTuple_GET_ITEM, PyTuple_GET_SIZE
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset, strlen

from cgroups cimport *
from ctidelog cimport *

cdef extern from *:
    ctypedef struct PyTypeObject:
        PyObject *tp_dict
        Py_ssize_t tp_basicsize
    void PyType_Modified(PyTypeObject *owner)
    object PyUnicode_DecodeFSDefault(const char *text)
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *size_bytes) except NULL
    unsigned long PyThread_get_thread_ident() nogil
    Py_ssize_t PyByteArray_GET_SIZE(object data)
    char *PyByteArray_AS_STRING(object data)

from collections import namedtuple
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, timezone
from itertools import islice, repeat
from os import getpid as _getpid
from types import GenericAlias

from tidelog.errors import Closed, DecodeError, Fenced, NotSupported, SchemaMismatch, Timeout, TooLarge, from_native

include "glue/errors.pxi"
include "glue/memory.pxi"
include "glue/pool.pxi"
include "glue/primitives.pxi"
include "glue/headers.pxi"
include "glue/channelled.pxi"
include "glue/partition_config.pxi"
include "glue/offsets.pxi"
include "glue/inspection.pxi"
include "glue/store.pxi"
include "glue/partition.pxi"
include "glue/membership.pxi"
include "glue/chunk.pxi"
include "glue/message.pxi"
include "glue/batch.pxi"
include "glue/arrow.pxi"
include "glue/arrow_stream.pxi"
include "glue/receipt.pxi"
include "glue/skew.pxi"
include "glue/transacting.pxi"
include "glue/producing.pxi"
include "glue/naming.pxi"
include "glue/inlet.pxi"
include "glue/outgoing.pxi"
include "glue/beside.pxi"
include "glue/given.pxi"
include "glue/sender.pxi"
include "glue/dispatch.pxi"
include "glue/rows.pxi"
include "glue/feed.pxi"
include "glue/columns.pxi"
include "glue/delivery.pxi"
include "glue/reader.pxi"
include "glue/transaction.pxi"
include "glue/waiter.pxi"
