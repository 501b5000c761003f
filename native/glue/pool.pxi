# How are the objects made that live for one message?
#
# Receipts and messages come and go by the million. Making one the usual way zeroes it, calls the interpreter twice and
# fills its fields with None, whose references are counted up and down again: a tenth of a send. So the type's deallocator
# puts the memory of an object, with its type, into a pool, and the next one begins with what stands there. Cython's
# freelist keeps the memory alone. With the GIL held. Classes derived from these are not pooled.

cdef extern from *:
    """
    #define GLUE_POOLED 256

    typedef struct glue_pool {
        PyTypeObject *type;
        PyObject *nothing; /* no arguments */
        destructor usual;
        size_t owned; /* the last fields of the type are so many references */
        size_t count;
        PyObject *free[GLUE_POOLED];
    } glue_pool;

    static inline PyObject **glue_owned(const glue_pool *pool, PyObject *o) {
        return (PyObject **)((char *)o + pool->type->tp_basicsize) - pool->owned;
    }

    static PyObject *glue_pool_make(const glue_pool *pool) {
        PyObject *made = pool->type->tp_new(pool->type, pool->nothing, NULL);
        for (size_t i = 0; made != NULL && i < pool->owned; i++)
            Py_DECREF(glue_owned(pool, made)[i]); /* None */
        return made;
    }

    /* An object whose fields say nothing: until its references are stored, it must not be let go. */
    static inline PyObject *glue_pool_take(glue_pool *pool) {
        if (pool->count == 0)
            return glue_pool_make(pool);
        PyObject *taken = pool->free[--pool->count];
        Py_SET_REFCNT(taken, 1);
        return taken;
    }

    static inline void glue_pool_give(glue_pool *pool, PyObject *o) {
    #if !defined(Py_DEBUG) && !defined(Py_TRACE_REFS) && !defined(Py_GIL_DISABLED)
        if (Py_IS_TYPE(o, pool->type) && pool->count < GLUE_POOLED) {
            PyObject **owned = glue_owned(pool, o);
            for (size_t i = 0; i < pool->owned; i++)
                Py_CLEAR(owned[i]);
            if (pool->count < GLUE_POOLED) { /* what was let go may have filled it */
                pool->free[pool->count++] = o;
                return;
            }
        }
    #endif
        pool->usual(o);
    }

    static int glue_pool_of(glue_pool *pool, PyTypeObject *type, size_t owned, destructor pooled) {
        pool->nothing = PyTuple_New(0);
        if (pool->nothing == NULL)
            return -1;
        pool->type = type;
        pool->owned = owned;
        pool->usual = type->tp_dealloc;
        type->tp_dealloc = pooled;
        return 0;
    }

    static glue_pool glue_receipts, glue_messages;
    static void glue_let_receipt_go(PyObject *o) { glue_pool_give(&glue_receipts, o); }
    static void glue_let_message_go(PyObject *o) { glue_pool_give(&glue_messages, o); }

    static inline PyObject *glue_receipt(PyObject *where) {
        PyObject *made = glue_pool_take(&glue_receipts);
        if (made == NULL)
            return NULL;
        Py_INCREF(where);
        glue_owned(&glue_receipts, made)[0] = where;
        return made;
    }

    /* Takes over the reference to `held`. */
    static inline PyObject *glue_message(PyObject *chunk, PyObject *held) {
        PyObject *made = glue_pool_take(&glue_messages);
        if (made == NULL) {
            Py_DECREF(held);
            return NULL;
        }
        Py_INCREF(chunk);
        glue_owned(&glue_messages, made)[0] = chunk;
        glue_owned(&glue_messages, made)[1] = held;
        return made;
    }
    """
    ctypedef struct glue_pool:
        pass
    ctypedef void (*destructor)(PyObject *)
    glue_pool glue_receipts, glue_messages
    void glue_let_receipt_go(PyObject *)
    void glue_let_message_go(PyObject *)
    # `owned`: so many of the type's fields, the last ones, are references. `pooled`: its deallocator from now on.
    int glue_pool_of(glue_pool *pool, PyTypeObject *type, size_t owned, destructor pooled) except -1
