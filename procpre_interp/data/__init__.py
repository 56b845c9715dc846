"""Data: every task by name in `TASKS`, every corpus in `CORPORA`.

Importing this package registers them all: that is what the unused imports are for.
"""

from procpre_interp.data import derived, imported, mixture  # noqa: F401
from procpre_interp.data.checks import check_task
from procpre_interp.data.corpus import CORPORA
from procpre_interp.data.counterfactual import Pairs
from procpre_interp.data.downstream import arithmetic, composed, ordering, recall  # noqa: F401
from procpre_interp.data.procedural import (  # noqa: F401
    automata,
    copying,
    dyck,
    linear_rnn,
    metamath,
    neural_automaton,
    references,
    sets,
    sorting,
    stack,
)
from procpre_interp.data.semantic import code, huggingface, language, mathematics, prose, text  # noqa: F401
from procpre_interp.data.task import TASKS, Batch, Split, Task
from procpre_interp.data.vocab import PADDING, SEPARATOR, Token

__all__ = ["CORPORA", "PADDING", "SEPARATOR", "TASKS", "Batch", "Pairs", "Split", "Task", "Token", "check_task"]
