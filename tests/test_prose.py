"""How the code reads: docstrings that a native speaker would write (the patterns that crept in before)."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("procpre_interp", "app", "experiments")
SOURCES = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]

PATTERNS = {
    "opens with a bare preposition": r"^(Of|In|With|From|For|By|At|On|To|As|Before|After|Behind|Within|Without) ",
    'says "one row a" for "one row per"': r"\b[Oo]ne (row|line|column|number|value) an? ",
    'says "none:" for "Default:"': r"\b([Nn]one|[Ee]mpty): ",
    "uses a word that nobody says": r"\b(befalls?|lest|so many minutes|dearest)\b",
}


def docstrings(path: Path) -> list[str]:
    """Every string that stands alone: docstrings of modules, classes, functions, fields and constants."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    values = [node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)]
    return [value.value for value in values if isinstance(value, ast.Constant) and isinstance(value.value, str)]


def test_docstrings_read_like_english():
    found = [
        f"{path.relative_to(ROOT)}: {what}: {text.strip()[:70]!r}"
        for path in SOURCES
        for text in docstrings(path)
        for what, pattern in PATTERNS.items()
        if re.search(pattern, text)
    ]
    assert found == [], "\n".join(found)
