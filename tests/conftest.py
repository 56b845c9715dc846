"""The whole suite runs with every jaxtyping annotation checked by beartype, on one thread, with a cache of its own."""

import os
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
