"""The final readout applied early and by parts: logit lens, direct logit attribution.

Both are TransformerLens's, on a cache that holds one position a pair: where the pair is read.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import pandas as pd
import torch
from einops import einsum
from jaxtyping import Float, Int
from torch import Tensor

from procpre_interp.core.selectors import head_term
from procpre_interp.data.counterfactual import Pairs
from procpre_interp.model import HookedTransformer
from procpre_interp.model.hits import hits
from procpre_interp.model.upstream import HookPoint
from procpre_interp.probe.representation import residual_sites

if TYPE_CHECKING:
    from transformer_lens import ActivationCache


@torch.no_grad()
def logit_lens_table(model: HookedTransformer, pairs: Pairs, *, max_pairs: int = 64) -> pd.DataFrame:
    """Logit difference that each state of the residual stream would give, were it the last, one row per site.

    Columns: site, layer, value, accuracy, n_pairs. The state at the read position of the clean sequences passes
    `ln_final`, with its own mean and variance, and the unembedding; `value` is the mean logit of the answer minus that
    of the wrong one, `accuracy` the share of pairs whose answer has a higher logit than every other token (a tie is no
    hit). The last row is the model itself. `max_pairs` run at once.

    Raises:
        ValueError: there are no pairs, or the model is in training mode.
    """
    from transformer_lens.tools.analysis import logit_lens

    n_layers = model.config.n_layers
    states = ("resid_pre", "resid_mid", "resid_post")
    names = [f"blocks.{layer}.hook_{state}" for layer in range(n_layers) for state in states]
    sites = residual_sites(n_layers)
    value, correct = (torch.zeros(len(sites), dtype=torch.float64) for _ in range(2))
    for part, cache in _caches(model, pairs, names, max_pairs):
        answer, wrong = (
            logit_lens(cache, incl_mid=True, positions=None, targets=tokens[:, None]).readout
            for tokens in (part.answers, part.wrong)
        )
        value += (answer.values - wrong.values).double().sum((1, 2, 3)).cpu()
        # One site at a time, so that only its logits are held.
        logits = (
            logit_lens(cache, layers=[i], incl_mid=True, positions=None).values[0, :, 0] for i in range(len(sites))
        )
        correct += torch.stack([hits(each, part.answers).sum() for each in logits]).cpu()
    table = {
        "site": sites,
        "layer": [int(site.rpartition(".")[2]) for site in sites],
        "value": (value / len(pairs)).numpy(),
        "accuracy": (correct / len(pairs)).numpy(),
        "n_pairs": len(pairs),
    }
    return pd.DataFrame(table).astype({"layer": "Int64"})


@torch.no_grad()
def direct_logit_attribution_table(model: HookedTransformer, pairs: Pairs, *, max_pairs: int = 64) -> pd.DataFrame:
    """What each component adds to the logit difference by itself, past all later ones, one row per component.

    Columns: component, layer, head, value, n_pairs. At the read position of the clean sequences, a component's output x
    gives ((x - mean x) / scale * w) (W_U[:, answer] - W_U[:, wrong]), with the scale that `ln_final` has for the whole
    stream and its gain w; `value` is the mean over pairs. The values add up to the model's mean logit difference:
    "embed" is token and position embedding together, "attn.b_O" the output biases of all attention layers, which
    belong to no head, and "ln_final.b" the bias of the final LayerNorm. `max_pairs` run at once.

    Unlike TransformerLens's `direct_logit_attribution`, on whose parts it builds, it needs no LayerNorm folded into
    W_U.

    Raises:
        ValueError: there are no pairs.
    """
    config = model.config
    layers, heads = range(config.n_layers), range(config.n_heads)
    names = ["hook_embed", "hook_pos_embed", "ln_final.hook_scale"]
    names += [f"blocks.{layer}.{point}" for layer in layers for point in ("attn.hook_z", "hook_mlp_out")]
    places = [(head_term(layer, head), layer, head) for layer in layers for head in heads]
    places += [(f"blocks.{layer}.mlp", layer, None) for layer in layers]
    places += [("embed", None, None), ("attn.b_O", None, None), ("ln_final.b", None, None)]
    value = torch.zeros(len(places), dtype=torch.float64)
    for part, cache in _caches(model, pairs, names, max_pairs):
        stack = cache.get_full_resid_decomposition(expand_neurons=False, apply_ln=True)
        assert isinstance(stack, Tensor)
        *others, embed, pos_embed, bias = stack.squeeze(2)
        direction = model.tokens_to_residual_directions(part.answers) - model.tokens_to_residual_directions(part.wrong)
        written = torch.stack([*others, embed + pos_embed, bias])
        shapes = "component pair d_model, d_model, pair d_model -> component"
        attributed = einsum(written.double(), model.ln_final.w.double(), direction.double(), shapes)
        constant = einsum(model.ln_final.b.double(), direction.double(), "d_model, pair d_model ->")
        value += torch.cat([attributed, constant[None]]).cpu()
    table = pd.DataFrame(places, columns=["component", "layer", "head"]).astype({"layer": "Int64", "head": "Int64"})
    return table.assign(value=(value / len(pairs)).numpy(), n_pairs=len(pairs))


def _caches(
    model: HookedTransformer, pairs: Pairs, names: Sequence[str], max_pairs: int
) -> Iterator[tuple[Pairs, "ActivationCache"]]:
    """Blocks of pairs and their activations on the clean sequences: of each pair its read position, alone."""
    from transformer_lens import ActivationCache

    if len(pairs) == 0:
        raise ValueError("there are no pairs; give at least one")
    for start in range(0, len(pairs), max_pairs):
        part = pairs[start : start + max_pairs].to(model.flat.device)
        kept: dict[str, Tensor] = {}
        keep = partial(_keep, kept=kept, positions=part.positions)
        model.run_with_hooks(part.clean, fwd_hooks=[(name, keep) for name in names], return_type=None)
        yield part, ActivationCache(kept, model)


def _keep(
    x: Float[Tensor, "pair pos *rest"], hook: HookPoint, *, kept: dict[str, Tensor], positions: Int[Tensor, " pair"]
) -> None:
    """A hook that stores the read positions, and changes nothing."""
    assert hook.name is not None
    kept[hook.name] = x[torch.arange(len(x), device=x.device), positions].unsqueeze(1)
