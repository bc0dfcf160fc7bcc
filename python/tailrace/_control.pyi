# The cffi door, made by csrc/cffi/build_control.py: the functions and constants of csrc/include.
from typing import Any

ffi: Any
lib: Any
