"""What commands and workers load before their first work. By no clock: which of the slow modules are there."""

import subprocess
import sys
from pathlib import Path

import pytest

from procpre_interp.cli import help_text
from procpre_interp.core.startup import quick_imports

UPSTREAM = ("transformers", "datasets", "pytest")
"""What TransformerLens's packages load, and no model needs."""
NOT_TO_TRAIN = (*UPSTREAM, "scipy", "plotly", "streamlit", "torch._dynamo", "sympy")
TABLES_ONLY = ("torch", "transformer_lens", *NOT_TO_TRAIN)
PLAIN = ("pandas", "numpy", "pyarrow", *TABLES_ONLY)


def run_python(code: str, *arguments: str) -> str:
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


CALL = """
import sys
from procpre_interp.cli import main
heavy, arguments = sys.argv[1].split(), sys.argv[2:]
code = main(arguments)
assert code == 0, code
found = set(heavy) & set(sys.modules)
assert not found, found
"""


@pytest.mark.parametrize(
    ("command", "heavy"),
    [
        ("--help", (*PLAIN, "tyro", "rich", "yaml")),
        ("runs", (*PLAIN, "rich.table")),
        ("runs -h", PLAIN),
        ("sweep -h", PLAIN),
        ("reproduce -h", PLAIN),
        ("app -h", PLAIN),
        ("runs --format csv", TABLES_ONLY),
        ("diagnose -h", TABLES_ONLY),
        ("claims -h", TABLES_ONLY),
        ("train -h", NOT_TO_TRAIN),
        ("probe -h", tuple({*NOT_TO_TRAIN} - {"plotly"})),
        ("patch -h", tuple({*NOT_TO_TRAIN} - {"plotly"})),
    ],
)
def test_a_command_loads_no_more_than_it_needs(command: str, heavy: tuple[str, ...], tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    printed = run_python(CALL, " ".join(heavy), *command.split())
    if command == "--help":
        assert printed == help_text()
    if command == "runs":
        assert "0 runs" in printed


TRAIN = """
import sys
import procpre_interp.engine.processes, procpre_interp.sweep.plan
from procpre_interp import Architecture, RunConfig, RunStore, TASKS, TrainConfig
from procpre_interp.pipeline.execute import execute
train = TrainConfig(steps=2, batch_size=4, evaluate_every=1, evaluate_examples=4, checkpoints=1, kernel=sys.argv[2])
task = TASKS.build("dyck", k=1, length=8)
model = Architecture(n_layers=1, n_heads=1, d_model=4)
execute(RunConfig(task=task, train=train, model=model), RunStore(sys.argv[3]))
found = set(sys.argv[1].split()) & set(sys.modules)
assert not found, found

import transformer_lens
from procpre_interp.model import HookedTransformer, upstream
from procpre_interp.model.hook_points import HookPoint
from transformer_lens import ActivationCache, HookedRootModule
assert issubclass(HookedTransformer, HookedRootModule) and upstream.HookedRootModule is HookedRootModule
assert issubclass(HookPoint, transformer_lens.hook_points.HookPoint)
assert upstream.TransformerLensConfig is transformer_lens.config.TransformerLensConfig
assert transformer_lens.patching and transformer_lens.utilities.get_act_name
"""


@pytest.mark.parametrize("kernel", ["torch", "auto"])
def test_a_run_loads_no_more_than_it_needs(kernel: str, tmp_path: Path):
    """And TransformerLens, imported afterwards, is whole, and of the classes that the model is made of."""
    run_python(TRAIN, " ".join(NOT_TO_TRAIN), kernel, str(tmp_path))


def test_transformer_lens_may_come_first():
    run_python(
        "import transformer_lens.ActivationCache\n"
        "from procpre_interp.model import HookedTransformer\n"
        "assert issubclass(HookedTransformer, transformer_lens.HookedRootModule)"
    )


def test_garbage_is_collected_again_after_imports():
    """Only what the block has imported is kept: nothing, where it imports nothing."""
    run_python(
        "import gc\n"
        "from procpre_interp.core.startup import quick_imports\n"
        "with quick_imports():\n    assert not gc.isenabled()\n"
        "assert gc.isenabled() and gc.get_freeze_count() == 0\n"
        "with quick_imports():\n    import sqlite3\n"
        "assert gc.isenabled() and gc.get_freeze_count() > 0\n"
    )
    with pytest.raises(ZeroDivisionError), quick_imports():
        raise ZeroDivisionError
