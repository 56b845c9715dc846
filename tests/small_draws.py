"""Draws as small as runs of a few steps need: the suite's own runs, and, as their main module, those of its workers.

A run draws a million training tokens at once, as many of either held-out split, of which it keeps a sixteenth, and
tests on 4000 examples: two seconds, for four steps that take a tenth of one. The code that draws is the same.
"""

from procpre_interp.data import stream
from procpre_interp.pipeline import execute

LARGE = stream.BLOCK_TOKENS, execute.TEST_EXAMPLES
"""As users have them."""
SMALL = 2**14, 200


def set_draws(block_tokens: int, test_examples: int) -> None:
    stream.BLOCK_TOKENS, execute.TEST_EXAMPLES = block_tokens, test_examples


if __name__ == "__mp_main__":
    set_draws(*SMALL)
