"""The grammar of selectors: the one place that reads and writes them. Text only: no torch, no model.

A selector joins terms with `+` or `,` (union) and `-` (difference), from left to right: `attn + mlp - blocks.0`. What a
term means for a model's weights is in `model/components.py`; here it is a name with a place in the model:

    blocks.1.attn.head.2.W_V    layer 1, component attn, head 2, matrix W_V    (each part may be left out)
    sharpest.4, circuit.2       ranked heads: the first K in an order that is measured on a parent
    random_like.circuit.2       K heads by lot, with as many in each layer as circuit.2 has there
    none                        no component at all: embeddings and positions alone

Transfer, freezing, ablations, sweeps, transfer maps, diagnosis and figures all read selectors through this module. It
is in `core` since half of these read stored tables only, and must open them without torch.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, NamedTuple

from procpre_interp.core.messages import shown

NOTHING = "none"
"""Selector of a parent that gives no component: embeddings and positions alone, as `TransferConfig` says."""

GOVERNED = ("pos_embed", "unembed", "embed.W_E", "pos_embed.W_pos", "unembed.W_U")
"""Selectors of what the transfer options govern, under other names than the players `pos` and `embed`."""

_COMPONENTS = ("all", "embed", "pos", "blocks", "attn", "mlp", "ln", "ln1", "ln2", "ln_final", "unembed")
_MATRICES = ("W_Q", "W_K", "W_V", "W_O", "b_Q", "b_K", "b_V", "b_O", "W_in", "b_in", "W_out", "b_out", "w", "b")
"""The order of terms in a canonical selector: that in which the runs of the bundled claims have theirs."""


class Term(NamedTuple):
    """One term of a selector, with the sign before it."""

    sign: Literal["+", "-"]
    name: str


def parse_selector(selector: str) -> list[Term]:
    """The terms from left to right. Raises `ValueError` where one is missing before or after a sign."""
    first, *rest = re.split(r"([+,-])", selector)
    pairs = [("+", first), *zip(rest[::2], rest[1::2])]
    terms = [Term("-" if sign == "-" else "+", name.strip()) for sign, name in pairs]
    if not all(term.name for term in terms):
        raise ValueError(
            f"selector {shown(selector)} lacks a term before or after a sign; write for example 'all - pos'"
        )
    return terms


def canonical_selector(selector: str) -> str:
    """The one spelling of a selector, so that `attn+ln`, `ln, attn` and `ln+attn` name one run.

    Without white space, unions as `+`, no term twice, and in a fixed order: terms of all layers first, by component and
    matrix; then those of one layer, by name. With a difference in it, order means something, and stays.
    """
    terms = parse_selector(selector)
    if any(term.sign == "-" for term in terms):
        return "".join(sign + name for sign, name in terms).removeprefix("+")
    return union(sorted({term.name for term in terms}, key=_rank))


def union(names: Iterable[str]) -> str:
    """The selector of all these terms, in this order; `none` where there are none."""
    return "+".join(names) or NOTHING


def added_terms(selector: str) -> set[str]:
    """Names of the terms that a selector adds, without those that it takes away."""
    return {term.name for term in parse_selector(selector) if term.sign == "+"}


def removed_terms(selector: str) -> set[str]:
    """Names of the terms that a selector takes away."""
    return {term.name for term in parse_selector(selector) if term.sign == "-"}


def _rank(name: str) -> tuple[bool, int, int, str]:
    component, _, rest = name.partition(".")
    layered = component == "blocks" and rest != ""
    known = 0 if layered else _index(_COMPONENTS, component)
    return layered, known, 0 if layered else _index(_MATRICES, rest), name


def _index(names: Sequence[str], name: str) -> int:
    return names.index(name) if name in names else len(names)


# ---- Places ----------------------------------------------------------------------------------------------------------


class Place(NamedTuple):
    """Where in the model a term is; None where its name does not say."""

    layer: int | None = None
    component: str | None = None
    head: int | None = None
    matrix: str | None = None


_PLACE = re.compile(
    r"(?:blocks\.(?P<layer>\d{1,9})(?:\.|$))?(?P<component>[a-z]\w*)?(?:\.head\.(?P<head>\d{1,9}))?(?:\.(?P<matrix>\w+))?"
)


def place(term: str) -> Place:
    """Layer, component, head and matrix that one term names; all None for a union or difference.

    A reader's letter counts as its matrix: `blocks.1.attn.head.2.q` has the matrix `q`.
    """
    found = _PLACE.fullmatch(term.strip())
    if found is None:
        return Place()
    layer, component, head, matrix = found.group("layer", "component", "head", "matrix")
    return Place(
        layer=None if layer is None else int(layer),
        component="pos" if component == "pos_embed" else component,
        head=None if head is None else int(head),
        matrix=matrix,
    )


def head_term(layer: int, head: int) -> str:
    """The term of one head."""
    return f"blocks.{layer}.attn.head.{head}"


def head_terms(n_layers: int, n_heads: int) -> list[str]:
    """The terms of all heads of a model, layer by layer."""
    return [head_term(layer, head) for layer in range(n_layers) for head in range(n_heads)]


# ---- Ranked heads ----------------------------------------------------------------------------------------------------

Order = Literal["entropy", "circuit", "random"]

RANKED: dict[str, tuple[Order, Literal[1, -1]]] = {
    "sharpest": ("entropy", 1),
    "bluntest": ("entropy", -1),
    "circuit": ("circuit", 1),
    "weakest": ("circuit", -1),
    "random": ("random", 1),
}
"""First word of a term such as `sharpest.4` -> the order of the heads, and the end from which K are taken."""

_MEASURED = [word for word, (order, _) in RANKED.items() if order != "random"]
_RANKED = re.compile(
    rf"(?:(?P<like>random_like)\.(?P<matched>{'|'.join(_MEASURED)})|(?P<word>{'|'.join(RANKED)}))\.(?P<k>\d{{1,9}})"
)


class Ranked(NamedTuple):
    """A term of ranked heads."""

    word: str
    """Key in `RANKED`."""
    k: int
    """Number of heads."""
    like: bool
    """Whether it stands for heads by lot with the layers of those, instead of those themselves."""

    @property
    def order(self) -> str:
        """The order that its heads are the first K of: one of `Order` or, with `like`, one that is its own."""
        return f"random_like.{self.word}.{self.k}" if self.like else RANKED[self.word][0]


def ranked_term(name: str) -> Ranked | None:
    """The ranked heads that a term, or the name of an order of its own, stands for; None for any other."""
    found = _RANKED.fullmatch(name)
    if found is None:
        return None
    return Ranked(found["matched"] or found["word"], int(found["k"]), found["like"] is not None)


def orders_of(selector: str) -> set[str]:
    """The orders of heads that a selector asks for: entropy, circuit, random, random_like.circuit.2."""
    found = [ranked_term(term.name) for term in parse_selector(selector)]
    return {term.order for term in found if term is not None}


def name_heads(selector: str, order_of: Callable[[str], Sequence[str]]) -> str:
    """The selector with its ranked terms replaced by the names of these heads; `order_of` gives an order by its name.

    Raises `ValueError` unless K is at least 1 and at most the number of heads, or where such a term is subtracted,
    which a list of names cannot say.
    """
    if not orders_of(selector):
        return selector
    parts = []
    for sign, name in parse_selector(selector):
        found = ranked_term(name)
        if found is None:
            parts.append(sign + name)
            continue
        end = 1 if found.like else RANKED[found.word][1]
        order = list(order_of(found.order))[::end]
        if not 1 <= found.k <= len(order):
            raise ValueError(f"{name}: there are {len(order)} heads; give a number from 1 to {len(order)}")
        if sign == "-":
            raise ValueError(f"selector {shown(selector)} takes {name} away; add the heads that are to stay instead")
        parts.append("+" + "+".join(sorted(order[: found.k])))
    return "".join(parts).removeprefix("+")


def with_all_heads(selector: str) -> str:
    """The selector with `attn` in place of its ranked terms: whatever heads these may turn out to name."""
    names = (("attn" if ranked_term(name) else name, sign) for sign, name in parse_selector(selector))
    return "".join(sign + name for name, sign in names).removeprefix("+")
