"""Who may import whom, read from the source: imports inside functions count like those at the top."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "procpre_interp"

BASE = {"children", "config", "environment", "files", "notebook", "plugins", "registry", "schema", "seeding", "streams"}
METHODS = {"train", "transfer", "ablate", "probe", "patch"}
EFFECTS = {"players", "transfer_map", "dose"}
TABLES = {
    "run",
    "runs",
    "resampling",
    "survival",
    "change_points",
    "recipes",
    "recovery",
    "stats",
    "plots",
    "describe",
    "glossary",
    "diagnosis",
    "report",
    *EFFECTS,
}
ALLOWED = {
    **dict.fromkeys(BASE, BASE),
    "data": BASE,
    "model": BASE,
    # Methods never import one another: a sweep receives its score as a function.
    **dict.fromkeys(METHODS, BASE | {"data", "model"}),
    "run": BASE,
    "runs": BASE | {"run"},
    "resampling": BASE,
    "survival": BASE | {"resampling"},
    "stats": BASE | {"resampling", "survival"},
    "players": BASE,
    "change_points": BASE,
    "recipes": BASE | {"terminal"},
    "recovery": BASE | {"resampling"},
    "transfer_map": BASE | {"resampling", "survival", "stats", "players"},
    "dose": BASE | {"resampling", "survival", "stats"},
    "plots": BASE | {"stats", "transfer_map"},
    "glossary": set(),
    "describe": BASE | {"run", "runs", "stats"},
    "diagnosis": BASE | {"describe", "run", "runs", "stats"},
    "report": BASE | TABLES | {"exhibits"},
    "outcomes": BASE | {"run", "runs"},
    "comparison": BASE | TABLES - {"report"},
    "claims": BASE | TABLES - {"report"},
    "export": BASE | {"run", "runs"},
    "jobs": BASE | {"terminal"},
    "terminal": BASE,
}
PIPELINE = BASE | METHODS | {"data", "model", "run", "runs", "stats"}
ALLOWED["pipeline"] = PIPELINE
ALLOWED["engine"] = ALLOWED["heads"] = ALLOWED["damage"] = ALLOWED["lineage"] = PIPELINE | {"pipeline"}
ALLOWED["timeline"] = PIPELINE | {"pipeline", "change_points"}
ALLOWED["transfer_circuits"] = PIPELINE | {"pipeline", "lineage"}
ALLOWED["observe"] = PIPELINE | {"claims", "heads", "lineage", "pipeline"}
ALLOWED["time_left"] = PIPELINE | {"pipeline"}
ALLOWED["progress"] = PIPELINE | {"pipeline", "engine", "time_left"}
ALLOWED["watched"] = PIPELINE | {"pipeline", "engine", "progress"}
ALLOWED["sweep"] = PIPELINE | {"pipeline", "engine", "heads", "outcomes", "transfer_map"}
ALLOWED["sweep_progress"] = ALLOWED["progress"] | {"outcomes", "progress", "sweep"}
ALLOWED["reproduce"] = PIPELINE | {"pipeline", "sweep"}
ALLOWED["initialisations"] = PIPELINE | {"recipes", "sweep"}
ALLOWED["exhibits"] = set(ALLOWED) - {"report"}  # which shows them
ALLOWED["answers"] = set(ALLOWED)
ALLOWED["experiment"] = set(ALLOWED)
ALLOWED["commands"] = ALLOWED["cli"] = set(ALLOWED) | {"__init__", "commands"}
"""Part of the package (module or folder) -> the other parts that it may import."""

NEED_TORCH = {"torch", "transformer_lens", "transformers", "safetensors"}
TORCH_FREE = BASE - {"seeding"} | TABLES | {"claims", "comparison", "export", "jobs", "outcomes", "terminal"}
"""Parts that must not import torch anywhere. (seeding does in `stream`, never for `numpy_stream`.)"""

EXHIBITS_OF_TABLES = {"__init__", "exhibit", "results", "runs", "where", "damage", "claims", "cheaper", "inside"}
"""Modules of `exhibits` that read stored tables, and so are held to what `report` may import."""

APP_MAY_IMPORT = BASE | TABLES | {"claims", "comparison", "exhibits", "export", "jobs", "terminal", "__init__"}
PAGES_THAT_RUN_A_MODEL = {
    "models",
    "what_was_generated",
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


def part(path: Path) -> str:
    return path.relative_to(ROOT / PACKAGE).with_suffix("").parts[0]


SOURCES = [path for path in sorted((ROOT / PACKAGE).rglob("*.py")) if not part(path).startswith("_")]
PAGES = sorted((ROOT / "app").rglob("*.py"))


def ids(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


@pytest.mark.parametrize("path", SOURCES, ids=ids(SOURCES))
def test_imports_run_one_way(path: Path):
    own = part(path)
    assert own in ALLOWED, f"give {own} its place in the table of tests/test_architecture.py"
    others = {part_of(name) for name in imported(path)} - {None, own}
    assert others <= ALLOWED[own], f"{own} may not import {sorted(map(str, others - ALLOWED[own]))}"


@pytest.mark.parametrize("path", SOURCES, ids=ids(SOURCES))
def test_tables_need_no_torch(path: Path):
    if part(path) in TORCH_FREE:
        assert not {name.split(".")[0] for name in imported(path)} & NEED_TORCH


@pytest.mark.parametrize("name", sorted(EXHIBITS_OF_TABLES))
def test_exhibits_of_tables_need_no_torch(name: str):
    names = imported(ROOT / PACKAGE / "exhibits" / f"{name}.py")
    others = {part_of(found) for found in names} - {None, "exhibits"}
    assert others <= BASE | TABLES | {"claims", "comparison", "terminal"}
    assert not {found.split(".")[0] for found in names} & NEED_TORCH


@pytest.mark.parametrize("path", PAGES, ids=ids(PAGES))
def test_the_app_reads_tables(path: Path):
    names = imported(path)
    if path.stem not in PAGES_THAT_RUN_A_MODEL:
        assert {part_of(name) for name in names} - {None} <= APP_MAY_IMPORT
        assert not {name.split(".")[0] for name in names} & NEED_TORCH
        exhibits = {name.split(".")[2] for name in names if name.startswith(f"{PACKAGE}.exhibits.")}
        assert exhibits <= EXHIBITS_OF_TABLES
    assert path.name == "state.py" or len(path.read_text(encoding="utf-8").splitlines()) <= 120


def test_the_table_has_no_cycle():
    """Layers can be peeled off from the bottom, the base (which is one) apart."""
    above = {own: below - BASE - {own, "__init__"} for own, below in ALLOWED.items() if own not in BASE}
    above["cli"], above["commands"] = above["cli"] - {"commands"}, above["commands"] - {"cli"}
    while above:
        lowest = {own for own, below in above.items() if not below & set(above)}
        assert lowest, f"a cycle among {sorted(above)}"
        above = {own: below for own, below in above.items() if own not in lowest}


def test_stored_results_open_without_torch():
    """What the parser cannot see: modules loaded through others."""
    code = (
        "import sys, procpre_interp, procpre_interp.views.html_report, procpre_interp.views.plots.curves\n"
        "procpre_interp.RunStore, procpre_interp.load_history\n"
        "print(sorted({'torch', 'transformers', 'transformer_lens'} & set(sys.modules)))"
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
