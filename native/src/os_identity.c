/* Which boot, which mount, which file system is this, and whose process ids?
 *
 * Imports os_identity.h. Callable from any thread; like os_posix.c in all else. */
#define _GNU_SOURCE 1

#include "os_identity.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statfs.h>

/* Headers may be older than the kernel that runs: the numbers are kernel interface and never change. */
#ifndef STATX_MNT_ID
#define STATX_MNT_ID 0x1000u
#endif
#ifndef STATX_MNT_ID_UNIQUE
#define STATX_MNT_ID_UNIQUE 0x4000u
#endif

static int boot_id(uint64_t out[2]) {
    char text[64];
    int fd = tl_io_posix.open(AT_FDCWD, "/proc/sys/kernel/random/boot_id", O_RDONLY, 0);
    if (fd < 0)
        return fd;
    int64_t bytes = tl_io_posix.pread(fd, text, sizeof text, 0);
    tl_io_posix.close(fd);
    if (bytes < 0)
        return (int)bytes;
    unsigned digits = 0;
    out[0] = out[1] = 0;
    for (int64_t i = 0; i < bytes && text[i] != '\n'; i++) {
        char c = text[i];
        unsigned nibble;
        if (c == '-')
            continue;
        if (c >= '0' && c <= '9')
            nibble = (unsigned)(c - '0');
        else if (c >= 'a' && c <= 'f')
            nibble = (unsigned)(c - 'a') + 10;
        else
            return -EPROTO;
        if (digits == 32)
            return -EPROTO;
        out[digits / 16] = out[digits / 16] << 4 | nibble;
        digits++;
    }
    return digits == 32 ? 0 : -EPROTO;
}

/* The plain mount id is handed out again after an unmount, the unique one (Linux 6.8) never within a boot. The kernel
 * returns the unique id when both are asked for and it knows it. Before Linux 5.8 there is neither, and 0 stands. */
int tl_os_identity(int dir, tl_identity *out) {
    tl_identity identity = {{0, 0}, 0, 0, 0};
    struct stat s;
    struct statx x;
    int result = boot_id(identity.boot);
    if (result < 0)
        return result;
    if (fstat(dir, &s) < 0)
        return -errno;
    if (statx(dir, "", AT_EMPTY_PATH, STATX_MNT_ID | STATX_MNT_ID_UNIQUE, &x) < 0)
        return -errno;
    identity.device = (uint64_t)s.st_dev;
    identity.inode = (uint64_t)s.st_ino;
    if ((x.stx_mask & (STATX_MNT_ID | STATX_MNT_ID_UNIQUE)) != 0)
        identity.mount = x.stx_mnt_id;
    *out = identity;
    return 0;
}

int tl_os_filesystem(int dir, uint64_t *magic) {
    struct statfs s;
    while (fstatfs(dir, &s) < 0)
        if (errno != EINTR)
            return -errno;
    *magic = (uint64_t)s.f_type;
    return 0;
}

uint32_t tl_os_pid_namespace(void) {
    struct stat stat_;
    return stat("/proc/self/ns/pid", &stat_) == 0 ? (uint32_t)stat_.st_ino : 0;
}
