"""The scripts of claims, and the experiments in them."""

import importlib.util
from pathlib import Path
from types import ModuleType

from procpre_interp.study.experiment import Experiment


def load_experiment(path: Path) -> Experiment:
    """The `EXPERIMENT` of a claim's script."""
    return load_script(path).EXPERIMENT


def load_script(path: Path) -> ModuleType:
    """A script as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
