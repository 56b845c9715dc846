"""Documents of two lines as questions with answers: what a corpus of mathematics holds, to be answered one by one.

<|endoftext|>What is 3 + 4?\\n7<|endoftext|>
"""

import numpy as np
import torch
from torch import Generator

from procpre_interp.data.task import Batch, Split
from procpre_interp.data.token_file import TokenFile


class NoQuestions(ValueError):
    """Text without questions that fit."""


def question_batch(token_file: TokenFile, longest: int, n: int, split: Split, *, generator: Generator) -> Batch:
    """`n` documents of two lines, drawn with repetition, each behind the end of a document as in the text itself.

    The first line is the prompt, its end included; what is scored is the second line and its end, so that an answer
    that goes on is wrong. Documents of more or fewer lines, and those of more than `longest` tokens, are left out.
    Raises `NoQuestions` where none is left.
    """
    stream, tokenizer = token_file.tokens(split), token_file.tokenizer()
    (line_end,) = tokenizer.encode(["\n"])[0].tolist()
    end = tokenizer.end_of_document
    # Ids of the whole split are compared once; no document is copied but those that are drawn.
    ends, breaks = np.flatnonzero(stream == end), np.flatnonzero(stream == line_end)
    starts = np.concatenate([[0], ends[:-1] + 1])
    first = np.searchsorted(breaks, starts)
    n_breaks = np.searchsorted(breaks, ends) - first
    at = breaks[np.minimum(first, max(0, len(breaks) - 1))] if len(breaks) else np.zeros_like(starts)
    has_answer = (n_breaks == 1) & (at > starts) & (at < ends - 1)
    kept = np.flatnonzero(has_answer & (ends - starts + 2 <= longest))
    if not len(kept):
        raise NoQuestions(
            f"no document of the {split} split is a question and, on the next line, its answer, "
            f"of at most {longest} tokens in all"
        )
    drawn = kept[torch.randint(len(kept), (n,), generator=generator).numpy()]
    lengths = torch.from_numpy(ends[drawn] - starts[drawn] + 2)
    width = int(lengths.amax()) if n else 2
    # The end of the document before is the token before the start; the first document has none, and is given one.
    places = starts[drawn, None] - 1 + np.arange(width)
    tokens = torch.from_numpy(stream[places.clip(0, len(stream) - 1)].astype(np.int64))
    tokens[torch.arange(width) >= lengths[:, None]] = end
    tokens[:, 0] = end
    return Batch.from_sequences(tokens, lengths, torch.from_numpy(at[drawn] - starts[drawn] + 1), pad=end)
