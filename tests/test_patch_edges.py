"""The graph by hand; attribution against TransformerLens and its own definition; patching against plain hooks."""

import pytest
import torch
from transformer_lens.tools.analysis import attribution_patching as upstream

from procpre_interp.core.seeding import stream
from procpre_interp.data.counterfactual import Pairs
from procpre_interp.model import HookedTransformer, ModelConfig
from procpre_interp.patch.edge_attribution import edge_attribution
from procpre_interp.patch.edges import edge_patching, path_patching
from procpre_interp.patch.graph import Graph, node_of
from tests.models import TINY, random_model, told_apart

ONE_LAYER = ModelConfig(n_layers=1, n_heads=2, d_model=8, n_ctx=10, d_vocab=11)
DEEP = ModelConfig(n_layers=3, n_heads=2, d_model=8, n_ctx=10, d_vocab=11, tied=True)


def some_pairs(positions=(3, 8, 5, 0), *, length: int = 10) -> Pairs:
    """Unlike sequences, read at different positions, with tokens behind these."""
    n = len(positions)
    clean, corrupted = (torch.randint(11, (n, length), generator=stream(i, "pairs")) for i in range(2))
    return Pairs(clean, corrupted, torch.tensor(positions), torch.arange(n), torch.arange(n) + 1)


def exact_model(config: ModelConfig = TINY) -> HookedTransformer:
    return random_model(config).double()


def difference(model, tokens, pairs, hooks=()) -> torch.Tensor:
    """Logit difference of each pair at its read position, of a run of the whole sequence."""
    logits = model.run_with_hooks(tokens, fwd_hooks=list(hooks))[torch.arange(len(pairs)), pairs.positions]
    rows = torch.arange(len(pairs))
    return logits[rows, pairs.answers] - logits[rows, pairs.wrong]


def written(model, tokens, writer: str) -> torch.Tensor:
    """What a writer adds to the residual stream, [pair, pos, d_model]."""
    _, cache = model.run_with_cache(tokens)
    if writer == "embed":
        return cache["hook_embed"] + cache["hook_pos_embed"]
    layer = int(writer.split(".")[1])
    if writer.endswith("mlp"):
        return cache[f"blocks.{layer}.hook_mlp_out"]
    head = int(writer.split(".")[-1])
    return cache[f"blocks.{layer}.attn.hook_z"][:, :, head] @ model.blocks[layer].attn.W_O[head]


def adding(reader: str, change: torch.Tensor, n_layers: int):
    """A hook that adds to a reader's input."""

    def add(x, hook):
        if x.ndim == 4:
            x[:, :, int(reader.split(".")[-2])] += change
        else:
            x += change
        return x

    parts = reader.split(".")
    if reader == "logits":
        return f"blocks.{n_layers - 1}.hook_resid_post", add
    if reader.endswith("mlp"):
        return f"blocks.{parts[1]}.hook_mlp_in", add
    return f"blocks.{parts[1]}.attn.hook_{parts[-1]}_input", add


def test_a_small_graph_by_hand():
    graph = Graph(ModelConfig(n_layers=2, n_heads=4, d_model=16, n_ctx=8, d_vocab=9))
    assert len(graph.writers) == 1 + 2 * (4 + 1) == 11
    assert len(graph.readers) == 2 * (3 * 4 + 1) + 1 == 27
    # Layer 0: 12 readers of the embedding, an MLP of 5 writers; layer 1: 12 of 6, an MLP of 10; logits of 11.
    assert len(graph.edges) == 12 * 1 + 5 + 12 * 6 + 10 + 11 == 110
    assert graph.edges[0] == ("embed", "blocks.0.attn.head.0.q")
    assert graph.edges[12:17] == tuple((w, "blocks.0.mlp") for w in graph.writers[:5])
    assert graph.edges[17] == ("embed", "blocks.1.attn.head.0.q")
    assert graph.edges[-1] == ("blocks.1.mlp", "logits")
    assert graph.readers[13:18] == (*(f"blocks.1.attn.head.{head}.q" for head in range(4)), "blocks.1.attn.head.0.k")
    matrix = graph.precedes
    assert {(graph.writers[i], graph.readers[j]) for i, j in matrix.nonzero().tolist()} == set(graph.edges)
    assert int(matrix.sum()) == 110


def test_a_circuit_is_a_mask_or_a_tuple_of_edges():
    graph = Graph(TINY)
    circuit = (graph.edges[3], graph.edges[40], graph.edges[7])
    assert graph.circuit(graph.mask(circuit)) == (graph.edges[3], graph.edges[7], graph.edges[40])
    assert [node_of(reader) for reader in ("blocks.1.attn.head.2.k", "blocks.1.mlp", "logits")] == [
        "blocks.1.attn.head.2",
        "blocks.1.mlp",
        "logits",
    ]
    with pytest.raises(ValueError, match="unknown writer 'embd'"):
        graph.mask([("embd", "logits")])
    with pytest.raises(ValueError, match="no edge from blocks.1.mlp to blocks.0.mlp"):
        graph.mask([("blocks.1.mlp", "blocks.0.mlp")])


@pytest.mark.parametrize("config", [TINY, ONE_LAYER, DEEP], ids=["two", "one", "three"])
def test_attribution_agrees_with_transformer_lens(config):
    model, pairs = exact_model(config), some_pairs()
    totals: dict[tuple[str, str], float] = {}
    for i in range(len(pairs)):
        answer, wrong, position = (int(x[i]) for x in (pairs.answers, pairs.wrong, pairs.positions))
        result = upstream.attribution_patch(
            model,
            pairs.clean[i : i + 1],
            pairs.corrupted[i : i + 1],
            lambda logits: logits[0, position, answer] - logits[0, position, wrong],  # noqa: B023
            upstream.EdgeAttributionConfig(granularity="edge"),
        )
        for (writer, reader), score in result.edge_scores.items():
            edge = _name(writer), _name(reader)
            totals[edge] = totals.get(edge, 0.0) + score / len(pairs)
    table = edge_attribution(model, pairs)
    assert tuple(zip(table["writer"], table["reader"])) == Graph(config).edges
    ours = {(row.writer, row.reader): row.score for row in table.itertuples()}
    assert ours == pytest.approx(totals, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("gradient_run", ["corrupted", "clean"])
@pytest.mark.parametrize("config", [TINY, ONE_LAYER, DEEP], ids=["two", "one", "three"])
def test_the_gradient_is_that_of_either_run(config, gradient_run):
    """Against finite differences: a little of each writer's difference is added to one reader's input in that run."""
    model, pairs, h = exact_model(config), some_pairs(), 1e-4
    run = getattr(pairs, gradient_run)
    changes = {
        writer: written(model, pairs.clean, writer) - written(model, pairs.corrupted, writer)
        for writer in Graph(config).writers
    }
    found = edge_attribution(model, pairs, gradient_run=gradient_run)
    model.set_use_split_qkv_input(True)
    for edge in found.itertuples():
        hooks = [adding(str(edge.reader), step * changes[str(edge.writer)], config.n_layers) for step in (h, -h)]
        up, down = (difference(model, run, pairs, [hook]).mean().item() for hook in hooks)
        assert edge.score == pytest.approx((up - down) / (2 * h), rel=1e-5, abs=1e-7)


def test_the_gradient_run_matters_where_the_metric_is_curved():
    model, pairs = exact_model(), some_pairs()

    def scores(method: str, gradient_run: str) -> list[float]:
        return edge_attribution(model, pairs, method=method, gradient_run=gradient_run, steps=3)["score"].tolist()

    for method in ("eap", "eap_ig_activations"):
        assert scores(method, "clean") != pytest.approx(scores(method, "corrupted"), rel=0.01)
    assert scores("eap_ig_inputs", "clean") == pytest.approx(scores("eap_ig_inputs", "corrupted"), rel=1e-9, abs=1e-12)


def test_gradients_in_the_clean_run_along_a_group_of_writers_add_up_to_its_loss():
    model, pairs = exact_model(ONE_LAYER), some_pairs()
    _, corrupted = model.run_with_cache(pairs.corrupted)
    hook = ("blocks.0.attn.hook_z", lambda x, hook: corrupted[hook.name])
    lost = (difference(model, pairs.clean, pairs) - difference(model, pairs.clean, pairs, [hook])).mean().item()
    errors = []
    for steps in (20, 40):
        table = edge_attribution(model, pairs, method="eap_ig_activations", gradient_run="clean", steps=steps)
        errors.append(abs(table.loc[table["writer"].str.startswith("blocks.0.attn"), "score"].sum() - lost))
    assert errors[1] < 0.01 * abs(lost)
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.1)


def _name(node: upstream.Node) -> str:
    if node.kind in ("embed", "logits"):
        return node.kind
    if node.kind in ("mlp_out", "mlp_in"):
        return f"blocks.{node.layer}.mlp"
    letter = "" if node.kind == "attn_head_out" else f".{node.kind[0]}"
    return f"blocks.{node.layer}.attn.head.{node.head}{letter}"


def test_attribution_reads_any_metric():
    """The gradient of a loss, and of a probability, follow from each other: d p = -p d loss."""
    model, pairs = exact_model(), some_pairs()[:1]
    probability = torch.softmax(model(pairs.corrupted)[0, pairs.positions[0]], -1)[pairs.answers[0]].item()
    scores = {metric: edge_attribution(model, pairs, metric=metric)["score"] for metric in ("loss", "probability")}
    assert scores["probability"].tolist() == pytest.approx((-probability * scores["loss"]).tolist(), rel=1e-9)
    assert scores["loss"].abs().max() > 1e-3


def test_gradients_along_the_embedding_add_up_to_the_whole_effect():
    """Up to an error that falls with the square of the number of points."""
    model, pairs = exact_model(), some_pairs()
    gap = (difference(model, pairs.clean, pairs) - difference(model, pairs.corrupted, pairs)).mean().item()
    errors = []
    for steps in (20, 40):
        table = edge_attribution(model, pairs, method="eap_ig_inputs", steps=steps)
        errors.append(abs(table.loc[table["writer"] == "embed", "score"].sum() - gap))
    assert errors[1] < 1e-4
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.1)


def test_gradients_along_a_group_of_writers_add_up_to_its_effect():
    model, pairs = exact_model(), some_pairs()
    table = edge_attribution(model, pairs, method="eap_ig_activations", steps=40).set_index("writer")["score"]
    base = difference(model, pairs.corrupted, pairs)
    _, clean = model.run_with_cache(pairs.clean)
    points = {
        "blocks.0.attn.hook_z": 3,
        "blocks.0.hook_mlp_out": 1,
        "blocks.1.attn.hook_z": 3,
        "blocks.1.hook_mlp_out": 1,
    }
    for point, n_writers in points.items():
        whole = (difference(model, pairs.corrupted, pairs, [(point, lambda x, hook: clean[hook.name])]) - base).mean()
        stem = point.replace(".hook_mlp_out", ".mlp").replace(".hook_z", ".head.")
        chosen = table[[writer for writer in table.index.unique() if writer.startswith(stem)]]
        assert chosen.index.nunique() == n_writers
        assert chosen.sum() == pytest.approx(whole.item(), rel=1e-3)
    inputs = edge_attribution(model, pairs, method="eap_ig_inputs", steps=40).set_index("writer")["score"]
    assert table["embed"].tolist() == pytest.approx(inputs["embed"].tolist(), rel=1e-9)


@pytest.mark.parametrize("method", ["eap", "eap_ig_inputs", "eap_ig_activations"])
def test_blocks_of_pairs_change_nothing(method):
    model, pairs = exact_model(), some_pairs()
    whole = edge_attribution(model, pairs, method=method, steps=2)["score"].tolist()
    assert edge_attribution(model, pairs, method=method, steps=2, max_pairs=3)["score"].tolist() == pytest.approx(whole)


def test_attribution_leaves_the_model_alone_and_needs_no_trainable_weights():
    model, pairs = random_model(), some_pairs()
    before = edge_attribution(model, pairs)["score"]
    assert float(model.flat_grad.abs().max()) == 0
    assert not any(point._forward_hooks for point in model.hook_dict.values())
    model.requires_grad_(False)
    with torch.no_grad():
        assert edge_attribution(model, pairs)["score"].tolist() == pytest.approx(before.tolist(), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("config", [TINY, ONE_LAYER, DEEP], ids=["two", "one", "three"])
@pytest.mark.parametrize("direction", ["denoise", "noise"])
def test_every_edge_patched_with_plain_hooks(config, direction):
    model = exact_model(config)
    pairs = told_apart(model, some_pairs())
    table = edge_patching(model, pairs, direction=direction)
    run, other = (pairs.corrupted, pairs.clean) if direction == "denoise" else (pairs.clean, pairs.corrupted)
    changes = {writer: written(model, other, writer) - written(model, run, writer) for writer in Graph(config).writers}
    base = difference(model, run, pairs).mean().item()
    gap = (difference(model, pairs.clean, pairs) - difference(model, pairs.corrupted, pairs)).mean().item()
    model.set_use_split_qkv_input(True)
    assert tuple(zip(table["writer"], table["reader"])) == Graph(config).edges
    for row in table.itertuples():
        hook = adding(row.reader, changes[row.writer], config.n_layers)
        value = difference(model, run, pairs, [hook]).mean().item()
        assert (row.value, row.effect, row.share) == pytest.approx(
            (value, value - base, (value - base) / gap), abs=1e-9
        )


def test_edges_may_be_chosen_in_any_order_and_blocks_change_nothing():
    model, pairs = exact_model(), some_pairs()
    whole = edge_patching(model, pairs).set_index(["writer", "reader"])
    chosen = [
        ("blocks.1.mlp", "logits"),
        ("embed", "blocks.0.attn.head.2.k"),
        ("blocks.0.mlp", "blocks.1.attn.head.0.v"),
    ]
    few = edge_patching(model, pairs, edges=chosen, max_bytes=1)
    assert list(zip(few["writer"], few["reader"])) == chosen
    for row in few.itertuples():
        assert row.value == pytest.approx(whole.loc[(row.writer, row.reader), "value"], abs=1e-12)
    assert len(edge_patching(model, pairs, edges=[])) == 0


def test_attribution_is_the_first_order_of_patching():
    """Halving how far the corrupted embeddings are from the clean ones quarters what attribution misses."""
    pairs = Pairs(torch.tensor([[0, 1, 2, 3]]), torch.tensor([[0, 4, 2, 3]]), *(torch.tensor([i]) for i in (3, 5, 6)))
    missed = []
    for distance in (1e-2, 5e-3):
        model = exact_model()
        with torch.no_grad():
            step = torch.randn(12, generator=stream(0, "step"), dtype=torch.float64)
            model.embed.W_E[4] = model.embed.W_E[1] + distance * step
        estimated, exact = edge_attribution(model, pairs)["score"], edge_patching(model, pairs)["effect"]
        assert exact.abs().max() > distance / 10
        missed.append((estimated - exact).abs())
        assert missed[-1].max() < 0.05 * exact.abs().max()
    worst = missed[0].idxmax()
    assert missed[0][worst] / missed[1][worst] == pytest.approx(4, rel=0.1)


def test_a_path_of_one_edge_is_that_edge():
    model = exact_model()
    pairs = told_apart(model, some_pairs())
    table = edge_patching(model, pairs).set_index(["writer", "reader"])
    for writer in ("embed", "blocks.0.attn.head.1", "blocks.0.mlp", "blocks.1.attn.head.0", "blocks.1.mlp"):
        path = path_patching(model, pairs, [writer, "logits"]).iloc[0]
        assert path["path"] == f"{writer} -> logits"
        expected = table.loc[(writer, "logits"), ["value", "effect", "share", "gap_low"]]
        assert path[["value", "effect", "share", "gap_low"]].tolist() == pytest.approx(expected.tolist(), abs=1e-10)


@pytest.mark.parametrize("first", ["embed", "blocks.0.attn.head.1"])
def test_a_path_of_two_edges_with_plain_hooks(first):
    model, pairs = exact_model(), some_pairs()
    reader = "blocks.1.attn.head.2.k"
    change = written(model, pairs.clean, first) - written(model, pairs.corrupted, first)
    before = written(model, pairs.corrupted, "blocks.1.attn.head.2")
    model.set_use_split_qkv_input(True)
    with model.hooks(fwd_hooks=[adding(reader, change, 2)]):
        after = written(model, pairs.corrupted, "blocks.1.attn.head.2")
    hook = adding("logits", after - before, 2)
    value = difference(model, pairs.corrupted, pairs, [hook]).mean().item()
    path = path_patching(model, pairs, [first, reader, "logits"]).iloc[0]
    assert path["value"] == pytest.approx(value, abs=1e-10)
    assert path["effect"] == pytest.approx(value - difference(model, pairs.corrupted, pairs).mean().item(), abs=1e-10)


def test_what_cannot_be_asked():
    model, pairs = random_model(), some_pairs()
    with pytest.raises(ValueError, match="unknown method"):
        edge_attribution.__wrapped__(model, pairs, method="eap_ig")
    with pytest.raises(ValueError, match="steps=0"):
        edge_attribution(model, pairs, method="eap_ig_inputs", steps=0)
    with pytest.raises(ValueError, match="unknown metric"):
        edge_patching(model, pairs, metric="accuracy")
    with pytest.raises(ValueError, match="no pairs"):
        edge_attribution(model, pairs[:0])
    with pytest.raises(ValueError, match="at last logits"):
        path_patching(model, pairs, ["embed", "blocks.0.mlp"])
    with pytest.raises(ValueError, match="no edge from blocks.1.mlp"):
        path_patching(model, pairs, ["embed", "blocks.1.mlp", "blocks.0.mlp", "logits"])
