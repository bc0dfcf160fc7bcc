"""How tailrace is compiled: the core once, and two doors into it.

    tailrace/libtailrace.so   the engine core, csrc/core: a plain shared library without Python
    tailrace/_core            the C-API module, csrc/python, for what happens per message
    tailrace/_control         the cffi module over csrc/include, for what is rare or may wait

Both modules are linked with the library that lies beside them, so a program loads it once.
Everything else about the package is in pyproject.toml.

Environment:

    TAILRACE_WERROR=1           refuse compiler warnings in our own C files (CI does)
    TAILRACE_SANITIZE=address   build with the address and undefined-behaviour sanitizers; the
                                interpreter must then be started with LD_PRELOAD of libasan
    TAILRACE_SANITIZE=thread    build with the thread sanitizer, for an interpreter that was
                                configured --with-thread-sanitizer

Intermediate files are in build/. Two builds of one source tree at the same time must not share it:
name another folder as build_base below [build] in a file, and that file in DIST_EXTRA_CONFIG.
"""

import os
from glob import glob
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

LIBRARY = "tailrace.libtailrace"

COMPILE = ["-std=c11", "-g", "-O3", "-fno-plt", "-pthread"]
LINK = ["-pthread"]

WARNINGS = ["-Wall", "-Wextra", "-Werror"]
# CPython prescribes the signatures, the casts and the unfilled tails of its tables.
PYTHON_WARNINGS = [
    *WARNINGS,
    "-Wno-unused-parameter",
    "-Wno-missing-field-initializers",
    "-Wno-cast-function-type",
]

SANITIZERS = {
    "": [],
    "address": [
        "-O1",
        "-fno-omit-frame-pointer",
        "-fsanitize=address,undefined",
        "-fno-sanitize-recover=all",
    ],
    "thread": ["-O1", "-g", "-fno-omit-frame-pointer", "-fsanitize=thread"],
}


SANITIZE = os.environ.get("TAILRACE_SANITIZE", "")
if SANITIZE not in SANITIZERS:
    raise SystemExit(
        f"TAILRACE_SANITIZE: expected 'address', 'thread' or nothing, got {SANITIZE!r}"
    )
WERROR = os.environ.get("TAILRACE_WERROR") == "1"


def sources(folder: str, suffix: str = ".c") -> list[str]:
    return sorted(glob(f"{folder}/*{suffix}"))


def core_library() -> Extension:
    """libtailrace.so. For setuptools an extension without a module in it, so that wheels, editable
    installs and rebuilds after a change treat it as they treat the two modules."""
    return Extension(
        LIBRARY,
        sources=sources("csrc/core"),
        depends=[*sources("csrc/core", ".h"), *sources("csrc/include", ".h"), "csrc/tailrace.map"],
        include_dirs=["csrc/include", "csrc/core"],
        define_macros=[("_GNU_SOURCE", None)],
        extra_compile_args=[
            *COMPILE,
            "-fno-semantic-interposition",
            *(WARNINGS if WERROR else []),
            *SANITIZERS[SANITIZE],
        ],
        extra_link_args=[
            *LINK,
            *SANITIZERS[SANITIZE],
            "-Wl,-soname,libtailrace.so",
            "-Wl,--version-script=csrc/tailrace.map",
        ],
    )


def core_module() -> Extension:
    """tailrace._core."""
    return Extension(
        "tailrace._core",
        sources=sources("csrc/python"),
        depends=[*sources("csrc/python", ".h"), *sources("csrc/include", ".h")],
        include_dirs=["csrc/include", "csrc/python"],
        define_macros=[("_GNU_SOURCE", None)],
        extra_compile_args=[
            *COMPILE,
            *(PYTHON_WARNINGS if WERROR else []),
            *SANITIZERS[SANITIZE],
        ],
        extra_link_args=[*LINK, *SANITIZERS[SANITIZE]],
    )


class BuildExt(build_ext):
    """Builds the library before the modules that are linked with it."""

    def get_ext_filename(self, fullname: str) -> str:
        # Asked for the short name ("libtailrace") when setuptools copies into the source tree.
        if fullname.rpartition(".")[2] == LIBRARY.rpartition(".")[2]:
            return fullname.replace(".", os.sep) + ".so"
        return super().get_ext_filename(fullname)

    def build_extensions(self) -> None:
        library, *modules = sorted(self.extensions, key=lambda extension: extension.name != LIBRARY)
        self.build_extension(library)
        folder = str(Path(self.get_ext_fullpath(LIBRARY)).parent)
        for module in modules:
            module.libraries.append("tailrace")
            module.library_dirs.insert(0, folder)
            module.extra_link_args.append("-Wl,-rpath,$ORIGIN")
        self.extensions = modules
        try:
            super().build_extensions()
        finally:
            self.extensions = [library, *modules]


setup(
    # The examples are installed too: `tailrace demo` runs one of them.
    packages=[*find_packages("python"), "tailrace._examples"],
    package_dir={"": "python", "tailrace._examples": "examples"},
    ext_modules=[core_library(), core_module()],
    cffi_modules=["csrc/cffi/build_control.py:make_ffi"],
    cmdclass={"build_ext": BuildExt},
    # A sanitized build must not take objects of a plain one for its own.
    options={"build": {"build_base": "build/address"}} if SANITIZE else {},
)
