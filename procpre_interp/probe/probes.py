"""The package's own probes of one model; each is a line of `procpre-interp probe -h`."""

import pandas as pd

from procpre_interp.core.seeding import stream
from procpre_interp.probe.attention import attention_scores
from procpre_interp.probe.base import PROBES, Probe, Probed
from procpre_interp.probe.labels import labels_for, position_labels
from procpre_interp.probe.lens import direct_logit_attribution_table, logit_lens_table
from procpre_interp.probe.linear import affordable_labels, linear_probe
from procpre_interp.probe.neurons import neuron_responses, neuron_table, response_labels
from procpre_interp.probe.plateau import plateau_table
from procpre_interp.probe.representation import cka
from procpre_interp.probe.weights import composition_scores, drift, spectra, weight_table

MATRIX = ("name", "layer", "head")
"""Columns that name a matrix."""


@PROBES.register("attention")
class AttentionProbe(Probe):
    """Entropy, distance and task-aware scores of each head."""

    keys = ("score", "layer", "head")
    values = ("value", "uniform", "n_queries")
    spread = "score"
    figure = "score_heatmap"

    def measure(self, probed: Probed) -> pd.DataFrame:
        return attention_scores(probed.model, probed.batch, probed.task)


@PROBES.register("weights")
class WeightsProbe(Probe):
    """Norms and ranks of each matrix."""

    reads_data = False
    keys = MATRIX
    values = ("frobenius", "spectral", "stable_rank", "effective_rank", "rms")
    dots = ("stable_rank", "effective_rank")

    def measure(self, probed: Probed) -> pd.DataFrame:
        return weight_table(probed.model)


@PROBES.register("spectra")
class SpectraProbe(Probe):
    """Singular values of each matrix."""

    reads_data = False
    keys = (*MATRIX, "index")
    values = ("singular_value",)
    figure = "spectrum_figure"

    def measure(self, probed: Probed) -> pd.DataFrame:
        return spectra(probed.model)


@PROBES.register("composition")
class CompositionProbe(Probe):
    """How much heads read of what earlier heads write, by their matrices."""

    reads_data = False
    keys = ("kind", "layer", "head", "to_layer", "to_head")
    values = ("score", "baseline")

    def measure(self, probed: Probed) -> pd.DataFrame:
        return composition_scores(probed.model)


@PROBES.register("linear")
class LinearProbe(Probe):
    """Linear probes of what the task defines, with controls.

    On text they tell the commonest tokens apart, at some of the positions (`affordable_labels`).
    """

    keys = ("label", "site")
    values = ("accuracy", "majority", "control", "selectivity", "untrained")
    dots = ("accuracy", "control", "majority")
    reference = "untrained"

    def measure(self, probed: Probed) -> pd.DataFrame:
        names = labels_for(probed.task)
        if not names:
            raise ValueError(f"{probed.task.name} has no labels that a linear probe could be asked for")
        tables = []
        for name in names:
            labels = position_labels(probed.batch, probed.task, name)
            labels = affordable_labels(labels, generator=stream(probed.seed, "linear probe", name, "positions"))
            if len(labels[labels >= 0].unique()) < 2:
                continue  # one class, as the type of the only kind of bracket: nothing to tell apart
            generator = stream(probed.seed, "linear probe", name)
            table = linear_probe(probed.model, probed.batch, labels, generator=generator, untrained=probed.reference)
            tables.append(table.assign(label=name))
        if not tables:
            raise ValueError(f"no label of {probed.task.name} has two classes in these sequences; give more sequences")
        whole = pd.concat(tables, ignore_index=True)
        return whole.reindex(columns=["label", *whole.columns.drop("label")])


@PROBES.register("neurons")
class NeuronsProbe(Probe):
    """What neurons respond to: how much of their activation the token, its position and the task's labels explain.

    Means over the neurons of a layer. `untrained` is the mean in the same model before any training.
    """

    keys = ("label", "layer")
    values = ("explained", "untrained", "mostly", "largest")
    reference = "untrained"

    def measure(self, probed: Probed) -> pd.DataFrame:
        labels = response_labels(probed.batch, probed.task)
        tables = []
        for model in filter(None, (probed.model, probed.reference)):
            generator = stream(probed.seed, "neurons")  # the same positions of both
            tables.append(neuron_table(neuron_responses(model, probed.batch, labels, generator=generator)))
        table, *untrained = tables
        keys = [*self.keys]
        means = untrained[0].set_index(keys)["explained"] if untrained else pd.Series(dtype=float)
        return table.assign(untrained=means.reindex(pd.MultiIndex.from_frame(table[keys])).to_numpy(dtype=float))


@PROBES.register("lens")
class LensProbe(Probe):
    """The logit difference of counterfactual pairs, read off after each layer."""

    keys = ("site", "layer")
    values = ("value", "accuracy")

    def measure(self, probed: Probed) -> pd.DataFrame:
        return logit_lens_table(probed.model, probed.pairs)


@PROBES.register("attribution")
class AttributionProbe(Probe):
    """The logit difference of counterfactual pairs, by the component that writes it."""

    keys = ("component", "layer", "head")
    values = ("value",)

    def measure(self, probed: Probed) -> pd.DataFrame:
        return direct_logit_attribution_table(probed.model, probed.pairs)


@PROBES.register("drift")
class DriftProbe(Probe):
    """How far training moved each matrix, and in which directions."""

    keys = MATRIX
    values = ("relative_change", "cosine", "in_subspace", "turned_in_subspace", "expected", "rank")
    figure = "drift_figure"
    reference = "start"

    def measure(self, probed: Probed) -> pd.DataFrame:
        return drift(probed.start, probed.model)


@PROBES.register("cka")
class CkaProbe(Probe):
    """How alike representations are before and after training."""

    keys = ("site", "other")
    values = ("cka",)
    figure = "cka_heatmap"
    reference = "start"

    def measure(self, probed: Probed) -> pd.DataFrame:
        return cka(probed.start, probed.model, probed.batch)


@PROBES.register("plateau")
class PlateauProbe(Probe):
    """Repeated answers, parallel hidden states, and in how many directions heads write."""

    keys = ("measure", "layer", "head")
    values = ("value", "reference")

    def measure(self, probed: Probed) -> pd.DataFrame:
        return plateau_table(probed.model, probed.batch)
