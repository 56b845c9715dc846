"""Who may import whom, read from the source: imports inside functions count like those at the top."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "procpre_interp"

TABLES = {"core", "stats", "store", "claims"}
METHODS = {"transfer", "ablate", "probe", "patch", "train"}
BELOW_RUNS = TABLES - {"claims"} | METHODS | {"data", "model"}
ALLOWED: dict[str, set[str]] = {
    "core": set(),
    "stats": {"core"},
    "store": {"core"},
    "claims": {"core", "stats", "store"},
    "data": {"core"},
    "model": {"core"},
    # Methods never import one another: a sweep receives its score as a function.
    **{method: {"core", "data", "model"} for method in METHODS},
    "pipeline": BELOW_RUNS,
    "engine": BELOW_RUNS | {"pipeline"},
    "sweep": BELOW_RUNS | {"pipeline", "engine"},
    "analysis": BELOW_RUNS | {"claims", "pipeline"},
    "views": BELOW_RUNS | {"claims", "pipeline", "engine", "sweep", "analysis"},
    # A claim is run, judged and drawn: so it stands above the figures.
    "study": BELOW_RUNS | {"claims", "pipeline", "engine", "sweep", "analysis", "views"},
    "jobs": {"core"},
}
ALLOWED["commands"] = ALLOWED["cli"] = {*ALLOWED, "commands", "__init__"}
"""Folder (or loose module) -> what it may import."""

NEED_TORCH = {"torch", "transformer_lens", "transformers", "safetensors"}
TORCH_FREE = TABLES | {"jobs"}
"""Folders that must not import torch anywhere, except `core.seeding` in `stream` (never for `numpy_stream`)."""

EXHIBITS_OF_TABLES = (
    "exhibit",
    "results",
    "text_results",
    "runs",
    "run_details",
    "run_progress",
    "where",
    "pairs",
    "damage",
    "claims",
    "cheaper",
)
TABLE_VIEWS = {f"views/exhibits/{name}.py" for name in EXHIBITS_OF_TABLES} | {
    f"views/{name}.py" for name in ("html_report", "html_page", "findings", "markdown")
}
"""Views of stored tables, which must open without torch, as all of `views/plots` and `analysis/diagnosis`."""

PAGES_THAT_RUN_A_MODEL = {
    "models",
    "what_was_generated",
    "corpus_views",
    "where_does_attention_look",
    "which_circuit",
    "how_do_weights_move",
}


def imported(path: Path) -> set[str]:
    """Dotted names of all modules that a file imports, relative ones resolved."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    package = parts[:-1]
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            home = ".".join([*package[: len(package) - node.level + 1], *filter(None, [node.module])])
            home = home if node.level else str(node.module)
            # `from package import name` may name a module of the package.
            names |= {f"{home}.{alias.name}" for alias in node.names} if home == PACKAGE else {home}
    return names


def part_of(name: str) -> str | None:
    """The part of our package that a dotted name is in; None for other people's modules."""
    first, _, rest = name.partition(".")
    part = rest.split(".")[0] or "__init__"
    if first != PACKAGE:
        return None
    folder = ROOT / PACKAGE
    return part if (folder / part).is_dir() or (folder / f"{part}.py").is_file() else "__init__"


def folder(path: Path) -> str:
    return path.relative_to(ROOT / PACKAGE).with_suffix("").parts[0]


SOURCES = [path for path in sorted((ROOT / PACKAGE).rglob("*.py")) if not folder(path).startswith("_")]
PAGES = sorted((ROOT / "app").rglob("*.py"))


def parts(names: set[str]) -> set[str]:
    return {found for name in names if (found := part_of(name)) is not None}


def needs_torch(names: set[str]) -> set[str]:
    return {name for name in names if name.split(".")[0] in NEED_TORCH}


def test_imports_run_one_way():
    wrong = {}
    for path in SOURCES:
        own = folder(path)
        assert own in ALLOWED, f"give {own} its place in the table of tests/test_architecture.py"
        if others := parts(imported(path)) - {own} - ALLOWED[own]:
            wrong[str(path.relative_to(ROOT))] = sorted(others)
    assert wrong == {}
    assert set(ALLOWED) == {folder(path) for path in SOURCES}
    assert len(ALLOWED) <= 20


def test_tables_need_no_torch():
    """What the parser sees; `test_stored_results_open_without_torch` also sees what is loaded through others."""
    wrong = {}
    for path in SOURCES:
        inside = path.relative_to(ROOT / PACKAGE).as_posix()
        if (folder(path) in TORCH_FREE or is_table_view(inside)) and inside != "core/seeding.py":
            wrong[inside] = needs_torch(imported(path))
    assert {path: found for path, found in wrong.items() if found} == {}


def is_table_view(inside: str) -> bool:
    return inside.startswith(("views/plots/", "analysis/diagnosis/")) or inside in TABLE_VIEWS


def test_the_app_reads_tables():
    """Pages read tables, except those that run a model; no module of the explorer is long."""
    for path in PAGES:
        names = imported(path)
        if path.stem not in PAGES_THAT_RUN_A_MODEL:
            assert parts(names) <= TORCH_FREE | {"views", "analysis", "__init__"}, path
            assert needs_torch(names) == set(), path
        assert n_lines(path) <= 120, path


def n_lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def test_no_module_is_long():
    """A module that has grown beyond this holds two things."""
    modules = [*SOURCES, *PAGES, *sorted((ROOT / "experiments").glob("*.py"))]
    long = {str(path.relative_to(ROOT)): n for path in modules if (n := n_lines(path)) > 300}
    assert long.keys() <= {"procpre_interp/sweep/config.py"}, long  # which is about to be split


def test_the_table_has_no_cycle():
    """Layers can be peeled off from the bottom."""
    above = {own: set(below) - {own, "__init__"} for own, below in ALLOWED.items() if own not in ("cli", "commands")}
    while above:
        lowest = {own for own, below in above.items() if not below & set(above)}
        assert lowest, f"a cycle among {sorted(above)}"
        above = {own: below for own, below in above.items() if own not in lowest}


def test_two_modules_lie_loose():
    assert {path.name for path in (ROOT / PACKAGE).glob("*.py")} == {"__init__.py", "cli.py"}


def test_stored_results_open_without_torch():
    """What the parser cannot see: modules loaded through others."""
    inside = [path.relative_to(ROOT / PACKAGE).as_posix() for path in SOURCES]
    modules = [
        f"{PACKAGE}.{name[:-3].replace('/', '.')}".removesuffix(".__init__") for name in inside if is_table_view(name)
    ]
    code = "\n".join(
        [
            f"import sys, {', '.join(modules)}",
            f"from {PACKAGE} import RunStore, load_history",
            "print(sorted({'torch', 'transformers', 'transformer_lens'} & set(sys.modules)))",
        ]
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_the_parser_sees_imports_in_functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    source = tmp_path / PACKAGE / "plots" / "bad.py"
    source.parent.mkdir(parents=True)
    (tmp_path / PACKAGE / "train").mkdir()
    source.write_text(
        f"from {PACKAGE} import train, RunStore\n"
        "def f():\n    import torch.nn\n    from ..train import loop\n    from . import theme\n"
    )
    assert imported(source) == {
        f"{PACKAGE}.train",
        f"{PACKAGE}.RunStore",
        "torch.nn",
        f"{PACKAGE}.plots",
    }
    assert part_of(f"{PACKAGE}.train.loop") == "train"
    assert part_of(f"{PACKAGE}.RunStore") == "__init__"
    assert part_of("torch") is None
