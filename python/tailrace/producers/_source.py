"""What a producer says to the pipeline that runs it."""

from __future__ import annotations


class SourceFailed(Exception):
    """The reason of a `Stop` that ends the intake for good: what was emitted is finished, then the
    pipeline ends with `error`.
    """

    def __init__(self, error: BaseException) -> None:
        super().__init__(error)
        self.error = error
