"""What holds for the whole suite."""

import sys
from pathlib import Path


def pytest_report_header() -> str:
    """Which tailrace is tested, and how: the suite runs against many builds and interpreters."""
    import tailrace

    gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    return f"tailrace: {Path(tailrace.__file__).parent}, interpreter lock {'on' if gil else 'off'}"
