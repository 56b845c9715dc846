"""How long activation patching and edge attribution take: this package against TransformerLens.

    python experiments/bench_patching.py [--repeats 5] [--threads 2] [--big] [--record]

One script, variants interleaved, median and minimum. Patching: heads x positions of a haystack model (2 layers, 4
heads, 63 positions), 64 pairs, against `transformer_lens.patching`. Edge attribution: all edges of that model and,
with --big, of a model shaped like GPT-2 small (12 layers, d_model 768), against upstream's `attribution_patch`, whose
scores a position are summed; with --big also the memory that ours needs for 16, 64 and 256 pairs, in processes of
their own. Then a faithfulness curve of 20 sizes with 5 random circuits each. Every comparison also checks that both
agree. The last line is JSON: the medians of the first comparison, in seconds. `--record` writes all of it, with
--big, into BENCHMARKS.md.
"""

import gc
import json
import multiprocessing
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd
import torch
import tyro
from torch import Tensor
from transformer_lens import ActivationCache

from procpre_interp.core.children import safe_spawn
from procpre_interp.core.seeding import stream
from procpre_interp.data import TASKS
from procpre_interp.data.counterfactual import Pairs
from procpre_interp.model import HookedTransformer, ModelConfig
from procpre_interp.patch import METRICS, circuit_curve, edge_attribution, patched_values
from procpre_interp.train.process import run_threads
from procpre_interp.views.benchmarks import record as record_table

SMALL = ModelConfig(n_layers=2, n_heads=4, d_model=16, n_ctx=100, d_vocab=256)
GPT2_SMALL = ModelConfig(n_layers=12, n_heads=12, d_model=768, n_ctx=100, d_vocab=256)


def model_of(config: ModelConfig) -> HookedTransformer:
    """A model whose heads do not all attend evenly."""
    model = HookedTransformer(config, generator=stream(0, "bench"))
    with torch.no_grad():
        model.flat.add_(
            torch.randn(model.flat.shape, generator=stream(0, "noise")), alpha=0.3 if config is SMALL else 0.02
        )
    return model


def pairs_of(n: int, *, max_pairs: int = 30) -> Pairs:
    """Pairs of haystack's causes."""
    task = TASKS.build("haystack", min_pairs=2, max_pairs=max_pairs)
    return task.counterfactual("key", n, generator=stream(0, "pairs"))


def interleaved(variants: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each, after printing median and minimum."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(repeats):
        for name, run in variants.items():
            started = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - started)
    for name, each in seconds.items():
        print(f"  {name:<18} median {statistics.median(each):8.3f} s, minimum {min(each):8.3f} s")
    medians = {name: statistics.median(each) for name, each in seconds.items()}
    ours, theirs = medians["ours"], medians["transformer_lens"]
    print(f"  ratio {theirs / ours:.1f}")
    return medians


def at_read(logits: Tensor, pairs: Pairs) -> Tensor:
    """The logit difference of each pair, from logits of whole sequences."""
    return METRICS["logit_difference"](logits[torch.arange(len(pairs)), pairs.positions], pairs)


@torch.no_grad()
def patching(model: HookedTransformer, pairs: Pairs, repeats: int) -> dict[str, float]:
    """Both ways to patch z of every head at every position."""
    from transformer_lens.patching import get_act_patch_attn_head_out_by_pos as upstream

    _, clean = model.run_with_cache(pairs.clean)
    assert isinstance(clean, ActivationCache)
    theirs = upstream(model, pairs.corrupted, clean, lambda logits: at_read(logits, pairs), reduce="none").values
    difference = (patched_values(model, pairs, "z") - theirs.transpose(1, 2)).abs().max().item()
    print(f"patching: {theirs[..., 0].numel()} patches x {len(pairs)} pairs; largest difference {difference:.1e}")
    if difference > 1e-5:
        raise ValueError(f"patched values differ by {difference}")
    return interleaved(
        {
            "ours": lambda: patched_values(model, pairs, "z"),
            "transformer_lens": lambda: upstream(
                model, pairs.corrupted, clean, lambda logits: at_read(logits, pairs).mean()
            ),
        },
        repeats,
    )


def upstream_edges(model: HookedTransformer, pairs: Pairs) -> dict[tuple[str, str], float]:
    """Upstream's scores, which have a position; pairs are read at the same one."""
    from transformer_lens.tools.analysis.attribution_patching import EdgeAttributionConfig, attribution_patch

    position = int(pairs.positions[0])
    remaining = iter(range(2 * len(pairs)))

    def metric(logits: Tensor) -> Tensor:  # called on a clean and a corrupted run of each pair in turn
        pair = next(remaining) // 2
        return logits[0, position, pairs.answers[pair]] - logits[0, position, pairs.wrong[pair]]

    found = attribution_patch(
        model, pairs.clean, pairs.corrupted, metric, config=EdgeAttributionConfig(granularity="edge")
    )
    totals: dict[tuple[str, str], float] = {}
    for (writer, reader), score in found.edge_scores.items():
        edge = _name(writer), _name(reader)
        totals[edge] = totals.get(edge, 0.0) + score
    return totals


def _name(node: object) -> str:
    kind, layer, head = node.kind, node.layer, node.head  # pyright: ignore[reportAttributeAccessIssue]
    if kind in ("embed", "logits"):
        return kind
    if kind in ("mlp_out", "mlp_in"):
        return f"blocks.{layer}.mlp"
    name = f"blocks.{layer}.attn.head.{head}"
    return name if kind == "attn_head_out" else f"{name}.{kind[0]}"


def one_position(pairs: Pairs) -> Pairs:
    """The pairs that are read where most are."""
    position = pairs.positions.mode().values
    return pairs[pairs.positions == position]


def attribution(config: ModelConfig, pairs: Pairs, repeats: int) -> dict[str, str]:
    """Both ways to score all edges, as a row of the page."""
    model = model_of(config)
    ours = edge_attribution(model, pairs)
    theirs = upstream_edges(model, pairs)
    largest = max(abs(score) for score in theirs.values())
    scored = zip(ours["writer"], ours["reader"], ours["score"])
    difference = max(abs(score - theirs[writer, reader]) for writer, reader, score in scored) / largest
    about = f"{config.n_layers} layers, d_model {config.d_model}"
    print(f"edges: {about}, {len(ours)} edges, {len(pairs)} pairs; largest difference {difference:.1e} of the largest")
    if difference > 1e-3:
        raise ValueError(f"edge scores differ by {difference} of the largest")
    medians = interleaved(
        {"ours": lambda: edge_attribution(model, pairs), "transformer_lens": lambda: upstream_edges(model, pairs)},
        repeats,
    )
    return compared(f"EAP: {about}, {len(ours):,} edges, {len(pairs)} pairs", medians)


def compared(what: str, medians: Mapping[str, float]) -> dict[str, str]:
    """A row of the page: seconds of both."""
    ours, theirs = medians["ours"], medians["transformer_lens"]
    return {
        "What": what,
        "Ours": f"{ours:.3f} s",
        "TransformerLens": f"{theirs:.2f} s",
        "Ratio": f"{theirs / ours:.0f}",
    }


def peak_megabytes(config: ModelConfig, n_pairs: int) -> float:
    """Most memory that a process of its own has while it scores edges (Linux)."""
    with safe_spawn(), multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak_memory, (config, n_pairs))


def _peak_memory(config: ModelConfig, n_pairs: int) -> float:
    torch.set_num_threads(1)
    model, pairs = model_of(config), pairs_of(n_pairs, max_pairs=7)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far, of making the model, is forgotten
    edge_attribution(model, pairs)
    status = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in status if line.startswith("VmHWM")).split()[1]) / 1024


def main(repeats: int = 5, threads: int = 2, big: bool = False, record: bool = False) -> None:
    """Compare, print, and end in one line of JSON."""
    if record and not big:
        raise ValueError("--record writes one table of all comparisons; give --big too")
    with run_threads(threads):
        model, pairs = model_of(SMALL), pairs_of(64)
        found = patching(model, pairs, repeats)
        rows = [compared(f"z of 8 heads at 63 positions patched, {len(pairs)} pairs", found)]
        rows.append(attribution(SMALL, one_position(pairs_of(400))[:8], min(repeats, 3)))
        if big:
            rows.append(attribution(GPT2_SMALL, one_position(pairs_of(100, max_pairs=7))[:4], 2))
        for n_pairs in (16, 64, 256) if big and Path("/proc/self/clear_refs").exists() else ():
            peak = peak_megabytes(GPT2_SMALL, n_pairs)
            print(f"edges: GPT-2 small's shape, {n_pairs} pairs of 17 tokens: peak of the process {peak:.0f} MB")
            rows.append({"What": f"EAP: GPT-2 small's shape, peak memory, {n_pairs} pairs", "Ours": f"{peak:,.0f} MB"})
        scores = edge_attribution(model, pairs)
        started = time.perf_counter()
        circuit_curve(model, pairs, scores, n_random=5, generator=stream(0, "random"))
        seconds = time.perf_counter() - started
        print(f"circuit curve of 20 sizes, with complements and 5 random circuits each: {seconds:.1f} s")
        rows.append(
            {"What": "circuit curve: 20 sizes, complements, 5 random circuits each", "Ours": f"{seconds:.1f} s"}
        )
    if record:
        record_table(__file__, pd.DataFrame(rows).fillna(""))
    print(json.dumps({name: round(seconds, 4) for name, seconds in found.items()}))


if __name__ == "__main__":
    tyro.cli(main)
