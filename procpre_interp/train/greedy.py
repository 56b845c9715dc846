"""Whole answers by greedy decoding: the model reads what it wrote itself, as it does when it is used."""

from dataclasses import dataclass

import pandas as pd
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from procpre_interp.core.seeding import stream
from procpre_interp.data.task import Batch, Split, Task
from procpre_interp.model import HookedTransformer, torch_defaults
from procpre_interp.model.hits import hits
from procpre_interp.train.evaluate import EVALUATION_TOKENS

QUESTIONS = 500
"""How many questions a trained model is asked."""
NOTHING = -1
"""Where a row has no token."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """What a model wrote after each prompt."""

    tokens: Int[Tensor, "batch n"]
    """The likeliest token each time, of equally likely ones the lowest id; `NOTHING` behind the end of a row's own."""
    clear: Bool[Tensor, "batch n"]
    """Whether no other token was as likely."""


@torch_defaults()
@torch.no_grad()
def decode_greedily(
    model: HookedTransformer,
    prompts: Int[Tensor, "batch pos"],
    lengths: Int[Tensor, " batch"],
    n_written: Int[Tensor, " batch"],
) -> Decoded:
    """The `n_written` tokens with which the model goes on after the first `lengths` tokens of each row.

    Prompts are padded on the right with any ids: no token sees a later one and positions count from the first token, so
    each row is decoded as if it stood alone, and what is written overwrites the padding.

    Raises:
        ValueError: a prompt is empty, or its answer would go beyond the context.
    """
    if (lengths < 1).any():
        raise ValueError("an empty prompt; there must be a first token")
    # The last token is written and never read, so it needs no position.
    if (beyond := lengths + n_written - 1 > (n_ctx := model.config.n_ctx)).any():
        row = int(beyond.int().argmax())
        raise ValueError(f"{n_written[row]} tokens after {lengths[row]}; n_ctx={n_ctx} has no more positions")
    device, longest = model.flat.device, int(n_written.amax()) if len(lengths) else 0
    lengths, n_written = lengths.to(device), n_written.to(device)
    tokens = torch.cat([prompts.to(device), prompts.new_zeros(len(prompts), longest).to(device)], 1)
    written = torch.full((len(prompts), longest), NOTHING, device=device)
    clear = torch.zeros(len(prompts), longest, dtype=torch.bool, device=device)
    for i in range(longest):
        rows = (n_written > i).nonzero()[:, 0]
        ends = lengths[rows] + i
        logits = model(tokens[rows, : int(ends.amax())], positions=ends[:, None] - 1)[:, 0]
        chosen = logits.argmax(1)
        clear[rows, i] = hits(logits, chosen)
        written[rows, i] = tokens[rows, ends] = chosen
    return Decoded(written, clear)


@torch_defaults()
def greedy_scores(model: HookedTransformer, batch: Batch, *, max_tokens: int = EVALUATION_TOKENS) -> pd.DataFrame:
    """One row per example: how much of its answer the model writes by itself. The prompt ends with the first position
    that is scored, and all that follows is the answer, as long as it is.

    Columns: `example` (row of the batch), `n_scored` (tokens of the answer), `n_written` (tokens before the first wrong
    one), `exact_match` (all of them right). A token that ties with another is wrong, as in `evaluate`. Up to the first
    mistake the model reads what teacher forcing would give it, so `exact_match` is that of `evaluate`, example by
    example, but for ties that rounding breaks; what differs is accuracy, since here a mistake can spoil the rest. An
    example without a scored target has no row.

    Raises:
        ValueError: scored positions of an example do not follow one another.
    """
    rows = batch.loss_mask.any(1).nonzero()[:, 0]
    n_scored = batch.loss_mask.sum(1)
    first = batch.loss_mask.int().argmax(1)
    t = torch.arange(batch.tokens.shape[1], device=batch.tokens.device)
    span = (t >= first[:, None]) & (t < (first + n_scored)[:, None])
    if not torch.equal(span, batch.loss_mask):
        raise ValueError("scored positions have gaps between them; only answers in one piece can be decoded")
    n_written = torch.zeros(len(batch), dtype=torch.int64)
    # By length, so that a chunk spends little on padding.
    order = rows[(first + n_scored)[rows].argsort()]
    for chunk in order.split(max(1, max_tokens // batch.tokens.shape[1])):
        counts = n_scored[chunk]
        decoded = decode_greedily(model, batch.tokens[chunk], first[chunk] + 1, counts)
        i = torch.arange(decoded.tokens.shape[1], device=counts.device)
        places = (first[chunk, None] + i).clamp(max=batch.targets.shape[1] - 1)
        answers = batch.targets[chunk].gather(1, places)
        right = (decoded.tokens.to(answers) == answers) & decoded.clear.to(answers.device) & (i < counts[:, None])
        n_written[chunk.cpu()] = right.int().cumprod(1).sum(1).cpu()
    found = {"example": rows, "n_scored": n_scored[rows], "n_written": n_written[rows.cpu()]}
    table = pd.DataFrame({name: values.cpu().numpy() for name, values in found.items()})
    return table.assign(exact_match=table.n_written == table.n_scored)


def answered(
    model: HookedTransformer, task: Task, split: Split, *, seed: int, n: int = QUESTIONS
) -> pd.DataFrame | None:
    """`greedy_scores` of `n` of the task's questions, the same ones in every condition; None of a task without any."""
    questions = task.questions(n, split, generator=stream(seed, task.stream_label, "questions", split))
    return None if questions is None else greedy_scores(model, questions)
