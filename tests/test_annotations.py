"""The suite's own check of annotations: what it lets through, and that it checks the axes of arrays."""

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from beartype import beartype
from jaxtyping import Float
from torch import Tensor

from procpre_interp.core.seeding import stream
from procpre_interp.stats.betting import lower_bounds
from tests.annotations import checked

check = checked(typechecker=beartype)


@check
def plain(n: int, names: list[str]) -> str:
    return names[n] if n >= 0 else None  # pyright: ignore[reportReturnType]


@check
def paired(a: Float[Tensor, "row column"], b: Float[Tensor, "column"]) -> Float[Tensor, "row"]:
    return a @ b if a.shape[0] > 1 else b


@check
def inside(found: dict[str, Float[Tensor, "row"] | None], rows: Float[Tensor, "row"]) -> None:
    return


@check
def called(fn: Callable[[Float[Tensor, "row"]], int]) -> None:
    return


@check
def later(n: "Later") -> None:
    return


@check
def counted(n: int) -> Iterator[int]:
    yield n


@check
@dataclasses.dataclass(frozen=True, slots=True)
class Plain:
    n: int

    @property
    @check
    def negative(self) -> str:
        return -self.n  # pyright: ignore[reportReturnType]


@check
@dataclasses.dataclass(frozen=True)
class Child(Plain):
    name: str = ""


@check
@dataclasses.dataclass
class WithArrays:
    a: Float[Tensor, "row"]
    b: Float[Tensor, "row"]


class Later:
    pass


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: plain("0", ["a"]),
        lambda: plain(0, [1]),
        lambda: plain(-1, ["a"]),
        lambda: paired(torch.ones(2, 3), torch.ones(2)),
        lambda: paired(torch.ones(1, 3), torch.ones(3)),
        lambda: paired(torch.ones(2, 3), [1.0]),
        lambda: inside({"a": torch.ones(2)}, torch.ones(3)),
        lambda: Plain("1"),
        lambda: Plain(1).negative,
        lambda: Child(1, 2),
        lambda: Child("1", "a"),
        lambda: WithArrays(torch.ones(2), torch.ones(3)),
        # And of the package itself, whose modules the hook decorates.
        lambda: stream("0", "a"),
        lambda: lower_bounds(np.ones((2, 3)), 0.05),
    ],
)
def test_what_does_not_fit_is_refused(wrong):
    with pytest.raises(TypeError, match="violates|Type-check error"):
        wrong()


def test_what_fits_is_let_through():
    assert plain(0, ["a"]) == "a"
    assert paired(torch.ones(2, 3), torch.ones(3)).shape == (2,)
    inside({"a": torch.ones(3), "b": None}, torch.ones(3))
    called(len)
    later(Later())
    assert list(counted(2)) == [2]
    assert Child(1, "a").n == 1
    assert WithArrays(torch.ones(2), torch.ones(2)).a.shape == (2,)
