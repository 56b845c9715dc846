"""Transfer: a fresh model's weights with chosen components replaced by those of one or several parents."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from procpre_interp.core.selectors import NOTHING
from procpre_interp.model import ModelConfig, Weights, WeightSlice, overlap, select
from procpre_interp.transfer.embedding import EmbeddingStrategy, transfer_positions, transfer_rows

EMBEDDINGS = "embed + pos + unembed"
"""What the strategies of `TransferConfig` govern, and selectors therefore do not."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TransferConfig:
    """What happens to embeddings and positions: factors of their own, whatever components are transferred."""

    version = 1

    token_embedding: EmbeddingStrategy = "average"
    """Rows of W_E. Commands make these, and W_U's columns, fresh for new runs on text, unless one is asked for."""
    unembedding: EmbeddingStrategy = "average"
    """Columns of W_U. A tied model has none of its own, so there it must equal `token_embedding`."""
    positions: Literal["carry", "fresh"] = "carry"
    """Rows of W_pos: the parent's when its context is long enough, or fresh."""
    embedding_parent: int = 0
    """Which parent gives embeddings and positions, counted from 0."""
    overlap: Literal["refuse", "later_wins"] = "refuse"
    """Weights that the selectors of several parents share: refused, or the later parent's stand."""


@dataclass(frozen=True, slots=True)
class Donor:
    """A parent's weights, and which of its components are taken."""

    weights: Weights
    config: ModelConfig
    selector: str


def transplant(fresh: Weights, config: ModelConfig, donors: Sequence[Donor], transfer: TransferConfig) -> Weights:
    """New weights for a model of `config`: the fresh ones, with each donor's selected components in their place.

    Token embeddings, unembedding and positions follow `transfer` and never the selectors: `all` means every other
    weight, and `none` no other. Transferring everything with `retain` and `carry` to a model of the same shape gives
    the donor itself.

    Raises `ValueError` when a selector takes nothing but embeddings, selectors overlap and no order was asked for, or a
    donor's weights do not fit.
    """
    weights = {name: tensor.clone() for name, tensor in fresh.items()}
    given = [components(donor.config, donor.selector) for donor in donors]
    for donor, pieces in zip(donors, given):
        _check_fit(weights, donor.weights, pieces)
        if pieces and donor.config.ln_eps != config.ln_eps:
            raise ValueError(
                f"LayerNorm adds ln_eps={donor.config.ln_eps:g} in the parent and {config.ln_eps:g} in the model, "
                "where the same weights would compute something else"
            )
    if transfer.overlap == "refuse":
        refuse_overlaps(config, {f"parent {i} ({donor.selector})": given[i] for i, donor in enumerate(donors)})
    for donor, pieces in zip(donors, given):
        for piece in pieces:
            weights[piece.parameter][piece.index] = donor.weights[piece.parameter][piece.index]
    if donors:
        _transfer_embeddings(weights, config, donors, transfer)
    return weights


def components(config: ModelConfig, selector: str) -> list[WeightSlice]:
    """What a parent of this shape gives by its selector: never embeddings, positions and unembedding.

    Raises `ValueError` for a selector of nothing else.
    """
    if selector == NOTHING:
        return []
    governed = {piece.parameter for piece in select(config, EMBEDDINGS)}
    pieces = [piece for piece in select(config, selector) if piece.parameter not in governed]
    if not pieces:
        raise ValueError(
            f"selector {selector!r} takes nothing but embeddings, which follow token_embedding, unembedding "
            f"and positions; select components such as attn, mlp, ln or all, or {NOTHING!r} for embeddings alone"
        )
    return pieces


def _check_fit(weights: Weights, parent: Weights, pieces: Sequence[WeightSlice]) -> None:
    """Raise `ValueError` where what a parent gives has no place in the model."""
    for piece in pieces:
        source, target = parent[piece.parameter], weights.get(piece.parameter)
        if target is None or target.shape != source.shape:
            here = "missing" if target is None else f"of shape {tuple(target.shape)}"
            raise ValueError(
                f"{piece.parameter} is of shape {tuple(source.shape)} in the parent and {here} in the model; "
                "give both the same n_layers, n_heads, d_model and d_mlp, or select other components"
            )


def refuse_overlaps(config: ModelConfig, given: Mapping[str, Sequence[WeightSlice]]) -> None:
    """Raise `ValueError` where two of those that give weights give the same; the mapping is from their names."""
    for (first, pieces), (second, others) in itertools.combinations(given.items(), 2):
        if shared := overlap(config, pieces, others):
            raise ValueError(
                f"{first} and {second} both give {shared}; take it out of one of the selectors, or, to let the later "
                "parent's stand, set the transfer's overlap to later_wins"
            )


def _transfer_embeddings(
    weights: Weights, config: ModelConfig, donors: Sequence[Donor], transfer: TransferConfig
) -> None:
    if not 0 <= transfer.embedding_parent < len(donors):
        raise ValueError(
            f"embedding_parent={transfer.embedding_parent}; there are {len(donors)} parents, counted from 0"
        )
    donor = donors[transfer.embedding_parent]
    parent_rows = donor.weights["embed.W_E"]
    # A tied parent has one matrix for both; the paper's parents all are.
    parent_columns = parent_rows if donor.config.tied else donor.weights["unembed.W_U"].T
    if donor.config.d_model != config.d_model:
        if (transfer.token_embedding, transfer.unembedding, transfer.positions) == (
            "fresh",
            "fresh",
            "fresh",
        ):
            return
        raise ValueError(f"d_model is {donor.config.d_model} in the parent and {config.d_model} in the model")
    weights["embed.W_E"] = transfer_rows(weights["embed.W_E"], parent_rows, transfer.token_embedding)
    if not config.tied:
        columns = transfer_rows(weights["unembed.W_U"].T, parent_columns, transfer.unembedding)
        weights["unembed.W_U"] = columns.T.contiguous()
    elif transfer.unembedding != transfer.token_embedding:
        raise ValueError(
            f"a tied model has one embedding: token_embedding={transfer.token_embedding} and "
            f"unembedding={transfer.unembedding} must be equal"
        )
    if transfer.positions == "carry":
        weights["pos_embed.W_pos"] = transfer_positions(weights["pos_embed.W_pos"], donor.weights["pos_embed.W_pos"])


def positions_carried(config: ModelConfig, donors: Sequence[Donor], transfer: TransferConfig) -> bool:
    """Whether position embeddings came from a parent; where its context is too short, `carry` cannot."""
    return (
        bool(donors)
        and transfer.positions == "carry"
        and donors[transfer.embedding_parent].config.n_ctx >= config.n_ctx
    )
