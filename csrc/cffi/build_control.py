"""The cffi door: tailrace._control, built from the public headers.

The declarations are the headers of csrc/include themselves, with comments and preprocessor lines
taken off, so binding and header cannot drift; the C compiler then checks each of them against the
real headers (cffi's API mode). setup.py runs this file through setuptools' `cffi_modules`.
"""

import re
from pathlib import Path

from cffi import FFI

CSRC = Path(__file__).resolve().parent.parent

_COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
_CPLUSPLUS = re.compile(r"^#\s*ifdef __cplusplus\n.*?^#\s*endif\n", re.DOTALL | re.MULTILINE)
_DIRECTIVE = re.compile(r"^[ \t]*#[^\n]*\n", re.MULTILINE)
_INCLUDE = re.compile(r'^#include "(\w+\.h)"', re.MULTILINE)
_CONSTANT = re.compile(r"^[ \t]*#[ \t]*define[ \t]+(TR_\w+)[ \t]+\S", re.MULTILINE)


def headers(csrc: Path = CSRC) -> list[Path]:
    """The public headers, each after those that it includes."""
    ordered: dict[Path, None] = {}

    def add(path: Path) -> None:
        for name in _INCLUDE.findall(path.read_text()):
            add(path.with_name(name))
        ordered.setdefault(path)

    for path in sorted((csrc / "include").glob("*.h")):
        add(path)
    return list(ordered)


def declarations(header: str) -> str:
    """What cffi's cdef() takes of the text of a header.

    A macro with a value is declared as an integer constant whose value the compiler fills in.

    >>> print(declarations("#ifndef A_H\\n#define A_H\\n#define TR_MAX 7 /* at most */\\n"
    ...                    "int tr_f(int n); // doubles\\n#endif\\n"))
    #define TR_MAX ...
    int tr_f(int n);
    """
    text = _CPLUSPLUS.sub("", _COMMENT.sub(" ", header.replace("\\\n", " ")))
    constants = [f"#define {name} ..." for name in _CONSTANT.findall(text)]
    lines = (line.rstrip() for line in _DIRECTIVE.sub("", text).splitlines())
    return "\n".join([*constants, *filter(None, lines)])


def make_ffi(csrc: Path = CSRC) -> FFI:
    """The builder of tailrace._control. The library to link with is named by setup.py, which
    builds it."""
    ffi = FFI()
    for path in headers(csrc):
        ffi.cdef(declarations(path.read_text()))
    ffi.set_source(
        "tailrace._control",
        "".join(f'#include "{path.name}"\n' for path in headers(csrc)),
        include_dirs=["csrc/include"],
        depends=[f"csrc/include/{path.name}" for path in headers(csrc)],
        py_limited_api=False,
    )
    return ffi
