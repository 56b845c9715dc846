"""What a run takes over from its parents beside weights: the optimiser's state, and its place in a training."""

import dataclasses
import json
from collections.abc import Mapping
from io import BytesIO

import safetensors.torch
import torch
from jaxtyping import Float
from safetensors import SafetensorError
from torch import Tensor

from procpre_interp.core.config import from_dict, to_dict
from procpre_interp.core.messages import one_line
from procpre_interp.core.plain_values import load_header, load_json
from procpre_interp.data import Task
from procpre_interp.model import HookedTransformer, ModelConfig, Weights, flat_mask
from procpre_interp.pipeline.config import RunConfig
from procpre_interp.store.run import OPTIMISER, Run
from procpre_interp.store.store import RunStore
from procpre_interp.train.optimiser import FlatAdamW
from procpre_interp.transfer import Donor, transplant

PARTS = ("exp_avg", "exp_avg_sq", "step")
"""What Adam keeps of each weight: its two moments, and the number of steps that they have taken."""
_SHAPE = "model_config"


def optimiser_file(model: HookedTransformer, optimiser: FlatAdamW) -> bytes:
    """The optimiser's state by the names of the parameters, and the model's config, as a safetensors file.

    The number of steps is one where all weights have the same, and otherwise one per weight.
    """
    state = {name: tensor.detach().cpu() for name, tensor in optimiser.state().items()}
    tensors = {"step": state.pop("step")} if state and not state["step"].ndim else {}
    for part, flat in state.items():
        for name, (offset, shape) in model.slices.items():
            tensors[f"{part}/{name}"] = flat[offset : offset + shape.numel()].view(shape).contiguous()
    return safetensors.torch.save(tensors, {_SHAPE: json.dumps(to_dict(model.config, defaults=True))})


def kept_state(run: Run) -> tuple[dict[str, Weights], ModelConfig]:
    """The optimiser's state that a run kept, as weights for each of `PARTS`, and its model's config.

    Raises `ValueError` for a run that keeps none, and for a file of another origin.
    """
    if OPTIMISER not in run.manifest:
        raise ValueError(
            f"run {run.id} keeps no optimiser state to be carried on: it was computed without train.keep_optimiser, "
            "or imported. Give optimiser fresh, or delete that run and compute it again"
        )
    content = run.read(OPTIMISER)
    try:
        tensors = safetensors.torch.load(content)
        metadata = load_header(BytesIO(content))["__metadata__"]
        config = from_dict(ModelConfig, load_json(metadata[_SHAPE]))
        steps = tensors.pop("step", None)
        parts: dict[str, Weights] = {part: {} for part in PARTS}
        for key, tensor in tensors.items():
            part, _, name = key.partition("/")
            parts[part][name] = tensor
        if steps is not None:
            parts["step"] = {name: steps.expand(tensor.shape).clone() for name, tensor in parts["exp_avg"].items()}
    except (SafetensorError, LookupError, TypeError, ValueError) as problem:
        raise ValueError(f"run {run.id}: {OPTIMISER} is no state of an optimiser ({one_line(problem)})") from None
    return parts, config


def carried_moments(config: RunConfig, model: HookedTransformer, store: RunStore) -> dict[str, Float[Tensor, "..."]]:
    """The optimiser's state that a run of a resolved config begins with, as `FlatAdamW.load_state` takes it.

    The moments of each parent's weights are transferred as these weights are, onto zeros, and so are the numbers of
    steps. What no parent gives, what is averaged (a mean of embeddings has no gradient of its own) and what is frozen
    has fresh moments. Empty for a fresh state. Raises `ValueError` for a parent that keeps none.
    """
    if config.optimiser == "fresh":
        return {}
    if (config.transfer.layers, config.transfer.width) != ("same", "same"):
        raise ValueError(
            "optimiser=carried with a transfer to another shape: its moments belong to gradients of the old one; give "
            "optimiser fresh"
        )
    kept = [kept_state(store.open(parent.run)) for parent in config.parents]
    averaged = [name for name in ("token_embedding", "unembedding") if getattr(config.transfer, name) == "average"]
    transfer = dataclasses.replace(config.transfer, **dict.fromkeys(averaged, "fresh"))
    fresh = {name: torch.zeros_like(parameter, device="cpu") for name, parameter in model.named_parameters()}
    state = {}
    for part in PARTS:
        donors = [Donor(parts[part], shape, parent.selector) for (parts, shape), parent in zip(kept, config.parents)]
        taken = transplant(fresh, model.config, donors, transfer)
        state[part] = torch.cat([taken[name].detach().flatten() for name in model.slices])
    if config.train.freeze is not None:
        # The momentum that they had would move them on.
        frozen = flat_mask(model, config.train.freeze).cpu()
        for part in PARTS[:2]:
            state[part].masked_fill_(frozen, 0.0)
    steps = state["step"].unique()
    if len(steps) == 1:
        state["step"] = steps[0]
    elif config.train.kernel == "stacked":
        raise ValueError(
            f"optimiser=carried with kernel=stacked, where the moments of parts have taken {steps.long().tolist()} "
            "steps; the stacked kernel has one number for all: give optimiser fresh, or kernel torch"
        )
    return state


def refuse_gaps(config: RunConfig, store: RunStore) -> None:
    """Raise `ValueError` where a run cannot go on with the training of its first parent at its `start_at`."""
    start = config.train.start_at
    if not start:
        return
    run = store.open(config.parents[0].run, verify=False)
    if run.summary["steps"] != start:
        raise ValueError(
            f"start_at={start}, but run {run.id}, which it goes on with, ended at step {run.summary['steps']} "
            f"({run.summary['stop_reason']})"
        )
    train: Mapping[str, object] = run.config.get("train", {})
    for name, theirs, ours in (
        ("task", to_dict(from_dict(Task, run.task)), to_dict(config.task)),
        ("seed", run.seed, config.seed),
        ("train.batch_size", train.get("batch_size", type(config.train)().batch_size), config.train.batch_size),
    ):
        if theirs != ours:
            raise ValueError(
                f"start_at={start}: run {run.id}, which it goes on with, has {name} {theirs}, and this run {ours}; "
                "the batches would be others"
            )
