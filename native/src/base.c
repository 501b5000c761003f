/* How is a failure recorded?
 *
 * Imports base.h. Callable from any thread: everything is the caller's. */
#include "tidelog/base.h"

#include <errno.h>
#include <stdio.h>

int tl_fail(tl_error *err, int code, const char *what, const char *path, int64_t position) {
    if (err != NULL) {
        err->code = code;
        err->sys_errno = 0;
        err->position = position;
        err->what = what;
        err->detail[0] = 0;
        if (path != err->path) /* else it stands there already */
            snprintf(err->path, sizeof err->path, "%s", path == NULL ? "" : path);
    }
    return code;
}

int tl_fail_sys(tl_error *err, int negative_errno, const char *what, const char *path) {
    int number = negative_errno < 0 ? -negative_errno : negative_errno;
    int code = TL_EIO;
    if (number == ENOSPC || number == EDQUOT)
        code = TL_ENOSPC;
    else if (number == ENOMEM)
        code = TL_ENOMEM;
    tl_fail(err, code, what, path, -1);
    if (err != NULL)
        err->sys_errno = number;
    return code;
}

const char *tl_status_name(int code) {
    static const char *const names[] = {"OK",     "EINVAL", "ENOMEM",  "EIO",     "ENOSPC",    "ECORRUPT", "ERANGE",
                                        "ETOOLARGE", "EAGAIN", "ETIMEOUT", "ELOCKED", "ECLOSED", "EFORKED", "EFAILED",
                                        "EFENCED", "ENOTFOUND", "EEXIST", "EUNSUPPORTED", "EDROPPED", "EFULL", "EBUS", "ETURNED",
                                        "EOUTOFORDER", "ETXNSTATE"};
    int index = -code;
    if (index < 0 || index >= (int)(sizeof names / sizeof *names))
        return "?";
    return names[index];
}
