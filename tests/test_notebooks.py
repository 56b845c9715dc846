"""Every notebook runs from top to bottom."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[1] / "experiments" / "notebooks").glob("*.ipynb"))


SHORTEST = "attention_heads"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Jupyter's own
@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=[] if path.stem == SHORTEST else pytest.mark.slow) for path in NOTEBOOKS],
    ids=lambda path: path.stem,
)
def test_runs_and_draws(path, tmp_path):
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    kinds = {key for cell in notebook.cells for output in cell.get("outputs", []) for key in output.get("data", {})}
    assert "application/vnd.plotly.v1+json" in kinds


def test_notebooks_are_committed_without_outputs():
    assert SHORTEST in {path.stem for path in NOTEBOOKS}
    for path in NOTEBOOKS:
        assert not any(cell.get("outputs") for cell in nbformat.read(path, as_version=4).cells), path
