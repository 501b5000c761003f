# How does what a check finds reach Python?
#
# The native walks know C callbacks; these hand findings and progress to Python functions. The first exception of one of
# them is kept and silences the rest: a walk cannot be left from inside.

cdef enum:
    PROGRESS_BYTES = 1 << 20


cdef class _Inspection:
    cdef object finding, progress, error


cdef struct _Progress:
    void *inspection                   # the _Inspection, kept alive by check()
    uint64_t size_bytes, batches, messages  # not reported yet


cdef void _report_finding(void *context, const char *file, int64_t position, const char *what, int64_t first_offset,
                          int64_t next_offset) noexcept with gil:
    cdef _Inspection self = <_Inspection>(<_Progress *>context).inspection
    if self.error is not None:
        return
    try:
        self.finding(PyUnicode_DecodeFSDefault(file), position, (<bytes>what).decode("utf-8", "replace"),
                     first_offset, next_offset)
    except BaseException as error:
        self.error = error


cdef void _note_progress(void *context, uint64_t size_bytes, uint64_t batches, uint64_t messages) noexcept nogil:
    """Adds up, so that the GIL is not taken for every batch."""
    cdef _Progress *seen = <_Progress *>context
    seen.size_bytes += size_bytes
    seen.batches += batches
    seen.messages += messages
    if seen.size_bytes >= PROGRESS_BYTES:
        _report_progress(seen)


cdef void _report_progress(_Progress *seen) noexcept with gil:
    cdef _Inspection self = <_Inspection>seen.inspection
    cdef uint64_t size_bytes = seen.size_bytes, batches = seen.batches, messages = seen.messages
    seen.size_bytes = seen.batches = seen.messages = 0
    if self.error is not None:
        return
    try:
        PyErr_CheckSignals()
        if self.progress is not None and batches:
            self.progress(size_bytes, batches, messages)
    except BaseException as error:
        self.error = error
