"""The three experiments that the paper suggests to a reader, on real text.

    python experiments/first_experiments.py [--out runs] [--workers 2] [--minutes 90] [--quick]

Union of 16 symbols, a model of two layers, then English: with everything transferred, with attention alone and with
MLPs alone (on Python, too, so that the domain can be what decides), and with the sequences shuffled. These are the
claims `union_helps_language`, `attention_for_code_mlp_for_language` and `structure_not_statistics`, which share their
runs. A larger machine takes the paper's phase 1 and text: `--phase1-steps 1000000 --corpus huggingface:wikitext`;
model and phase 2 stay what they are.
"""

import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from procpre_interp.core.terminal import run_script
from procpre_interp.study.experiment import Options, run_all
from procpre_interp.study.scripts import load_script
from procpre_interp.study.text_protocol import PHASE1, TEXTS

CLAIMS = ("union_helps_language", "attention_for_code_mlp_for_language", "structure_not_statistics")


@dataclass(frozen=True, kw_only=True)
class FirstExperiments(Options):
    """Union and real text: train what is missing of the three experiments that the paper suggests, and judge them."""

    phase1_steps: int = PHASE1.steps
    """Steps of phase 1. Other than the default, the verdicts are of another protocol."""
    corpus: str = TEXTS["language"].corpus
    """The language: one of those that `procpre-interp corpora` lists, such as
    huggingface:wikitext or files:PATH."""


def first_experiments(asked: FirstExperiments) -> int:
    """Run and judge all three. Exit code 1 where a run failed."""
    text = dataclasses.replace(TEXTS["language"], corpus=asked.corpus)
    modules = [load_script(Path(__file__).with_name(f"{name}.py")) for name in CLAIMS]
    return run_all([each.experiment(phase1_steps=asked.phase1_steps, text=text) for each in modules], asked)


if __name__ == "__main__":
    name = Path(__file__).stem
    sys.exit(run_script(name, lambda: first_experiments(tyro.cli(FirstExperiments, prog=name))))
