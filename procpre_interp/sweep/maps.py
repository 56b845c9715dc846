"""Transfer maps of a sweep: the players whose coalitions are transferred, and their weights."""

import dataclasses
import itertools
from dataclasses import dataclass
from typing import get_args

from procpre_interp.core.selectors import GOVERNED, added_terms, name_heads, orders_of, removed_terms, with_all_heads
from procpre_interp.model import ModelConfig, WeightSlice, overlap, select
from procpre_interp.pipeline.config import Architecture
from procpre_interp.stats.coalitions import MAX_EXACT_PLAYERS, Method, Sampling, selector_grid
from procpre_interp.transfer import TransferConfig, components

GOVERNED_PLAYERS = {"pos": "pos", "embed": "embed + unembed"}
"""Players that stand for what the transfer options govern, and the selectors of their weights."""

FRESH_EMBEDDINGS = TransferConfig(token_embedding="fresh", unembedding="fresh", positions="carry")
"""Fresh token embeddings and carried positions."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Map:
    """A transfer map: conditions for all coalitions of players that its methods need."""

    phase1: str
    """Name of the pretraining."""
    players: tuple[str, ...] = ()
    """Selectors such as attn, blocks.1 or blocks.0.attn.head.2, and `pos` and `embed` for what `transfer` governs."""
    grain: str | None = None
    """All players of a grain, instead of naming them (component, layer, layer_component, head, key_value, matrix,
    head_matrix)."""
    methods: tuple[Method, ...] = ("add_one_in", "leave_one_out", "shapley")
    """What is computed from them."""
    given: str = ""
    """Selector of components that every coalition has, the empty one as well. Default: no components."""
    transfer: TransferConfig | None = None
    """Embeddings and positions, as far as they are no players. Default: averaged and carried; with the players of a
    grain finer than components fresh and carried, the treatment under which attention and LN transfer best."""
    n_orders: int = 4
    """Sampled orders per replicate, where there are too many players for exact values. With `interactions` a multiple
    of half the players (rounded up)."""
    exact_up_to: int = MAX_EXACT_PLAYERS
    """Players up to which all 2^n coalitions are computed, so that values and interactions are exact."""
    interactions: bool = False
    """Compute Shapley's interaction index of all pairs of players as well. Sampled orders are
    balanced then, which takes about a quarter more coalitions; exact maps have what it needs anyway."""

    def __post_init__(self) -> None:
        if not self.methods:
            raise ValueError(f"methods=[]; give one or more of {', '.join(get_args(Method))}")
        if bool(self.players) == (self.grain is not None):
            raise ValueError(f"players={list(self.players)}, grain={self.grain}; give a map the one or the other")
        for player in self.players:
            terms = added_terms(player)
            if removed_terms(player) or terms & {*GOVERNED, *(GOVERNED_PLAYERS if len(terms) > 1 else ())}:
                raise ValueError(
                    f"player {player!r}: a player is a union of components, or pos or embed alone; differences would "
                    "take away other players' weights too, and embeddings follow the transfer options"
                )

        if self.exact_up_to < 1:
            raise ValueError(f"exact_up_to={self.exact_up_to}; a map has at least 1 player")

    @property
    def treatment(self) -> TransferConfig:
        """What happens to embeddings and positions that are no players."""
        if self.transfer is not None:
            return self.transfer
        return TransferConfig() if self.grain in (None, "component") else FRESH_EMBEDDINGS

    @property
    def sampling(self) -> Sampling:
        """Which coalitions it is made of."""
        return Sampling(n_orders=self.n_orders, exact_up_to=self.exact_up_to, interactions=self.interactions)

    def filled(self, shape: Architecture) -> "Map":
        """The map with the players of its grain, for models of this shape."""
        if self.grain is None:
            return self
        players = selector_grid(self.grain, shape.n_layers, shape.n_heads)
        return dataclasses.replace(self, players=tuple(players), grain=None, transfer=self.treatment)

    def refuse_overlaps(self, shape: Architecture) -> None:
        """Raise `ValueError` where players share weights, or have some that are given to every coalition anyway.

        Such a player changes nothing beside its twin: left out alone it has no effect, and Shapley values are halved.
        """
        config = selector_config(shape)
        named = [(f"player {player!r}", player) for player in self.players]
        named += [(f"given {self.given!r}", self.given)] if self.given else []
        try:
            weights = {same: {part: player_weights(config, part, same) for _, part in named} for same in (True, False)}
        except ValueError:  # a player that the model does not have: its cells fail and say so, the others go on
            return
        for (first, one), (second, two) in itertools.combinations(named, 2):
            pieces = weights[orders_of(one) == orders_of(two)]
            if shared := overlap(config, pieces[one], pieces[two]):
                raise ValueError(f"players overlap: {first} and {second} both have {shared}; give it to one of them")


def selector_config(shape: Architecture) -> ModelConfig:
    """The part of a model's config that selectors depend on; context and vocabulary are the task's."""
    return ModelConfig(
        n_layers=shape.n_layers, n_heads=shape.n_heads, d_model=shape.d_model, n_ctx=1, d_vocab=1, tied=shape.tied
    )


def player_weights(config: ModelConfig, player: str, one_order: bool) -> list[WeightSlice]:
    """The weights of a player. Its ranked heads are those of any one order, or, beside others, may be all."""
    if player in GOVERNED_PLAYERS:
        return select(config, GOVERNED_PLAYERS[player])
    heads = selector_grid("head", config.n_layers, config.n_heads)
    return components(config, name_heads(player, lambda order: heads) if one_order else with_all_heads(player))
