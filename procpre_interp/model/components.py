"""THE map from components to weights. Transfer, freezing, ablation and patching all select through it.

How terms are joined to selectors is in `core/selectors.py`; what each term selects is here:

| term | weights |
|---|---|
| `all`, `blocks`, `blocks.1` | everything; all blocks; one block, with its LayerNorms |
| `embed`, `pos`, `unembed` | embeddings of tokens and positions; unembedding (tied: that of tokens again) |
| `attn`, `mlp`, `ln1`, `ln2`, `ln_final` | of all layers |
| `ln` | every LayerNorm, the final one included |
| `mlp.keys`, `mlp.values` | MLPs as key-value memories: W_in and b_in; W_out and b_out |
| `attn.W_V`, `mlp.b_in`, `attn.head.2`, `attn.head.2.W_V` | of all layers |
| `blocks.1.attn`, `blocks.1.ln`, `blocks.1.mlp.W_in`, `blocks.1.attn.head.2.W_V` | of one layer |
| `embed.W_E`, `pos_embed.W_pos`, `unembed.W_U`, `ln_final.w` | a parameter by name |

A head has its rows of W_Q, W_K, W_V, W_O, b_Q, b_K and b_V. b_O belongs to `attn` and to no head.
"""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool
from torch import Tensor

from procpre_interp.core.messages import SHOWN, shown
from procpre_interp.core.selectors import parse_selector
from procpre_interp.model.hooked_transformer import HookedTransformer, ModelConfig

PER_HEAD = ("W_Q", "W_K", "W_V", "W_O", "b_Q", "b_K", "b_V")
"""Attention parameters whose first axis is the head."""

PARTS = {
    "ln1": ("w", "b"),
    "attn": (*PER_HEAD, "b_O"),
    "ln2": ("w", "b"),
    "mlp": ("W_in", "b_in", "W_out", "b_out"),
}
"""The parameters of a block."""

KEYS = ("W_in", "b_in")
"""The parameters of an MLP that say what its neurons respond to; the others say what is written."""


@dataclass(frozen=True)
class WeightSlice:
    """A part of a parameter: `tensor[index]` reads it, `tensor[index] = x` writes it."""

    parameter: str
    """Name, as in `named_parameters`."""
    index: tuple[int, ...] = ()
    """`(head,)`, or `()` for all of it."""


class _Atom(NamedTuple):
    """What the map never divides: one head's part of a parameter, or a parameter without heads."""

    parameter: str
    head: int | None


def select(config: ModelConfig, selector: str) -> list[WeightSlice]:
    """The weights that a selector names, in the order of the parameters, none twice.

    Raises:
        ValueError: a term matches nothing (lists what exists, and the closest), or nothing is left over.
    """
    terms = _terms(config)
    chosen: set[_Atom] = set()
    for sign, term in parse_selector(selector):
        if term not in terms:
            raise _unknown_term(config, term, list(terms))
        chosen = chosen - terms[term] if sign == "-" else chosen | terms[term]
    if not chosen:
        raise ValueError(f"selector {shown(selector)} selects nothing: its differences take away all that it adds")
    slices = []
    for parameter in parameter_names(config):
        heads = sorted(atom.head for atom in chosen if atom.parameter == parameter and atom.head is not None)
        if (parameter, None) in chosen or len(heads) == config.n_heads:
            slices.append(WeightSlice(parameter))
        else:
            slices.extend(WeightSlice(parameter, (head,)) for head in heads)
    return slices


def overlap(config: ModelConfig, first: Iterable[WeightSlice], second: Iterable[WeightSlice]) -> str:
    """What two selections share, as a union of terms, the largest first; empty if they share nothing."""
    left = _atoms(config, first) & _atoms(config, second)
    if not left:
        return ""
    terms = [(term, atoms) for term, atoms in _terms(config).items() if atoms <= left]
    chosen = []
    while left:
        term, atoms = max(terms, key=lambda one: (len(one[1] & left), -len(one[0])))
        chosen.append(term)
        left = left - atoms
    return "+".join(chosen)


def flat_mask(model: HookedTransformer, selector: str) -> Bool[Tensor, " n_parameters"]:
    """Which entries of `model.flat` a selector names."""
    masks = {name: torch.zeros(shape, dtype=torch.bool) for name, (_, shape) in model.slices.items()}
    for part in select(model.config, selector):
        masks[part.parameter][part.index] = True
    return torch.cat([mask.flatten() for mask in masks.values()])


def parameter_names(config: ModelConfig) -> list[str]:
    """Every parameter, in the order of `named_parameters`."""
    names = ["embed.W_E", "pos_embed.W_pos"]
    for layer in range(config.n_layers):
        names += [f"blocks.{layer}.{part}.{leaf}" for part, leaves in PARTS.items() for leaf in leaves]
    return [*names, "ln_final.w", "ln_final.b", *([] if config.tied else ["unembed.W_U"])]


def matrix_parameters(config: ModelConfig) -> list[str]:
    """The parameters that weight decay "on matrices only" means: all W_*, embeddings included, as in nanoGPT.

    Biases b_Q, b_K, b_V are stored with an axis for heads, but are vectors.
    """
    return [name for name in parameter_names(config) if name.rpartition(".")[2].startswith("W_")]


def _atoms(config: ModelConfig, slices: Iterable[WeightSlice]) -> set[_Atom]:
    """The selection in pieces that the map never divides, so that a head is found within its whole parameter."""
    atoms = set()
    for piece in slices:
        per_head = piece.parameter.rpartition(".")[2] in PER_HEAD
        heads = piece.index or range(config.n_heads) if per_head else (None,)
        atoms |= {_Atom(piece.parameter, head) for head in heads}
    return atoms


def _terms(config: ModelConfig) -> dict[str, set[_Atom]]:
    """What each term selects."""
    terms: dict[str, set[_Atom]] = {}
    for parameter in parameter_names(config):
        per_head = parameter.rpartition(".")[2] in PER_HEAD
        for head in range(config.n_heads) if per_head else [None]:
            for term in _names(config, parameter, head):
                terms.setdefault(term, set()).add(_Atom(parameter, head))
    return terms


def _names(config: ModelConfig, parameter: str, head: int | None) -> list[str]:
    """Every term that selects this atom."""
    if parameter == "embed.W_E":
        return ["all", "embed", parameter, *(["unembed"] if config.tied else [])]
    if parameter == "pos_embed.W_pos":
        return ["all", "pos", "pos_embed", parameter]
    if parameter == "unembed.W_U":
        return ["all", "unembed", parameter]
    if parameter.startswith("ln_final."):
        return ["all", "ln", "ln_final", parameter]
    _, layer, part, leaf = parameter.split(".")
    places = [part, f"{part}.{leaf}"]
    if part == "mlp":
        places.append("mlp.keys" if leaf in KEYS else "mlp.values")
    if part.startswith("ln"):
        places += ["ln", f"ln.{leaf}"]
    if head is not None:
        places += [f"{part}.head.{head}", f"{part}.head.{head}.{leaf}"]
    return ["all", "blocks", f"blocks.{layer}", *places, *(f"blocks.{layer}.{place}" for place in places)]


def _unknown_term(config: ModelConfig, term: str, terms: list[str]) -> ValueError:
    """All terms would fill a page: the error lists those without a number, and the numbers that there are."""
    close = difflib.get_close_matches(term[:SHOWN], terms, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    short = [name for name in terms if "." not in name]
    named = {**PARTS, "mlp": (*PARTS["mlp"], "keys", "values")}
    parts = ", ".join(f"{part} ({' '.join(leaves)})" for part, leaves in named.items())
    return ValueError(
        f"unknown component {shown(term)}.{hint} There are: {', '.join(sorted(short))}; blocks.L for L in "
        f"0..{config.n_layers - 1}, and after blocks.L. or alone: {parts}; attn.head.H for H in "
        f"0..{config.n_heads - 1}"
    )
