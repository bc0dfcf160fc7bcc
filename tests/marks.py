"""What tests are marked with in several files."""

import pytest
from support import GIL

under_the_gil = pytest.mark.skipif(
    not GIL, reason="the frames of a thread that runs can be read under the GIL only"
)
"""For tests that look where another thread is: without the GIL that has crashed the interpreter."""
