"""procpre_interp: which parts of a model carry the gain of procedural pretraining, and why.

The names below are loaded at first use, so that `import procpre_interp` and `procpre-interp --help` need no torch.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "TASKS": "procpre_interp.data",
    "CORPORA": "procpre_interp.data",
    "Batch": "procpre_interp.data",
    "stream": "procpre_interp.core.seeding",
    "numpy_stream": "procpre_interp.core.seeding",
    "HookedTransformer": "procpre_interp.model",
    "ModelConfig": "procpre_interp.model",
    "RunConfig": "procpre_interp.pipeline.config",
    "Architecture": "procpre_interp.pipeline.config",
    "Parent": "procpre_interp.pipeline.config",
    "TrainConfig": "procpre_interp.train",
    "TransferConfig": "procpre_interp.transfer",
    "execute": "procpre_interp.engine.watched",
    "RunStore": "procpre_interp.store.store",
    "load_run": "procpre_interp.store.run",
    "load_history": "procpre_interp.store.run",
    "load_model": "procpre_interp.pipeline.execute",
    "load_task": "procpre_interp.pipeline.execute",
    "load_plugin": "procpre_interp.core.plugins",
    "check_task": "procpre_interp.data",
    "token_names": "procpre_interp.data.tokens",
    "masked_loss": "procpre_interp.train",
}

__all__ = ["__version__", *_HOME]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
