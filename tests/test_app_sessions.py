"""Browsers that look into one run's model at the same time: each is shown what it would be shown alone."""

import time
from collections.abc import Iterator

import pytest

from tests.sessions import explorer, forget_results, look, look_at_once

LOOKS = {
    "where_does_attention_look": lambda number: {"example": str(number), "all_heads": "true"},
    "which_circuit": lambda number: {"pair": str(number % 64), "site": ("z", "q", "resid_pre")[number % 3]},
}
"""Pages that hook the demo's model, and what a session with a number asks of them."""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An explorer on an empty store, which shows the demo."""
    with explorer(tmp_path_factory.mktemp("empty") / "runs") as running:
        yield running


@pytest.mark.parametrize(
    ("n", "pages"), [(4, ["where_does_attention_look"]), pytest.param(100, list(LOOKS), marks=pytest.mark.slow)]
)
def test_sessions_on_one_run(address: str, n: int, pages: list[str], capsys: pytest.CaptureFixture[str]):
    asked = [(page, LOOKS[page](number)) for number in range(n // len(pages)) for page in pages]
    for page in pages:  # so that no session waits for the imports
        look(address, page, {})
    forget_results(address)
    started = time.monotonic()
    together = look_at_once(address, asked)
    seconds = time.monotonic() - started
    forget_results(address)
    alone = [look(address, *each) for each in asked]
    problems = [found.problems for found in together if found.problems]
    wrong = [each for each, found, expected in zip(asked, together, alone) if found.figures != expected.figures]
    with capsys.disabled():
        print(f"\n{n} sessions, {seconds:.0f} s: {len(problems)} with an error, {len(wrong)} with a wrong figure")
    assert (problems, wrong) == ([], [])
    assert all(len(page.figures) == 2 and not page.problems for page in alone)
