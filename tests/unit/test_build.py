"""What an installed tailrace consists of: one core, two doors into it, honest metadata."""

import ctypes
import importlib.metadata
import importlib.util
import re
import subprocess
import sys
import sysconfig
from pathlib import Path
from types import ModuleType

import pytest

import tailrace
from tailrace import _control, _core

ROOT = Path(__file__).parents[2]
LIBRARY = Path(tailrace.__file__).parent / "libtailrace.so"


@pytest.fixture(scope="module")
def build_control() -> ModuleType:
    pytest.importorskip("cffi")
    spec = importlib.util.spec_from_file_location(
        "build_control", ROOT / "csrc" / "cffi" / "build_control.py"
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def code_of(folder: str, pattern: str = "*.h") -> str:
    """The C code of a folder without its comments."""
    text = "\n".join(path.read_text() for path in sorted((ROOT / folder).glob(pattern)))
    return re.sub(r"/\*.*?\*/|//[^\n]*", " ", text, flags=re.DOTALL)


def public_functions() -> set[str]:
    return set(re.findall(r"\b(tr_\w+)\s*\((?!\*)", code_of("csrc/include")))


def test_cffi_offers_exactly_the_functions_and_constants_of_the_header() -> None:
    constants = set(re.findall(r"\bTR_\w+", code_of("csrc/include")))
    assert set(dir(_control.lib)) == public_functions() | constants


def test_cffi_knows_exactly_the_types_of_the_header() -> None:
    structs = set(re.findall(r"\bstruct (tr_\w+)", code_of("csrc/include")))
    names = set(re.findall(r"^(?:typedef [^;{}]*?|\} )\*?(tr_\w+);", code_of("csrc/include"), re.M))
    typedefs, known_structs, unions = map(set, _control.ffi.list_types())
    assert names <= typedefs
    assert structs <= known_structs | typedefs
    assert not unions
    assert all(name in structs | names for name in known_structs)


def test_declarations_keep_code_and_drop_the_rest(build_control: ModuleType) -> None:
    header = """\
#ifndef A_H
#define A_H
#include <stdint.h>
#ifdef __cplusplus
extern "C" {
#endif
#define TR_MAX 7 /* at
    most */
#define TR_LONG \\
    8
/* int tr_old(void); */
typedef struct tr_a tr_a; // opaque
int tr_f(tr_a *a,
         int n);
#ifdef __cplusplus
}
#endif
#endif
"""
    assert build_control.declarations(header).split("\n") == [
        "#define TR_MAX ...",
        "#define TR_LONG ...",
        "typedef struct tr_a tr_a;",
        "int tr_f(tr_a *a,",
        "         int n);",
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_both_doors_lead_into_one_loaded_core() -> None:
    assert _core.__file__ is not None and _control.lib is not None
    maps = Path("/proc/self/maps").read_text()
    loaded = set(re.findall(r"\S*libtailrace\S*", maps))
    assert loaded == {str(LIBRARY.resolve())}


def test_the_library_shows_the_public_functions_and_no_others() -> None:
    library = ctypes.CDLL(str(LIBRARY))
    internal = set(re.findall(r"\b(tri_\w+)\s*\(", code_of("csrc/core")))
    assert [name for name in sorted(public_functions()) if not hasattr(library, name)] == []
    assert [name for name in sorted(internal) if hasattr(library, name)] == []


def test_the_core_knows_nothing_of_python() -> None:
    code = code_of("csrc/core", "*.[ch]") + code_of("csrc/include")
    assert "Python.h" not in code
    assert "PyObject" not in code


def test_metadata() -> None:
    metadata = importlib.metadata.metadata("tailrace")
    assert metadata["Version"] == tailrace.__version__ == "0.1.0"
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "MIT"
    required = [r for r in importlib.metadata.requires("tailrace") or [] if "extra ==" not in r]
    assert [re.split(r"[<>=!~ ]", requirement)[0] for requirement in required] == ["cffi"]


def test_console_command() -> None:
    (command,) = importlib.metadata.entry_points(group="console_scripts", name="tailrace")
    assert command.value == "tailrace.__main__:main"
    assert callable(command.load())


def test_the_package_says_that_it_is_typed() -> None:
    assert (Path(tailrace.__file__).parent / "py.typed").is_file()


def test_import_warns_of_nothing() -> None:
    """A deprecation here is an error in the next interpreter."""
    subprocess.run([sys.executable, "-W", "error", "-c", "import tailrace"], check=True)


@pytest.mark.skipif(
    not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="needs a free-threaded interpreter"
)
def test_no_module_turns_the_interpreter_lock_on() -> None:
    """Neither an import of any module of the package nor a use of the engine."""
    program = """
import importlib, pkgutil, sys, tailrace
names = {m.name for m in pkgutil.walk_packages(tailrace.__path__, "tailrace.")}
names -= {"tailrace.__main__", "tailrace.libtailrace"}  # the command; no Python module
assert "tailrace._core" in names and "tailrace.producers" in names, names
for name in names:
    importlib.import_module(name)
    assert not sys._is_gil_enabled(), name
tailrace.GenServer.start_link().stop()
sys.exit(sys._is_gil_enabled())
"""
    subprocess.run([sys.executable, "-c", program], check=True)
