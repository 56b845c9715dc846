"""The whole suite runs with every jaxtyping annotation checked by beartype, on one thread, with a cache of its own, and
draws little data at once.
"""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.annotations import check_annotations

check_annotations("procpre_interp")

import torch  # noqa: E402

from tests import small_draws  # noqa: E402

# Tests run side by side; more threads would wait for one another.
torch.set_num_threads(1)

small_draws.set_draws(*small_draws.SMALL)
sys.modules["__main__"] = small_draws  # which multiprocessing's workers import first


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A file's tests run in one process, one after the other, so that what they share is trained or drawn once."""
    from xdist.scheduler import LoadFileScheduling

    config.option.loadscopereorder = False  # else files with few tests, which are the long ones, come last
    return LoadFileScheduling(config, log)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Token files of the tests' corpora go here, not into the user's cache; child processes inherit it. Kernels are
    compiled for all processes of the suite together.
    """
    cache, kernels = tmp_path_factory.mktemp("cache"), _of_the_whole_suite(tmp_path_factory) / "native"
    kernels.mkdir(exist_ok=True)
    (cache / "native").symlink_to(kernels, target_is_directory=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(os.environ, "PROCPRE_CACHE", str(cache))
        yield


def _of_the_whole_suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A temporary folder that xdist's workers, each of which has one of its own within it, have in common."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(autouse=True)
def _main_module() -> Iterator[None]:
    """The main module stays what it was: AppTest leaves its page's there, which spawned workers would then import."""
    main = sys.modules["__main__"]
    yield
    sys.modules["__main__"] = main


@pytest.fixture(scope="session", autouse=True)
def _interrupts() -> Iterator[None]:
    """Ctrl-C interrupts the tests and their child processes also where it is ignored: under nohup, say, or in a script
    that runs them in the background. Children inherit that a signal is ignored, but not that it is handled.
    """
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def large_draws() -> Iterator[None]:
    """Draws as users have them: for numbers that were stored, and next to children that draw as users do."""
    small_draws.set_draws(*small_draws.LARGE)
    yield
    small_draws.set_draws(*small_draws.SMALL)


@pytest.fixture
def runs_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sweeps execute their runs in this process."""
    from tests.serial import execute_here

    monkeypatch.setattr("procpre_interp.engine.engines.execute_all", execute_here)
    monkeypatch.setattr("procpre_interp.engine.processes.execute_all", execute_here)


@pytest.fixture(scope="session")
def a_compiler() -> None:
    """Skips tests of the native kernel where there is no C++ compiler; one that fails must fail them."""
    from procpre_interp.train.native.build import KernelUnavailable, compiler

    try:
        compiler()
    except KernelUnavailable as problem:
        pytest.skip(str(problem))
