"""A folder whose modules would run in place of others', were it on `sys.path`."""

from pathlib import Path

MODULES = ("secrets", "struct", "yaml", "streamlit", "pandas", "display")
"""Names that a child interpreter imports: of the standard library, of packages, and of the explorer."""


def plant(folder: Path) -> Path:
    """Write the modules into a folder; the file that comes to be when one of them runs."""
    marker = folder.parent / f"{folder.name}-ran"
    code = f"open({str(marker)!r}, 'a').write(__name__)\nraise SystemExit('a module of the current folder ran')\n"
    for name in MODULES:
        (folder / f"{name}.py").write_text(code)
    (folder / "procpre_interp").mkdir()
    (folder / "procpre_interp" / "__init__.py").write_text(code)
    return marker
