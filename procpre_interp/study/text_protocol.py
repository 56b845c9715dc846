"""Claims on real text: models, budgets, texts and gates, the same in all of them, so that they share runs.

A claim's sweep is a fair one (`sweep.fair`): each transfer has the controls beside it without which a gain on text says
little, and every arm is tuned over the same learning rates, on a seed of its own. Losses are in nats per byte.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from procpre_interp.ablate import Ablation
from procpre_interp.claims.claim import Claim, Contrast
from procpre_interp.data import TASKS, Task
from procpre_interp.data.semantic.text import Text
from procpre_interp.pipeline.config import Architecture
from procpre_interp.stats.baselines import BASELINE
from procpre_interp.study.claim_figures import Figure, measure_figure
from procpre_interp.study.experiment import Experiment
from procpre_interp.study.observation import Observation
from procpre_interp.study.protocols import CONSTANT, FRESH_SEED
from procpre_interp.sweep.config import Condition, Pretraining, Source, Sweep
from procpre_interp.sweep.fair_arms import other_corpus
from procpre_interp.sweep.fair_config import Fair, Gate
from procpre_interp.train import TrainConfig
from procpre_interp.transfer import TransferConfig

Domain = Literal["language", "code", "mathematics"]

WINDOW = 128
"""Bytes of a window."""
MODEL = Architecture(n_layers=2, n_heads=4, d_model=64)
LARGER = Architecture(n_layers=4, n_heads=4, d_model=128)
"""Eight times the weights in its blocks."""
PHASE1 = dataclasses.replace(
    CONSTANT,
    steps=3_000,
    batch_size=16,
    learning_rate=1e-3,
    weight_decay=0.1,
    evaluate_every=500,
    evaluate_examples=200,
)
"""A constant rate, as the paper's phase 1 for large models has it. On seed 7, which tunes, 3,000 steps brought sort to
98, union to 91, set to 90, stack to 78, queue to 60 and Dyck to 51 % of what is scored."""
PHASE2 = TrainConfig(
    steps=1_000,
    batch_size=16,
    learning_rate=4e-3,
    schedule="cosine",
    warmup_steps=100,
    weight_decay=0.1,
    evaluate_every=50,
    evaluate_examples=200,
)
"""Two million bytes, in a single pass. The learning rate is tuned."""
DECAY: dict[Domain, float] = {"language": 0.1, "code": 0.01, "mathematics": 0.01}
"""The paper's, by what is learnt."""
TEXTS: dict[Domain, Text] = {
    "language": Text(corpus="wikipedia-leads", length=WINDOW),
    "code": Text(corpus="python-stdlib", length=WINDOW),
    "mathematics": Text(corpus="deepmind-math", length=WINDOW),
}
LEARNING_RATES = (4e-3, 8e-3, 1.6e-2)
INITIAL_SCALES = (1.0, 2.0)
"""Trials of every arm: one per rate and scale. In `sweep fair_text` the fresh model was best at 8e-3 and twice its
scale, the largest that were tried there."""
FRESH = TransferConfig(token_embedding="fresh", unembedding="fresh", positions="fresh")
"""The paper's for text: a phase 1 of 16 symbols has no positions to carry."""

MARGIN = 0.02
"""The smallest change of a loss that matters, nats per byte: replicates differ by about .03, so that 40 of them can
tell about half of it from nothing."""
MARGIN_NOTE = (
    "0.02 nats per byte. The paper's gains on C4, 0.034 (union) to 0.053 (sort) nats a token, are about 0.01 per byte "
    "after hundreds of times the text; with 40 replicates nothing much smaller than the margin can be told here."
)
"""The same in words, for claims."""
TRANSFERRED_NOTE = "Blocks and final LayerNorm are transferred, embeddings and positions are fresh."
"""What most claims transfer."""
SEEN_NOTE = (
    f"Seeds from {FRESH_SEED}, of which no run on text had been seen when the prediction was written; of `sweep "
    "fair_text`, seeds 1000 to 1007, the attention of sort before Python had, which was .077 nats worse than the fresh "
    "model."
)
"""What had been seen when the predictions of most claims were written."""

_SYMBOLS = 16
_RECIPES: dict[str, tuple[Task, float]] = {
    "sort": (TASKS.build("sort", length=_SYMBOLS), 0.9),
    "set": (TASKS.build("set", length=_SYMBOLS), 0.8),
    "union": (TASKS.build("union", length=_SYMBOLS), 0.8),
    "stack": (TASKS.build("stack", length=_SYMBOLS), 0.65),
    "queue": (TASKS.build("queue", length=_SYMBOLS), 0.45),
    "dyck": (TASKS.build("dyck", k=16, length=64), 0.45),
    "set + union": (
        TASKS.build("mixture", tasks=(TASKS.build("set", length=_SYMBOLS), TASKS.build("union", length=_SYMBOLS))),
        0.75,
    ),
    # Nothing is to be learnt of these but how often tokens occur.
    "unigrams": (TASKS.build("noisy", task=TASKS.build("union", length=_SYMBOLS), share=1.0), 0.0),
}
"""Procedural tasks with the accuracy from which on each counts as learnt (share), set before the runs of any claim."""

loss_figure: Figure = measure_figure("loss_nats", "Test loss (nats per byte)")
"""The test loss of every arm."""


def name_in(domain: Domain, name: str, text: Domain = "language") -> str:
    """A condition's name on one of several texts: that of the sweep's own text goes without saying."""
    return name if domain == text else f"{name}, {domain}"


def on_text(
    name: str,
    phase1: str,
    selector: str = "all",
    *,
    label: str,
    domain: Domain = "language",
    ablation: Ablation | None = None,
    **fields: Any,
) -> Condition:
    """A transfer from one parent, trained on the text of a domain."""
    source = Source(phase1=phase1, selector=selector, ablation=ablation)
    return _trained_on(domain, name=name, label=label, sources=(source,), **({"transfer": FRESH} | fields))


def full_name(task: str, domain: Domain) -> str:
    """Name of the condition with everything transferred from a task."""
    return name_in(domain, f"{task} full")


def full_on(task: str, domain: Domain) -> Condition:
    """Everything transferred from a task, on the text of a domain."""
    return on_text(full_name(task, domain), task, label=name_in(domain, f"{task}, full transfer"), domain=domain)


def fresh_on(domain: Domain) -> Condition:
    """No pretraining, on a text that is not the sweep's own."""
    return _trained_on(domain, name=name_in(domain, BASELINE), label=f"no pretraining, {domain}")


def _trained_on(domain: Domain, **fields: Any) -> Condition:
    train = dataclasses.replace(PHASE2, weight_decay=DECAY[domain])
    return Condition(**({"task": TEXTS[domain], "train": train} | fields))


def over_controls(measure: str = "loss_nats") -> tuple[Contrast, ...]:
    """Union in full over each of its controls, as predicted below."""
    said = {
        "scales": "fresh weights of its scales",
        "natural text": "natural text in place of phase 1",
        "shuffled sequences": "its own sequences, shuffled",
    }
    return tuple(
        Contrast(
            name=f"full transfer over {what}",
            weights={"union full": 1, f"union full {arm}": -1},
            predicted="below",
            measure=measure,
        )
        for arm, what in said.items()
    )


def tuned_alike(gates: Mapping[str, float], **fields: Any) -> Fair:
    """The trials of every arm, on one seed, with the accuracy from which on each pretraining counts as learnt."""
    return Fair(
        learning_rates=LEARNING_RATES,
        initial_scales=INITIAL_SCALES,
        tuning_replicates=1,
        gates=tuple(Gate(phase1=name, accuracy=accuracy) for name, accuracy in gates.items()),
        **fields,
    )


def text_experiment(
    claim: Claim,
    conditions: Sequence[Condition],
    *,
    domain: Domain = "language",
    phase1_steps: int = PHASE1.steps,
    model: Architecture = MODEL,
    text: Task | None = None,
    figure: Figure = loss_figure,
    observation: Observation | None = None,
    replicates: int = 8,
    first_seed: int = FRESH_SEED,
    natural_text: Task | None = None,
    transferred: str = TRANSFERRED_NOTE,
    seen: str = SEEN_NOTE,
    **fields: Any,
) -> Experiment:
    """A claim on the text of a domain (`text` in its place, if given), and on those of its conditions' own.

    Its pretrainings are those that the conditions name, with their gates. `transferred` says what is, `seen` what had
    been seen of the seeds when the prediction was written. Raises `ValueError` for an unknown pretraining.
    """
    own = text or TEXTS[domain]
    conditions = [dataclasses.replace(each, task=own) if each.task == TEXTS[domain] else each for each in conditions]
    names = list(dict.fromkeys(source.phase1 for each in conditions for source in each.sources))
    train = dataclasses.replace(PHASE1, steps=phase1_steps)
    sweep = Sweep(
        name=claim.name,
        phase1=tuple(Pretraining(name=name, task=_RECIPES[name][0], model=model, train=train) for name in names),
        task=own,
        model=model,
        train=dataclasses.replace(PHASE2, weight_decay=DECAY[domain]),
        conditions=tuple(conditions),
        replicates=replicates,
        first_seed=first_seed,
        fair=tuned_alike({name: _RECIPES[name][1] for name in names}, natural_text=natural_text),
        **fields,
    )
    gates = ", ".join(f"{name} {_RECIPES[name][1]:.0%}" for name in names)
    # Another text is another protocol, whose looks and verdicts are not to be mixed with those of the domain's own.
    name = own.corpus if isinstance(own, Text) else own.name
    elsewhere = "" if name == TEXTS[domain].corpus else f"On {name} in place of {TEXTS[domain].corpus}. "
    other = other_corpus(natural_text, own)
    in_place = f" ({other} as natural text)" if other else ""
    unit = "bytes" if not isinstance(own, Text) or own.tokenizer == "byte" else f"tokens ({own.tokenizer})"
    protocol = (
        f"{elsewhere}{model.n_layers} layers, {model.n_heads} heads, d_model {model.d_model}. "
        f"Phase 1: {phase1_steps:,} steps of batch 16 at lr 1e-3, constant, decay .1; gates: {gates}{in_place}. "
        f"Phase 2: 1,000 steps of 16 windows of {own.n_ctx} {unit} in a single pass, cosine "
        "after 100 warm-up steps, decay .1 on language and .01 elsewhere; every arm has the best of the peak rates "
        "4e-3, 8e-3 and 1.6e-2 with its initial weights as they are or doubled, on seed 0. "
        f"{transferred} {seen}"
    )
    return Experiment(claim=claim, sweep=sweep, figure=figure, protocol=protocol, observation=observation)
