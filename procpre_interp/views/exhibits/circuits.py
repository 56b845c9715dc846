"""Which circuit? Activation patches on pairs and on one pair, edges as a graph, and what circuits carry alone."""

import dataclasses

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from procpre_interp.core.messages import unknown_name
from procpre_interp.core.seeding import stream
from procpre_interp.data import Task
from procpre_interp.data.counterfactual import Pairs
from procpre_interp.data.samples import PAIRS, pairs_of
from procpre_interp.data.tokens import token_names
from procpre_interp.model import HookedTransformer
from procpre_interp.patch import activation_patching, circuit_curve, edge_attribution, gap_of
from procpre_interp.patch.replay import hook_name
from procpre_interp.views.exhibits.exhibit import Exhibit
from procpre_interp.views.plots.axes import add_click_targets
from procpre_interp.views.plots.circuit_graph import circuit_graph
from procpre_interp.views.plots.circuits import faithfulness_curve
from procpre_interp.views.plots.patching import gap_note, patch_heatmap, probability_bars

SITES = {
    "z": "z: output of each head, before W_O",
    "resid_pre": "residual stream before the layer",
    "attn_out": "what attention writes",
    "mlp_out": "what the MLP writes",
    "q": "queries of each head",
    "k": "keys of each head",
    "v": "values of each head",
}
"""Activations that can be patched: name -> what people read."""

HEAD_SITES = ("z", "q", "k", "v")
MOST_TOKENS = 5
"""Tokens whose probabilities a patch on one pair shows."""
READING_PATCH = (
    "1 (blue): this activation alone brings the whole clean answer back into the corrupted run; 0: nothing; below 0 "
    "(red): it makes things worse."
)


READING_EFFECT = (
    "Blue: this activation moves the corrupted run towards the clean answer, red: away from it; in units of the "
    "metric, since a share of a gap that may be chance says nothing."
)


def causes(task: Task) -> dict[str, str]:
    """What can differ in a pair: name -> what people read. Raises `ValueError` for a task without any."""
    if not task.causes:
        raise ValueError(f"{task.name} has no cause that a pair could differ in: {task.why_no_causes}")
    return {name: f"{name}: {text}" for name, text in task.causes.items()}


def one_pair(task: Task, cause: str, pair: int, seed: int = 0) -> Pairs:
    """Pair number `pair` of these, cut behind what it is read at."""
    if not 0 <= pair < PAIRS:
        raise ValueError(f"pair={pair}; there are pairs 0 to {PAIRS - 1}")
    found, row = pairs_of(task, cause, seed), slice(pair, pair + 1)
    parts = {field.name: getattr(found, field.name)[row] for field in dataclasses.fields(Pairs)}
    end = int(parts["positions"]) + 1
    return Pairs(**{**parts, "clean": parts["clean"][:, :end], "corrupted": parts["corrupted"][:, :end]})


def pair_table(task: Task, pair: Pairs) -> pd.DataFrame:
    """One pair token by token: position, clean, corrupted, differs; the last row is what is to be predicted."""
    clean, corrupted = ([*row.tolist()] for row in (pair.clean[0], pair.corrupted[0]))
    clean, corrupted = [*clean, int(pair.answers)], [*corrupted, int(pair.wrong)]
    table = pd.DataFrame({"clean": token_names(task, clean), "corrupted": token_names(task, corrupted)})
    table.insert(0, "position", [*map(str, range(len(clean) - 1)), "next"])
    return table.assign(differs=table["clean"] != table["corrupted"])


def effects(
    model: HookedTransformer, task: Task, cause: str, site: str = "z", *, by_position: bool = False, seed: int = 0
) -> Exhibit:
    """Effect of each patch of a site, mean over `PAIRS` pairs: by head and layer, or by position too."""
    table = activation_patching(model, pairs_of(task, cause, seed), sites=[_site(site)], by_position=by_position)
    return Exhibit(
        name=f"patch_{site}",
        figure=patch_heatmap(table, site, title=f"Patching {SITES[site]}; cause: {cause}"),
        reading=READING_EFFECT if gap_note(table) else READING_PATCH,
        table=table,
        notes=(
            f"{PAIRS} pairs of {task.name}, seed {seed}; positions are counted from the left of each sequence."
            if by_position
            else f"{PAIRS} pairs of {task.name}, seed {seed}; every position of the activation is replaced at once.",
            *filter(None, [gap_note(table)]),
        ),
    )


def effects_on_pair(
    model: HookedTransformer, task: Task, cause: str, pair: int = 0, site: str = "z", *, seed: int = 0
) -> Exhibit:
    """Effect of each patch of a site on one pair, over its tokens; each cell can be clicked.

    The custom data of a cell are the patch's layer, head (None where the site has none) and position.
    """
    found = one_pair(task, cause, pair, seed)
    table = activation_patching(model, found, sites=[_site(site)])
    names = token_names(task, found.corrupted[0].tolist())
    figure = patch_heatmap(table, site, tokens=names, title=f"Pair {pair}: patching {SITES[site]}")
    return Exhibit(
        name=f"pair_{site}",
        figure=add_click_targets(figure),
        reading="Blue: this activation moves the corrupted run towards the clean answer, red: away from it. All of it "
        f"would be {table['gap'].iloc[0]:+.3g}, the change of the logit difference from one run to the other.",
        table=table.assign(token=[names[position] for position in table["position"]]),
        notes=("One pair: an observation.",),
    )


def live_patch(
    model: HookedTransformer,
    task: Task,
    cause: str,
    pair: int,
    site: str,
    layer: int,
    position: int | None = None,
    head: int | None = None,
    *,
    seed: int = 0,
) -> Exhibit:
    """One patch on one pair: probabilities of the next token in the clean, the corrupted and the patched run.

    The clean run's activation of `site` in `layer`, at `position` (None for everywhere) and of `head` (None for all),
    replaces that of the corrupted run. Raises `ValueError` for a place that there is not.
    """
    found = one_pair(task, cause, pair, seed)
    clean, corrupted = found.clean.to(model.flat.device), found.corrupted.to(model.flat.device)
    length, config = clean.shape[1], model.config
    for name, value, bound in (("layer", layer, config.n_layers), ("head", head, config.n_heads)):
        if value is not None and not 0 <= value < bound:
            raise ValueError(f"{name}={value}; the model has {name}s 0 to {bound - 1}")
    if position is not None and not 0 <= position < length:
        raise ValueError(f"position={position}; this pair is read at {length - 1}, the last of its positions")
    point = hook_name(_site(site), layer)
    place = (slice(None), slice(None) if position is None else position)
    place += (head,) if site in HEAD_SITES and head is not None else ()
    kept: dict[str, Tensor] = {}

    def keep(x: Tensor, hook: object) -> None:
        kept["clean"] = x.detach().clone()

    def replace(x: Tensor, hook: object) -> Tensor:
        x[place] = kept["clean"][place]
        return x

    with torch.no_grad():
        with model.hooks(fwd_hooks=[(point, keep)]):
            before = _probabilities(model, clean)
        unpatched = _probabilities(model, corrupted)
        with model.hooks(fwd_hooks=[(point, replace)]):
            patched = _probabilities(model, corrupted)
    runs = {"clean": before, "corrupted": unpatched, "patched": patched}
    answers = [int(found.answers), int(found.wrong)]
    most = sorted({int(token) for probs in runs.values() for token in probs.topk(2).indices} - set(answers))
    tokens = [*answers, *most][:MOST_TOKENS]
    names, roles = token_names(task, tokens), ["clean answer", "corrupted answer", *[""] * (len(tokens) - 2)]
    table = pd.DataFrame(
        [
            {"run": run, "token": name, "role": role, "id": token, "probability": float(probs[token])}
            for run, probs in runs.items()
            for token, name, role in zip(tokens, names, roles)
        ]
    )
    where = "at all positions" if position is None else f"at position {position}"
    part = f"L{layer}H{head}" if head is not None and site in HEAD_SITES else f"layer {layer}"
    return Exhibit(
        name="live_patch",
        figure=probability_bars(table, title=f"Pair {pair}: {site} of {part} {where}"),
        reading="The patch carries the answer where its bar for the clean answer is as high as the clean run's.",
        table=table,
        notes=("One pair: an observation.",),
    )


def graph(model: HookedTransformer, task: Task, cause: str, *, n_edges: int = 25, seed: int = 0) -> Exhibit:
    """The strongest edges between components, by integrated gradients (EAP-IG, inputs, 5 steps)."""
    pairs = pairs_of(task, cause, seed)
    table = edge_attribution(model, pairs, method="eap_ig_inputs").assign(**gap_of(model, pairs).columns())
    return Exhibit(
        name="circuit_graph",
        figure=circuit_graph(table, n=n_edges, title=f"The {n_edges} strongest edges; cause: {cause}"),
        reading="Read from the embedding below to the logits above: an arrow is what one component writes and another "
        "reads, as wide as its estimated effect on the logit difference, blue for it and red against it. Arrows enter "
        "a head at its queries (q), keys (k) or values (v).",
        table=table.sort_values("score", key=abs, ascending=False, kind="stable"),
        notes=(
            f"Estimated from gradients on {PAIRS} pairs, seed {seed}; the faithfulness curve tests it.",
            *filter(None, [gap_note(table)]),
        ),
    )


def faithfulness(model: HookedTransformer, task: Task, cause: str, *, n_random: int = 5, seed: int = 0) -> Exhibit:
    """How much of the model's logit difference circuits of growing size carry, beside random ones.

    In a model whose logit difference is not told from that without any edge: the logit difference itself.
    """
    pairs = pairs_of(task, cause, seed)
    scores = edge_attribution(model, pairs, method="eap_ig_inputs")
    generator = stream(seed, "random circuits")
    table = circuit_curve(model, pairs, scores, n_random=n_random, generator=generator)
    undefined = gap_note(table)
    return Exhibit(
        name="faithfulness",
        figure=faithfulness_curve(table, title=f"What circuits carry; cause: {cause}"),
        reading="The model does not tell these pairs apart, so there is no behaviour that a circuit could carry."
        if undefined
        else "A small circuit that reaches 1 on the left explains the behaviour; one whose removal leaves nothing, on "
        "the right, is all of it.",
        table=table,
        notes=(
            f"{PAIRS} pairs, seed {seed}; {n_random} random circuits of each size.",
            *filter(None, [undefined]),
        ),
    )


def _probabilities(model: HookedTransformer, tokens: Tensor) -> Float[Tensor, " d_vocab"]:
    logits = model(tokens)
    assert isinstance(logits, Tensor)
    return logits[0, -1].softmax(-1).cpu()


def _site(site: str) -> str:
    if site not in SITES:
        raise unknown_name("site", site[:40], list(SITES))
    return site
