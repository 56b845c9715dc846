"""The examples of CONTRIBUTING.md, which tests perform as they are printed."""

import re
from pathlib import Path

PAGE = (Path(__file__).resolve().parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")


def example(text: str) -> str:
    """The block of Python in which this text stands."""
    (found,) = (block for block in re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL) if text in block)
    return found
