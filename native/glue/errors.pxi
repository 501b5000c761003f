# Which exception does a status of the core become?
#
# The one place where a tl_error turns into a Python exception. Called with the GIL held; `err` belongs to the caller
# and is only filled after a failing call, so nobody clears it beforehand.

cdef int fail(int code, const tl_error *err) except -1:
    """Raises what `code`, reported by the core together with `err`, means."""
    what = (<bytes>err.what).decode("utf-8", "replace") if err.code == code and err.what != NULL else _name_of(code)
    if err.code != code:
        raise from_native(code, what, "", -1, 0, "")
    raise from_native(code, what, PyUnicode_DecodeFSDefault(err.path), err.position, err.sys_errno,
                      (<bytes><const char *>err.detail).decode("utf-8", "replace"))


cdef int fail_plain(int code, str what, str detail="") except -1:
    """The same for calls that report a status alone."""
    raise from_native(code, what, "", -1, 0, detail)


cdef int closed(str what, str next="") except -1:
    """`what` was closed; `next`: what to do, unless the log is to be opened again."""
    raise from_native(TL_ECLOSED, what, "", -1, 0, next)


cdef str _name_of(int code):
    return (<bytes>tl_status_name(code)).decode("ascii", "replace")
