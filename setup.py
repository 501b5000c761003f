"""How is the native part built? Everything else about the package stands in pyproject.toml.

One extension, `tidelog._native`, from native/_native.pyx (Cython) and native/src/*.c (plain C11). Switches, all by
environment:

    TIDELOG_DEBUG=1            no optimisation, full debug information, assertions
    TIDELOG_SANITIZE=KIND      address, undefined, thread, or several with commas; a plain python then needs the
                               sanitizer's library in LD_PRELOAD
    TIDELOG_COVERAGE=1         gcov instrumentation of the C code
    TIDELOG_TEST_POINTS=1      crash points, yield points and seeded bugs are compiled in (-DTL_TEST)
"""

from __future__ import annotations

import os
import platform
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ENTRY = Path("native/_native.pyx")


def refusal() -> str | None:
    """The sentence that says why this platform is not supported, or None."""
    if sys.implementation.name != "cpython" or sys.version_info < (3, 11):
        return f"CPython 3.11 or later, not {platform.python_implementation()} {platform.python_version()}"
    if sys.platform != "linux":
        return f"Linux, not {sys.platform}"
    if platform.machine() not in ("x86_64", "aarch64") or sys.maxsize < 2**32:
        return f"x86-64 and aarch64 in 64-bit mode, not {platform.machine()}"
    return None


def switched(name: str) -> bool:
    """Whether an environment switch is on."""
    return os.environ.get(name, "").lower() not in ("", "0", "no", "false")


def flags() -> tuple[list[str], list[str]]:
    """(compiler flags, linker flags). Never -march=native: SIMD is chosen at run time."""
    compile_flags = ["-std=c11", "-fno-strict-aliasing", "-fvisibility=hidden", "-fstack-protector-strong", "-pthread"]
    link_flags = ["-pthread", "-Wl,-z,relro,-z,now", "-Wl,-z,noexecstack"]
    sanitize = os.environ.get("TIDELOG_SANITIZE", "")
    if unknown := set(sanitize.split(",")) - {"", "address", "undefined", "thread"}:
        sys.exit(f"TIDELOG_SANITIZE={sanitize}: {', '.join(sorted(unknown))} is none of address, undefined, thread")
    if switched("TIDELOG_DEBUG"):
        compile_flags += ["-O0", "-g3", "-UNDEBUG"]
    elif sanitize:
        compile_flags += ["-O1", "-g", "-UNDEBUG"]
    else:
        compile_flags += ["-O2", "-U_FORTIFY_SOURCE", "-D_FORTIFY_SOURCE=2"]
        # Where a branch happens to stand is worth 3 of 50 ns of a send: aligned, it does not hang on changes elsewhere.
        compile_flags += ["-falign-functions=64", "-falign-loops=32", "-falign-jumps=32"]
    if sanitize:
        compile_flags += [f"-fsanitize={sanitize}", "-fno-omit-frame-pointer", "-U_FORTIFY_SOURCE"]
        link_flags.append(f"-fsanitize={sanitize}")
    if switched("TIDELOG_COVERAGE"):
        compile_flags.append("--coverage")
        link_flags.append("--coverage")
    if switched("TIDELOG_TEST_POINTS"):
        compile_flags.append("-DTL_TEST")
    return compile_flags, link_flags


def extensions() -> list[Extension]:
    """The one extension; nothing when there is no native/_native.pyx."""
    if not ENTRY.exists():
        return []
    compile_flags, link_flags = flags()
    patterns = ("native/include/tidelog/*.h", "native/src/*.h", "native/*.pxd", "native/*.pyx", "native/glue/*.pxi")
    native = Extension(
        "tidelog._native",
        [str(ENTRY), *sorted(map(str, Path().glob("native/src/*.c")))],
        include_dirs=["native/include"],
        extra_compile_args=compile_flags,
        extra_link_args=link_flags,
        # Also what puts these files into the source distribution.
        depends=sorted(str(path) for pattern in patterns for path in Path().glob(pattern)),
    )
    return [native]


class NativeBuild(build_ext):
    """build_ext that runs Cython only now, and the C compilers side by side."""

    def build_extensions(self) -> None:
        """Translate the .pyx into build/ (beside it, the generated file would look like a source), then compile."""
        from Cython.Build import cythonize

        for extension in self.extensions:
            translated = cythonize([extension], build_dir="build", include_path=["native"], language_level=3)
            extension.sources = translated[0].sources
        compile_some = self.compiler.compile

        def compile_all(sources: list[str], **options: Any) -> list[str]:
            with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
                done = pool.map(lambda source: compile_some([source], **options), sources)
                return [name for names in done for name in names]

        self.compiler.compile = compile_all
        super().build_extensions()


if reason := refusal():
    sys.exit(f"tidelog runs on {reason}.")
setup(ext_modules=extensions(), cmdclass={"build_ext": NativeBuild})
