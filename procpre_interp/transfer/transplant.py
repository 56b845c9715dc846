"""Transfer: a fresh model's weights with chosen components replaced by those of one or several parents."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from procpre_interp.core.selectors import NOTHING
from procpre_interp.model import ModelConfig, Weights, WeightSlice, overlap, select
from procpre_interp.transfer.embedding import EmbeddingStrategy, transfer_positions, transfer_rows
from procpre_interp.transfer.reshape import LayerStrategy, WidthStrategy, reshaped

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
    positions_parent: int | None = None
    """Which parent gives positions, counted from 0. Default: that of the embeddings."""
    overlap: Literal["refuse", "later_wins"] = "refuse"
    """Weights that the selectors of several parents share: refused, or the later parent's stand."""
    layers: LayerStrategy = "same"
    """Which layers of a parent with another number of them become which of the model: see `transfer.LAYERS`."""
    width: WidthStrategy = "same"
    """How a narrower parent becomes as wide as the model: see `transfer.WIDTHS`."""

    @property
    def giver_of_positions(self) -> int:
        """Which parent gives positions, counted from 0."""
        return self.embedding_parent if self.positions_parent is None else self.positions_parent


@dataclass(frozen=True, slots=True)
class Donor:
    """A parent's weights, and which of its components are taken."""

    weights: Weights
    config: ModelConfig
    selector: str


def transplant(
    fresh: Weights, config: ModelConfig, donors: Sequence[Donor], transfer: TransferConfig, *, stored: bool = False
) -> Weights:
    """New weights for a model of `config`: the fresh ones, with each donor's selected components in their place.

    Token embeddings, unembedding and positions follow `transfer` and never the selectors: `all` means every other
    weight, and `none` no other. Transferring everything with `retain` and `carry` to a model of the same shape gives
    the donor itself.

    Donors of another shape are brought into the model's first, where `transfer` says how, and selectors then speak of
    the model's layers and heads.

    Raises `ValueError` when a selector takes nothing but embeddings, selectors overlap and no order was asked for, a
    donor's weights do not fit, or it lacks layers that its selector speaks of. A `stored` transfer is made again as it
    was: of overlapping selectors the later stands, and what a donor lacks stays fresh.
    """
    weights = {name: tensor.clone() for name, tensor in fresh.items()}
    if (transfer.layers, transfer.width) != ("same", "same"):
        donors = [_reshaped(donor, fresh, config, transfer) for donor in donors]
    named = [components(donor.config, donor.selector) for donor in donors]
    given = [[piece for piece in pieces if piece.parameter in donor.weights] for donor, pieces in zip(donors, named)]
    for donor, pieces in zip(donors, given):
        _check_fit(weights, donor.weights, pieces)
        if pieces and donor.config.ln_eps != config.ln_eps:
            raise ValueError(
                f"LayerNorm adds ln_eps={donor.config.ln_eps:g} in the parent and {config.ln_eps:g} in the model, "
                "where the same weights would compute something else"
            )
        if transfer.layers == "same" and not stored:
            _check_depth(donor, pieces, config)
    if transfer.overlap == "refuse" and not stored:
        refuse_overlaps(config, {f"parent {i} ({donor.selector})": given[i] for i, donor in enumerate(donors)})
    taken: set[str] = set()
    for donor, pieces in zip(donors, named):
        for piece in pieces:
            if piece.parameter in donor.weights:
                weights[piece.parameter][piece.index] = donor.weights[piece.parameter][piece.index]
            elif piece.parameter in taken:  # a layer that the donor has not, and an earlier one gave
                if not stored:
                    raise ValueError(
                        f"selector {donor.selector!r} speaks of {piece.parameter}, which its parent of "
                        "fewer layers has not and another parent gives; select the layers that it has"
                    )
                weights[piece.parameter][piece.index] = fresh[piece.parameter][piece.index]
        taken |= {piece.parameter for piece in pieces}
    if donors and transfer.width != "corner":  # whose embeddings are fresh
        _transfer_embeddings(weights, config, donors, transfer)
    return weights


def _reshaped(donor: Donor, fresh: Weights, config: ModelConfig, transfer: TransferConfig) -> Donor:
    strategies = (transfer.token_embedding, transfer.unembedding, transfer.positions)
    if transfer.width == "corner" and strategies != ("fresh", "fresh", "fresh"):
        raise ValueError(
            "width=corner has no embeddings of the model's width: set token_embedding, unembedding and positions to "
            "fresh"
        )
    weights, shape = reshaped(donor.weights, donor.config, fresh, config, layers=transfer.layers, width=transfer.width)
    return Donor(weights, shape, donor.selector)


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
                "give both the same n_layers, n_heads, d_model and d_mlp, say with the transfer's layers and width how "
                "one becomes the other, or select other components"
            )


def _check_depth(donor: Donor, pieces: Sequence[WeightSlice], config: ModelConfig) -> None:
    """Raise `ValueError` where a selector speaks of layers that the model has and the parent has not."""
    given = {piece.parameter for piece in pieces}
    lacking = [piece.parameter for piece in components(config, donor.selector) if piece.parameter not in given]
    if lacking:
        raise ValueError(
            f"selector {donor.selector!r} takes {lacking[0]} in the model, and the parent has {donor.config.n_layers} "
            f"layers: say which layers become which with the transfer's layers (first leaves the others fresh), or "
            "select layers that both have"
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
    for name, giver in (
        ("embedding_parent", transfer.embedding_parent),
        ("positions_parent", transfer.giver_of_positions),
    ):
        if not 0 <= giver < len(donors):
            raise ValueError(f"{name}={giver}; there are {len(donors)} parents, counted from 0")
    donor, of_positions = donors[transfer.embedding_parent], donors[transfer.giver_of_positions]
    parent_rows = donor.weights["embed.W_E"]
    # A tied parent has one matrix for both; the paper's parents all are.
    parent_columns = parent_rows if donor.config.tied else donor.weights["unembed.W_U"].T
    widths = donor.config.d_model, of_positions.config.d_model
    if widths != (config.d_model, config.d_model):
        if (transfer.token_embedding, transfer.unembedding, transfer.positions) == (
            "fresh",
            "fresh",
            "fresh",
        ):
            return
        width = next(width for width in widths if width != config.d_model)
        raise ValueError(f"d_model is {width} in the parent and {config.d_model} in the model")
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
        weights["pos_embed.W_pos"] = transfer_positions(
            weights["pos_embed.W_pos"], of_positions.weights["pos_embed.W_pos"]
        )


def positions_carried(config: ModelConfig, donors: Sequence[Donor], transfer: TransferConfig) -> bool:
    """Whether position embeddings came from a parent; where its context is too short, `carry` cannot."""
    return (
        bool(donors)
        and transfer.positions == "carry"
        and donors[transfer.giver_of_positions].config.n_ctx >= config.n_ctx
    )
