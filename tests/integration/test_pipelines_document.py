"""docs/pipelines.md: its programs run, one after the other, as one program."""

import re
from pathlib import Path

DOCUMENT = Path(__file__).parents[2] / "docs" / "pipelines.md"


def test_the_programs_of_the_document_run(capsys):
    blocks = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert len(blocks) == 5
    exec(compile("\n".join(blocks), str(DOCUMENT), "exec"), {"__name__": "__main__"})
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "upload 2 objects"
    assert lines[1] == "2"
