"""The classes of TransformerLens that the model is made of, without all that its packages load at import.

Those packages need datasets, transformers, pandas and pytest, which take longer to load than torch, and training wants
none of them. Whoever imports anything else of TransformerLens gets its packages as they are, with these very classes.
"""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec, module_from_spec
from types import ModuleType

_PACKAGES = (
    "transformer_lens",
    "transformer_lens.config",
    "transformer_lens.conversion_utils",
    "transformer_lens.conversion_utils.conversion_steps",
    "transformer_lens.utilities",
)
_HOME = {"Slice": "slice", "SliceInput": "slice", "remove_batch_dim": "tensors", "warn_if_mps": "devices"}
"""What `HookedRootModule` takes from `transformer_lens.utilities`, and where that is defined."""


@contextmanager
def _empty_packages() -> Iterator[None]:
    """Empties TransformerLens's packages within the block, so that one of their modules can be imported alone.

    Afterwards the modules stay, and the next import of a package runs its own `__init__`.
    """
    empty: dict[str, ModuleType] = {}
    for name in _PACKAGES if "transformer_lens" not in sys.modules else ():
        spec = find_spec(name)
        assert spec is not None
        sys.modules[name] = empty[name] = module_from_spec(spec)
    try:
        for name, home in _HOME.items() if empty else ():
            module = importlib.import_module(f"transformer_lens.utilities.{home}")
            setattr(empty["transformer_lens.utilities"], name, getattr(module, name))
        yield
    finally:
        for name in empty:
            del sys.modules[name]


with _empty_packages():
    from transformer_lens.config.transformer_lens_config import TransformerLensConfig
    from transformer_lens.hook_points import HookPoint
    from transformer_lens.HookedRootModule import HookedRootModule

__all__ = ["HookPoint", "HookedRootModule", "TransformerLensConfig"]
