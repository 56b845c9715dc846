"""Ladders of weight controls, and dose-response curves of noise on the weights."""

import html
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float
from plotly.subplots import make_subplots

from procpre_interp.stats.half_dose import HalfDose
from procpre_interp.stats.summary import intervals_note
from procpre_interp.views.plots.axes import Panel
from procpre_interp.views.plots.heatmaps import player_colours
from procpre_interp.views.plots.theme import (
    COMPONENT_COLOURS,
    X_WIDTH,
    add_band,
    condition_colours,
    error_bars,
    lay_out,
    translucent,
    with_n,
    wrapped,
)

DASHES = ["solid", "dot", "dash", "dashdot", "longdash"]
"""Dashes of components that share a colour, which are those of several layers."""

REFERENCE_DASHES = ["dot", "dash", "solid", "longdashdot"]
"""Colours of reference lines, in their order."""

ROW_WIDTH = 24
"""Letters in a line of a row's name."""


def ladder(
    effects: pd.DataFrame,
    *,
    dots: pd.DataFrame | None = None,
    references: Mapping[str, float | int] | None = None,
    x: str = "Test accuracy (% of answer tokens)",
    title: str = "",
) -> go.Figure:
    """Each condition of a ladder as a point with its interval, from the top down in the order of the table.

    `effects` has columns label, estimate, low, high, n and, if wanted, condition, which decides the colour; `dots` has
    a row per condition and replicate (label, value). `references` are drawn as lines: name -> value.
    """
    labels = effects["label"].tolist()
    if "condition" in effects:
        own = condition_colours(effects["condition"])
        colours = dict(zip(labels, (own[name] for name in effects["condition"])))
    else:
        colours = dict.fromkeys(labels, COMPONENT_COLOURS["all"])
    rows = _rows(labels, effects["n"])
    figure = go.Figure()
    if dots is not None:
        _add_dots(figure, dots.loc[dots["label"].isin(labels)], colours, rows)
    _add_means(figure, effects, colours, rows)
    # Lines are named in the legend: names beside them would be printed over one another where lines are close.
    for dash, (name, value) in zip(REFERENCE_DASHES, (references or {}).items()):
        line = {"dash": dash, "width": 1.5, "color": "#888888"}
        figure.add_vline(value, line=line)
        figure.add_scatter(x=[None], y=[None], mode="lines", line=line, name=name)
    lay_out(figure, title=title, caption=intervals_note(effects["n"]), x=x, y="", height=240 + 40 * len(labels))
    return figure.update_yaxes(categoryorder="array", categoryarray=list(rows.values())[::-1])


def ladders(effects: pd.DataFrame, dots: pd.DataFrame, *, title: str = "") -> go.Figure:
    """Several measures of the same conditions, a panel each, one below the other: points with intervals, replicates as
    dots.

    `effects` has columns panel (title of its axis, with the unit), label, estimate, low, high, n and condition, which
    decides the colour; `dots` panel, label and value. Conditions from the top down in the order of the table.
    """
    panels = list(dict.fromkeys(effects["panel"]))
    by_condition = condition_colours(effects["condition"])
    colours = {label: by_condition[condition] for condition, label in zip(effects["condition"], effects["label"])}
    parts = [effects.loc[effects["panel"] == panel] for panel in panels]
    heights = [60 + 34 * len(part) for part in parts]
    between = 80 / (sum(heights) + 80 * (len(parts) - 1))
    figure = make_subplots(rows=len(panels), row_heights=heights, vertical_spacing=between if len(panels) > 1 else 0)
    for row, (panel, part) in enumerate(zip(panels, parts), start=1):
        place: Panel = {"row": row, "col": 1}
        rows = _rows(part["label"].tolist(), part["n"])
        _add_dots(figure, dots.loc[dots["panel"] == panel], colours, rows, ".4g", showlegend=row == 1, **place)
        _add_means(figure, part, colours, rows, ".4g", showlegend=row == 1, **place)
        figure.update_yaxes(categoryorder="array", categoryarray=list(rows.values())[::-1], row=row, col=1)
    height = 180 + sum(heights) + 80 * len(parts)
    lay_out(figure, title=title, caption=intervals_note(effects["n"]), x="", y="", height=height)
    for row, panel in enumerate(panels, start=1):
        figure.update_xaxes(title=wrapped(panel, X_WIDTH), row=row, col=1)
    return figure


def _rows(labels: list[str], counts: Iterable[int]) -> dict[str, str]:
    """Label -> the name of its row: broken into lines, markup escaped, with its n where they differ."""
    names = with_n((html.escape(label, quote=False) for label in labels), counts)
    return {label: wrapped(name, ROW_WIDTH) for label, name in zip(labels, names)}


def _add_dots(
    figure: go.Figure,
    dots: pd.DataFrame,
    colours: Mapping[str, str],
    rows: Mapping[str, str],
    digits: str = ".3g",
    **place: Any,
) -> None:
    """One marker per replicate; `colours` and `rows` (names) are by label, `place` says which panel."""
    dots = dots.loc[dots["label"].isin(list(rows))]
    figure.add_scatter(
        x=dots["value"].to_numpy(dtype=float),
        y=[rows[label] for label in dots["label"]],
        mode="markers",
        marker={"size": 7, "color": [translucent(colours[label], 0.4) for label in dots["label"]]},
        name="one replicate",
        hovertemplate=f"%{{y}}: %{{x:{digits}}}",
        **place,
    )


def _add_means(
    figure: go.Figure,
    effects: pd.DataFrame,
    colours: Mapping[str, str],
    rows: Mapping[str, str],
    digits: str = ".3g",
    **place: Any,
) -> None:
    """One marker with its interval per condition."""
    bounds = effects[["estimate", "low", "high", "n"]].to_numpy(dtype=float)
    low, high = (f"%{{customdata[{index}]:{digits}}}" for index in range(2))
    figure.add_scatter(
        x=bounds[:, 0],
        y=[rows[label] for label in effects["label"]],
        mode="markers",
        marker={"size": 12, "color": [colours[label] for label in effects["label"]]},
        error_x=error_bars(bounds[:, 0], bounds[:, 1], bounds[:, 2]),
        name="mean and interval",
        customdata=bounds[:, 1:],
        hovertemplate=f"%{{y}}: %{{x:{digits}}} [{low}, {high}], n = %{{customdata[2]}}",
        **place,
    )


def dose_response(
    means: pd.DataFrame,
    fits: pd.DataFrame | None = None,
    *,
    y: str = "Test accuracy (% of answer tokens)",
    title: str = "",
) -> go.Figure:
    """Mean against the noise on the weights, its interval as a band, and each half dose as a vertical mark.

    `means` is that of `dose.dose_means`, `fits` that of `dose.half_dose`, values and means shares. The axis is
    logarithmic, and dose 0 stands at its left with a tick of its own. A half dose beyond the doses that were measured
    is in the legend alone. The mean without any transfer is dotted, where the table has a `baseline`.
    """
    components = list(dict.fromkeys(means["component"]))
    colours, dashes = player_colours(components), _dashes(components)
    doses = np.unique(means["noise_std"].to_numpy(dtype=float))
    above = doses[doses > 0]
    zero = float(above[0] ** 2 / above[1] if len(above) > 1 else above[0] / 2)
    heights = means[["mean", "low", "high"]].to_numpy(dtype=float)
    span = [float(np.nanmin(heights)), float(np.nanmax(heights))]
    found = {} if fits is None else {fit.component: fit for fit in half_doses(fits)}
    figure = go.Figure()
    for component in components:
        curve = means.loc[means["component"] == component].sort_values("noise_std")
        dose = curve["noise_std"].to_numpy(dtype=float)
        position = np.where(dose > 0, dose, zero)
        low, mean, high = (curve[column].to_numpy(dtype=float) for column in ("low", "mean", "high"))
        measured = dose[dose > 0]
        name = component if component not in found else f"{component}: {half_dose_text(found[component], measured)}"
        colour, same = colours[component], {"legendgroup": component, "name": name}
        add_band(figure, position, low, high, colour, **same)
        figure.add_scatter(
            x=position,
            y=mean,
            mode="lines+markers",
            line={"color": colour, "width": 2.5, "dash": dashes[component]},
            marker={"color": colour, "size": 7},
            customdata=np.column_stack([dose, low, high, curve["n"].to_numpy()]),
            hovertemplate="noise %{customdata[0]:.3g}: %{y:.1%} [%{customdata[1]:.1%}, %{customdata[2]:.1%}], "
            "n = %{customdata[3]}",
            **same,
        )
        half = found[component].half_dose if component in found else np.nan
        if measured.min() <= half <= measured.max():
            line = {"color": colour, "width": 1.5, "dash": "dash"}
            mark = {"mode": "lines", "line": line, "hoverinfo": "skip", "showlegend": False}
            figure.add_scatter(x=[half, half], y=span, **mark, **same)
    if "baseline" in means:
        for level in np.unique(means["baseline"].to_numpy(dtype=float)):
            figure.add_hline(float(level), line={"dash": "dot", "width": 1, "color": "#888888"})
    note = intervals_note(means["n"], "when you hover over a point")
    caption = f"{'dashed: half of the gain is left; ' if found else ''}{note}"
    lay_out(figure, title=title or "Noise on the weights", caption=caption, x="Noise (std of the tensor)", y=y)
    ticks = {"tickvals": [zero, *above.tolist()], "ticktext": ["0", *(f"{dose:.3g}" for dose in above)]}
    return figure.update_xaxes(type="log", **ticks).update_yaxes(tickformat=".0%")


def half_doses(fits: pd.DataFrame) -> list[HalfDose]:
    """The rows of a table of `half_dose`, stored or not; a missing number may be null there."""
    numbers = dict.fromkeys(("half_dose", "low", "high", "slope", "unbounded"), float)
    return [
        HalfDose(**{str(key): value for key, value in row.items()}) for row in fits.astype(numbers).to_dict("records")
    ]


def half_dose_text(fit: HalfDose, measured: Float[np.ndarray, " dose"], *, named: bool = True) -> str:
    """A half dose with its interval in words: "half dose 1.1 [0.44, 1.5]", "half dose above 2", without these two words
    where it is not `named`; what is wrong with it instead, where it has none. Beyond the doses that were measured only
    the side is known."""
    if np.isnan(fit.half_dose):
        return fit.problem

    def bound(value: float) -> str:
        if value > measured.max():
            return f"above {measured.max():.2g}"
        return f"below {measured.min():.2g}" if value < measured.min() else f"{value:.2g}"

    beyond = fit.low > measured.max() or fit.high < measured.min()
    interval = "" if np.isnan(fit.low) or beyond else f" [{bound(fit.low)}, {bound(fit.high)}]"
    return f"{'half dose ' if named else ''}{bound(fit.half_dose)}{interval}"


def _dashes(components: list[str]) -> dict[str, str]:
    """A dash for each component: the next one where another has the same colour."""
    colours, dashes = player_colours(components), {}
    for component in components:
        before = sum(colours[name] == colours[component] for name in dashes)
        dashes[component] = DASHES[before % len(DASHES)]
    return dashes
