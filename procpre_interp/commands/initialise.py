"""`procpre-interp initialise`: closed-form initialisations fitted on phase-1 runs, as YAML for a config or a sweep."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import yaml

from procpre_interp.commands._options import Runs, parse, several
from procpre_interp.core.config import to_dict
from procpre_interp.core.terminal import default_store
from procpre_interp.pipeline.execute import load_model
from procpre_interp.stats.greedy_search import options_named
from procpre_interp.store.store import RunStore
from procpre_interp.study.initialisation_lab import SCALES, Lab, fit_options, read_lab


@dataclass(frozen=True, kw_only=True)
class Initialise:
    """Print a closed-form initialisation as `interventions:`, to stand under `train:` or in a sweep's condition.

    RUN is a phase-1 run, its id, the beginning of one, or "latest"; of several runs of one shape the numbers are means.
    Without a RUN it is what `experiments/search_initialisation.py` fitted on six Dyck models and found best.
    """

    runs: Runs = ()
    """Phase-1 runs that the numbers are fitted on."""
    recipe: Annotated[tuple[str, ...], several("OPTION")] = ()
    """Names of options, such as "attention scale" "mimetic" "previous-position head". Default: the sizes of all
    transferred tensors, or without a RUN what the search found. At most one option of each factor."""
    store: Path = field(default_factory=default_store)
    """Folder of the runs."""


def main(arguments: list[str]) -> int:
    """Print the YAML."""
    command = parse(Initialise, "initialise", arguments)
    if command.runs:
        store = RunStore(command.store)
        models = [load_model(store.open(name)) for name in command.runs]
        if len({(m.config.n_layers, m.config.n_heads, m.config.d_model, m.config.d_mlp) for m in models}) > 1:
            raise ValueError("these runs are models of several shapes; fit runs of one n_layers, n_heads and d_model")
        lab, default = Lab(fitted=fit_options(models), about={}), SCALES
    else:
        lab = read_lab()
        default = lab.best
    recipe = options_named(command.recipe, lab.options) if command.recipe else default
    fields = [to_dict(each) for each in lab.interventions(recipe)]
    print(yaml.safe_dump({"interventions": fields}, sort_keys=False, default_flow_style=None, width=100), end="")
    return 0
