"""The model card of an exported model: what it is, where it is from, its scores, and what it is not good for."""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import pandas as pd
import yaml

from procpre_interp.core.config import to_dict
from procpre_interp.core.environment import environment
from procpre_interp.core.schema import ClassFields
from procpre_interp.data import CORPORA
from procpre_interp.data.semantic.text import Text
from procpre_interp.model import HookedTransformer
from procpre_interp.pipeline.lineage import Moment
from procpre_interp.store.ancestry import parent_before
from procpre_interp.store.cells import is_missing
from procpre_interp.store.outcomes import share_of_tokens
from procpre_interp.store.run import parents_of
from procpre_interp.store.store import DamagedRun, Run, RunStore, UnknownRun
from procpre_interp.train import TrainConfig
from procpre_interp.views.glossary import SETTING
from procpre_interp.views.markdown import markdown_table

SCORES = {
    "loss_nats": "loss, nats per token",
    "perplexity": "perplexity per token",
    "bits_per_byte": "bits per byte",
    "answers_right": "questions answered right, exact match by greedy decoding",
    "accuracy": "token accuracy, teacher-forced",
    "exact_match": "exact match of whole answers, teacher-forced",
}
"""Column of a summary or a history -> what a reader is told."""

TRAINED_WITH = ("steps", "batch_size", "learning_rate", "schedule", "weight_decay", "precision", "freeze")
"""Training settings that stand in the table of phases; the configs below it have them all."""

UNKNOWN_LICENCE = "not recorded; find out before you pass the model on"


def model_card(moment: Moment, model: HookedTransformer, store: RunStore, *, without_tokenizer: str = "") -> str:
    """Markdown with Hugging Face's header. Paths of this computer are not in it.

    `without_tokenizer` says why there is none.
    """
    runs = _lineage(moment.source, store)
    taken = _steps_taken(runs, moment)
    config, corpora = model.config, sorted({spec for run in runs for spec in corpora_of(run.task)})
    imported = [run for run in runs if "imported" in run.config]
    version = environment()["packages"]["procpre-interp"]  # type: ignore[index]
    header = {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["procedural-pretraining", "interpretability"],
    }
    shape = {
        "layers": config.n_layers,
        "heads per layer": config.n_heads,
        "width": config.d_model,
        "width of an MLP": config.d_hidden,
        "context, tokens": config.n_ctx,
        "token ids": config.d_vocab,
        "unembedding tied to the embedding": "yes" if config.tied else "no",
        "parameters": f"{model.flat.numel():,}",
    }
    parts = [
        f"---\n{yaml.safe_dump(header, sort_keys=False)}---\n",
        f"# A small GPT-2 of the task {moment.source.task['name']}\n",
        f"The model of run {moment.source.id} {moment.when}, exported by procpre-interp {version}. {SETTING}\n",
        _rows(shape),
        f"Without a tokenizer: {without_tokenizer}.\n" if without_tokenizer else "",
        "## Phases\n",
        "The last row is the model itself; the rows above it gave it weights. A run is named by the hash of its config."
        "\n",
        markdown_table(pd.DataFrame([_phase(run, taken[run.id]) for run in runs])),
        *(_gone(run, runs) for run in runs),
        "## Scores\n",
        *_scores(moment),
        "## Data\n",
        *(_data(spec) for spec in corpora),
        *(f"- Whatever run {run.id} was trained on before it was imported: unknown here.\n" for run in imported),
        "" if corpora or imported else "Generated sequences only: no text, and no licence of any corpus.\n",
        "## What it is not good for\n",
        _limits(is_text=bool(corpora or imported)),
        "## Configs\n",
        *(_config(run) for run in runs),
    ]
    return "\n".join(part for part in parts if part)


def corpora_of(task: ClassFields) -> Iterator[str]:
    """The corpora of a task's config, those of its components included. A user's own files go by their last name."""
    spec = task.get("corpus", Text().corpus if task.get("name") == "text" else None)  # left out where it is the default
    if isinstance(spec, str):
        yield _without_path(spec)
    nested = [task.get("task"), *(task.get("tasks") or ())]
    for part in nested:
        if isinstance(part, Mapping):
            yield from corpora_of(part)


def _without_path(spec: str) -> str:
    """A corpus, or a tokenizer that names corpora, without the folders of a user's own files."""
    return re.sub("files:.*/", "files:", spec, flags=re.DOTALL)


def _lineage(run: Run, store: RunStore, below: frozenset[str] = frozenset()) -> list[Run]:
    """The ancestors that the store still has, each once and before its children, and then the run.

    Raises `DamagedRun` for parents that lead back to a run, `below` being those that it comes before.
    """
    if run.id in below:
        raise DamagedRun(run.folder, "its parents lead back to it")
    found: dict[str, Run] = {}
    for parent in parents_of(run):
        opened = None
        with suppress(UnknownRun, DamagedRun):
            opened = store.open(parent["run"], verify=False)
        if opened is not None:
            found |= {each.id: each for each in _lineage(opened, store, below | {run.id})}
    return [*found.values(), run]


def _gone(run: Run, known: Iterable[Run]) -> str:
    """The parents of a run that the store has no more, as a paragraph."""
    parents = {parent["run"] for parent in parents_of(run)}
    gone = sorted(parents - {each.id for each in known})
    return f"Of run {run.id} the parents {', '.join(gone)} are no longer in the store.\n" if gone else ""


def _step_of(moment: Moment) -> int | None:
    """The step of its source's training that the model is of. Default: the last one."""
    if moment.stage not in ("finished", "phase1"):
        return moment.source.first_step
    if moment.step is None and moment.stage == "phase1":
        return parent_before(moment.run).get("step")
    return moment.step


def _steps_taken(runs: Iterable[Run], moment: Moment) -> dict[str, int]:
    """Run -> the last of its steps that is behind the model: a child may have taken the weights of an earlier one."""
    found: dict[str, int] = {}
    used = [(parent["run"], parent.get("step")) for run in runs for parent in parents_of(run)]
    whole = {run.id: run.summary["steps"] for run in runs}
    for run, step in [*used, (moment.source.id, _step_of(moment))]:
        if run in whole:
            found[run] = max(found.get(run, 0), whole[run] if step is None else step)
    return found


def _phase(run: Run, last: int) -> dict[str, str]:
    """A row of the table of phases: that of a run up to the step `last`."""
    config, first, whole = run.config, run.first_step, run.summary["steps"]
    given = [
        f"{each.get('selector', 'all')} of {each['run']}" + ("" if (step := each.get("step")) is None else f"@{step}")
        for each in parents_of(run)
    ]
    tokens = run.summary.get("tokens")
    if last < whole and not is_missing(tokens):
        seen = f"about {_number(round(tokens * share_of_tokens(run, last)))}" if last > first else "0"
    else:
        seen = _number(tokens)
    task = {name: value for name, value in run.task.items() if name not in ("name", "version", "corpus")}
    task = _published(task)
    settings = {**to_dict(TrainConfig(), defaults=True), **config.get("train", {})}
    settings = {name: settings[name] for name in TRAINED_WITH if settings[name] is not None}
    carries = config.get("optimiser") == "carried"
    words = {
        "run": run.id,
        "weights from": ("; ".join(given) or "fresh") + (", with the optimiser's state" if carries else ""),
        "task": " ".join([str(run.task["name"]), *corpora_of(run.task), *_pairs(task)]),
        "seed": str(run.seed),
        "training": ", ".join(_pairs(settings)),
        "steps taken": f"{last - first}" + (f" from step {first} on" if first else ""),
        "tokens seen": seen,
    }
    if (origin := config.get("imported")) is not None:
        files = ", ".join(f"{name} {digest[:16]}" for name, digest in origin["files"])
        words |= {"weights from": f"imported; SHA-256 of its files: {files}", "training": "elsewhere"}
    return words


def _pairs(fields: ClassFields) -> list[str]:
    return [f"{name} {value}" for name, value in fields.items() if not isinstance(value, (dict, list))]


def _scores(moment: Moment) -> Iterator[str]:
    run, step = moment.source, _step_of(moment)
    if moment.stage not in ("finished", "phase1"):
        yield "None: training had not begun.\n"
        return
    if step is None or step == run.summary["steps"]:
        found, split = dict(run.summary), "test"
    else:
        history = run.history()
        rows = history.loc[(history["step"] == step) & (history["split"] == "validation")]
        found, split = (rows.iloc[-1].to_dict() if len(rows) else {}), "validation"
    known = {words: _number(found[name]) for name, words in SCORES.items() if not is_missing(found.get(name))}
    if not known:
        yield "None: the run has no scores of these weights.\n"
        return
    yield f"On {split} data of its own task, which training did not see.\n"
    yield _rows(known)
    if overlap := run.summary.get("prompt_overlap"):
        yield f"The space of prompts is small: {overlap:.0%} of the held-out prompts also occur in training.\n"


def _data(spec: str) -> str:
    kind = CORPORA[name] if (name := spec.partition(":")[0]) in CORPORA else None
    licence = UNKNOWN_LICENCE if kind is None else kind.about.licence
    about = ("" if kind is None else kind.__doc__ or "").partition("\n")[0]
    return f"- {spec}. {about} Licence of the corpus: {licence}.\n"


def _limits(*, is_text: bool) -> str:
    if not is_text:
        return (
            "It knows generated sequences of its own task and nothing else: it is no language model, its token ids are "
            "those of the task, and sequences longer than the ones that it was trained on are beyond it.\n"
        )
    return (  # what is true of imported models, too
        "It is an object of study, without instruction tuning, alignment or a "
        "filter. What it writes is often wrong, can repeat text of its corpus word for word, and carries the biases of "
        "that corpus. Do not use it to inform, advise or decide about people. Where its tokenizer has an "
        "`eos_token_id`, text begins with it, as a document follows the end of the one before.\n"
    )


def _config(run: Run) -> str:
    return f"Run {run.id}:\n\n```yaml\n{yaml.safe_dump(_published(dict(run.config)), sort_keys=False)}```\n"


def _published(value: Any) -> Any:
    """A stored config without the paths of a user's own files."""
    if isinstance(value, Mapping):
        return {name: _published(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_published(each) for each in value]
    return _without_path(value) if isinstance(value, str) else value


def _rows(values: Mapping[str, object]) -> str:
    return markdown_table(pd.DataFrame({"": list(values), "value": [str(value) for value in values.values()]}))


def _number(value: object) -> str:
    if is_missing(value):
        return ""
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
