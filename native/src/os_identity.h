/* What does os_posix.c take from os_identity.c?
 *
 * Private to these two: everybody else asks `tl_os`. Imports os.h. */
#ifndef TIDELOG_SRC_OS_IDENTITY_H
#define TIDELOG_SRC_OS_IDENTITY_H

#include "tidelog/os.h"

int tl_os_identity(int dir, tl_identity *out);
int tl_os_filesystem(int dir, uint64_t *magic);
uint32_t tl_os_pid_namespace(void);

#endif
