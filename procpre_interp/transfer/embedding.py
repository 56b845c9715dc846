"""What becomes of embeddings when the vocabulary changes between the phases."""

from typing import Literal

from jaxtyping import Float
from torch import Tensor

EmbeddingStrategy = Literal["fresh", "average", "partial", "retain"]


def transfer_rows(
    fresh: Float[Tensor, "rows d_model"],
    parent: Float[Tensor, "parent_rows d_model"],
    strategy: EmbeddingStrategy,
) -> Float[Tensor, "rows d_model"]:
    """One row per token id, made of the fresh rows and the parent's.

    - `fresh`: the fresh rows; nothing carries over.
    - `average`: every row is the mean row of the parent. Source: P1, released code ("everything" transfer).
    - `partial`: ids that both vocabularies have keep the parent's row, the others are fresh.
    - `retain`: the parent's rows. Raises `ValueError` unless both vocabularies are of one size.
    """
    if strategy == "fresh":
        return fresh.clone()
    if strategy == "average":
        return parent.mean(0).expand_as(fresh).clone()
    shared = min(len(fresh), len(parent))
    if strategy == "retain" and len(fresh) != len(parent):
        raise ValueError(
            f"retain keeps every embedding, but the parent has {len(parent)} token ids and the model {len(fresh)}; "
            "use partial, average or fresh"
        )
    rows = fresh.clone()
    rows[:shared] = parent[:shared]
    return rows


def transfer_positions(
    fresh: Float[Tensor, "n_ctx d_model"], parent: Float[Tensor, "parent_n_ctx d_model"]
) -> Float[Tensor, "n_ctx d_model"]:
    """The parent's first n_ctx position embeddings, or the fresh ones where the parent's context is shorter.

    Source: P1, released code. That half-way case is why haystack gets positions from Dyck (128) but not from set (41).
    """
    return (parent[: len(fresh)] if len(parent) >= len(fresh) else fresh).clone()
