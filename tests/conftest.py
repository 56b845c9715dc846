"""The whole suite runs with every jaxtyping annotation checked by beartype, on one thread, with a cache of its own."""

import os
import signal
import sys
from collections.abc import Iterator

import pytest
from jaxtyping import install_import_hook

install_import_hook("procpre_interp", "beartype.beartype")

import torch  # noqa: E402

# Tests run side by side; more threads would wait for one another.
torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Token files of the tests' corpora go here, not into the user's cache; child processes inherit it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(os.environ, "PROCPRE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


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


@pytest.fixture(scope="session")
def a_compiler() -> None:
    """Skips tests of the native kernel where there is no C++ compiler; one that fails must fail them."""
    from procpre_interp.train.native.build import KernelUnavailable, compiler

    try:
        compiler()
    except KernelUnavailable as problem:
        pytest.skip(str(problem))
