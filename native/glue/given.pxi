# What did a caller of `send` give besides the value, and how is it called without the cost of what was not given?
#
# A def fills in every keyword argument that is missing, and counts the references of None up and down for each: a third of
# a send, since every count waits for the one before it. So `send` is a C function of the calling convention that CPython has
# for this, put into its type when the module is made. A call that is out of the ordinary (another name, no value, values by
# name) goes to the def it stands for, which raises what Python raises. With the GIL.

cdef extern from "Python.h":
    ctypedef struct PyMethodDef:
        const char *ml_name
        void *ml_meth
        int ml_flags
        const char *ml_doc
    int METH_FASTCALL
    int METH_KEYWORDS
    object PyDescr_NewMethod(PyTypeObject *owner, PyMethodDef *method)
    bint PyUnicode_CheckExact(PyObject *o)

cdef extern from *:
    Py_ssize_t _tuple_size "PyTuple_GET_SIZE"(PyObject *o)
    PyObject *_tuple_item "PyTuple_GET_ITEM"(PyObject *o, Py_ssize_t i)


cdef struct Given:
    # Borrowed from the caller; NULL: not given, or None.
    PyObject *key
    PyObject *headers
    PyObject *id
    PyObject *partition
    PyObject *timestamp

cdef Given _NOTHING
memset(&_NOTHING, 0, sizeof(Given))

# Names in a call are interned, as these are: to compare the pointers will do.
cdef tuple _GIVEN_NAMES = ("key", "headers", "id", "partition", "timestamp")


cdef inline PyObject *unless_none(object given) noexcept:
    return NULL if given is None else <PyObject *>given


cdef inline object or_none(PyObject *given):
    return None if given == NULL else <object>given


cdef inline Given all_given(object key, object headers, object id, object partition, object timestamp) noexcept:
    return Given(unless_none(key), unless_none(headers), unless_none(id), unless_none(partition), unless_none(timestamp))


cdef bint take_given(PyObject **values, PyObject *names, Given *given) noexcept:
    """Sorts keyword arguments by their names; False: there is one that is none of these."""
    cdef Py_ssize_t i, slot
    cdef PyObject *name
    cdef PyObject *value
    cdef PyObject *known = <PyObject *>_GIVEN_NAMES
    memset(given, 0, sizeof(Given))
    for i in range(_tuple_size(names)):
        name, value = _tuple_item(names, i), values[i]
        slot = 0
        while slot < 5 and name != _tuple_item(known, slot):
            slot += 1
        if slot == 5:
            return False
        (<PyObject **>given)[slot] = NULL if value == <PyObject *>None else value
    return True


cdef object call_slowly(object method, object self, PyObject **values, Py_ssize_t count, PyObject *names):
    """`method` as Python would call it."""
    cdef Py_ssize_t i
    cdef list positional = [self]
    cdef dict named = {}
    for i in range(count):
        positional.append(<object>values[i])
    if names != NULL:
        for i in range(_tuple_size(names)):
            named[<object>_tuple_item(names, i)] = <object>values[count + i]
    return method(*positional, **named)


cdef list _QUICK_TEXTS = []  # what the descriptors point at


cdef object put_quick(type owner, str name, str signature, PyMethodDef *method, void *function):
    """Puts `function` in the place of the def `name` of a type that nobody has used yet, and returns the def."""
    cdef dict members = <dict>(<PyTypeObject *>owner).tp_dict
    slow = members[name]
    cdef bytes label = name.encode(), text = f"{name}{signature}\n--\n\n{slow.__doc__}".encode()
    _QUICK_TEXTS.append((label, text))
    method.ml_name = label
    method.ml_meth = function
    method.ml_flags = METH_FASTCALL | METH_KEYWORDS
    method.ml_doc = text
    members[name] = PyDescr_NewMethod(<PyTypeObject *>owner, method)
    PyType_Modified(<PyTypeObject *>owner)
    return slow
