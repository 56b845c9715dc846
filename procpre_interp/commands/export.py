"""`procpre-interp export`: a run's model as a folder for Hugging Face's transformers."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional

from procpre_interp.commands._options import parse
from procpre_interp.core.terminal import default_store
from procpre_interp.pipeline.lineage import StageName, moment_named
from procpre_interp.pipeline.pretrained_folder import tokenizer_of, write_pretrained
from procpre_interp.store.store import RunStore
from procpre_interp.views.model_card import model_card


@dataclass(frozen=True, kw_only=True)
class Export:
    """Write a folder that AutoModelForCausalLM.from_pretrained and AutoTokenizer.from_pretrained open.

    It holds safetensors, config.json, generation_config.json, the tokenizer, and README.md: a model card with the
    lineage, the training, the scores and the data. RUN is an id, the beginning of one, "latest", or RUN@STEP for kept
    weights.
    """

    run: Annotated[Positional[str], tyro.conf.arg(metavar="RUN", help_behavior_hint="")]
    """The run whose model is written."""
    to: Path
    """The folder to write: a new or an empty one."""
    stage: StageName = "finished"
    """Which model of the run's lineage: before or after phase 1, fresh, transplanted, or finished."""
    store: Path = field(default_factory=default_store)
    """Folder of the runs."""


def main(arguments: list[str]) -> int:
    """Write the folder and print where it is."""
    command = parse(Export, "export", arguments)
    store = RunStore(command.store)
    moment = moment_named(command.run, store, stage=command.stage)
    model = moment.model(store)
    tokenizer, missing = tokenizer_of(moment, model)
    card = model_card(moment, model, store, without_tokenizer=missing)
    write_pretrained(model, tokenizer, card, command.to)
    print(f"{moment.title}: {command.to}")
    print(f"  without a tokenizer: {missing}" if missing else "  model, tokenizer and model card")
    return 0
