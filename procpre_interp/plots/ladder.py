"""Ladders of weight controls, and dose-response curves of noise on the weights."""

import textwrap
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from procpre_interp.plots.heatmaps import player_colours
from procpre_interp.plots.theme import (
    COMPONENT_COLOURS,
    add_band,
    condition_colours,
    error_bars,
    fewest,
    lay_out,
    translucent,
)
from procpre_interp.stats import interval_note

DASHES = ["solid", "dot", "dash", "dashdot", "longdash"]
"""Of components that share a colour, which are those of several layers."""


def ladder(
    effects: pd.DataFrame,
    *,
    dots: pd.DataFrame | None = None,
    references: Mapping[str, float | int] | None = None,
    x: str = "Test accuracy (share of answer tokens)",
    title: str = "",
) -> go.Figure:
    """Each condition of a ladder as a point with its interval, from the top down in the order of the table.

    `effects` has columns label, estimate, low, high, n and, if wanted, condition, which decides the colour; `dots` has
    a row a condition and replicate (label, value). `references` are drawn as dotted lines: name -> value.
    """
    labels = effects["label"].tolist()
    if "condition" in effects:
        own = condition_colours(effects["condition"])
        colours = [own[name] for name in effects["condition"]]
    else:
        colours = [COMPONENT_COLOURS["all"]] * len(labels)
    figure = go.Figure()
    if dots is not None:
        _add_dots(figure, dots.loc[dots["label"].isin(labels)], dict(zip(labels, colours)), ".3g")
    _add_means(figure, effects, dict(zip(labels, colours)), ".3g")
    for name, value in (references or {}).items():
        line = {"dash": "dot", "width": 1, "color": "#888888"}
        figure.add_vline(value, line=line, annotation={"text": name, "font": {"size": 11}, "yanchor": "bottom"})
    lay_out(figure, title=title, caption=interval_note(fewest(effects)), x=x, y="", height=230 + 40 * len(labels))
    # The names of the reference lines stand between the caption and the axes.
    figure.update_layout(margin_t=110 if references else 80)
    return figure.update_yaxes(categoryorder="array", categoryarray=labels[::-1])


def ladders(effects: pd.DataFrame, dots: pd.DataFrame, *, title: str = "") -> go.Figure:
    """Several measures of the same conditions, a panel each, side by side: points with intervals, replicates as dots.

    `effects` has columns panel (title of its axis, with the unit), label, estimate, low, high, n and condition, which
    decides the colour; `dots` panel, label and value. Conditions from the top down in the order of the table.
    """
    labels, panels = list(dict.fromkeys(effects["label"])), list(dict.fromkeys(effects["panel"]))
    by_condition = condition_colours(effects["condition"])
    colours = {label: by_condition[condition] for condition, label in zip(effects["condition"], effects["label"])}
    figure = make_subplots(cols=len(panels), shared_yaxes=True, horizontal_spacing=0.04)
    for column, panel in enumerate(panels, start=1):
        place: dict[str, Any] = {"showlegend": column == 1, "row": 1, "col": column}
        _add_dots(figure, dots.loc[dots["panel"] == panel], colours, ".4g", **place)
        _add_means(figure, effects.loc[effects["panel"] == panel], colours, ".4g", **place)
    lay_out(figure, title=title, caption=interval_note(fewest(effects)), x="", y="", height=230 + 40 * len(labels))
    for column, panel in enumerate(panels, start=1):
        figure.update_xaxes(title="<br>".join(textwrap.wrap(panel, 24)), row=1, col=column)
    return figure.update_yaxes(categoryorder="array", categoryarray=labels[::-1])


def _add_dots(figure: go.Figure, dots: pd.DataFrame, colours: Mapping[str, str], digits: str, **place: Any) -> None:
    """One marker a replicate; `colours` is by label, `place` says which panel."""
    figure.add_scatter(
        x=dots["value"].to_numpy(dtype=float),
        y=dots["label"].tolist(),
        mode="markers",
        marker={"size": 7, "color": [translucent(colours[label], 0.4) for label in dots["label"]]},
        name="one replicate",
        hovertemplate=f"%{{y}}: %{{x:{digits}}}",
        **place,
    )


def _add_means(figure: go.Figure, effects: pd.DataFrame, colours: Mapping[str, str], digits: str, **place: Any) -> None:
    """One marker with its interval a condition."""
    bounds = effects[["estimate", "low", "high", "n"]].to_numpy(dtype=float)
    low, high = (f"%{{customdata[{index}]:{digits}}}" for index in range(2))
    figure.add_scatter(
        x=bounds[:, 0],
        y=effects["label"].tolist(),
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
    y: str = "Test accuracy (share of answer tokens)",
    title: str = "",
) -> go.Figure:
    """Mean against the noise on the weights, its interval as a band, and each half dose as a vertical mark.

    `means` is that of `dose.dose_means`, `fits` that of `dose.half_dose`. The axis is logarithmic, and dose 0 stands at
    its left with a tick of its own. The mean without any transfer is dotted, where the table has a `baseline`.
    """
    components = list(dict.fromkeys(means["component"]))
    colours, dashes = player_colours(components), _dashes(components)
    doses = np.unique(means["noise_std"].to_numpy(dtype=float))
    above = doses[doses > 0]
    zero = float(above[0] ** 2 / above[1] if len(above) > 1 else above[0] / 2)
    heights = means[["mean", "low", "high"]].to_numpy(dtype=float)
    span = [float(np.nanmin(heights)), float(np.nanmax(heights))]
    found = {} if fits is None else {fit["component"]: fit for fit in fits.to_dict("records")}
    figure = go.Figure()
    for component in components:
        curve = means.loc[means["component"] == component].sort_values("noise_std")
        dose = curve["noise_std"].to_numpy(dtype=float)
        position = np.where(dose > 0, dose, zero)
        low, mean, high = (curve[column].to_numpy(dtype=float) for column in ("low", "mean", "high"))
        name = component if component not in found else f"{component}: {_in_words(found[component])}"
        colour, same = colours[component], {"legendgroup": component, "name": name}
        add_band(figure, position, low, high, colour, **same)
        figure.add_scatter(
            x=position,
            y=mean,
            mode="lines+markers",
            line={"color": colour, "width": 2.5, "dash": dashes[component]},
            marker={"color": colour, "size": 7},
            customdata=np.column_stack([dose, low, high]),
            hovertemplate="noise %{customdata[0]:.3g}: %{y:.3g} [%{customdata[1]:.3g}, %{customdata[2]:.3g}]",
            **same,
        )
        half = found.get(component, {}).get("half_dose", np.nan)
        if not np.isnan(half):
            line = {"color": colour, "width": 1.5, "dash": "dash"}
            mark = {"mode": "lines", "line": line, "hoverinfo": "skip", "showlegend": False}
            figure.add_scatter(x=[half, half], y=span, **mark, **same)
    if "baseline" in means:
        for level in np.unique(means["baseline"].to_numpy(dtype=float)):
            figure.add_hline(float(level), line={"dash": "dot", "width": 1, "color": "#888888"})
    caption = f"{'dashed: half of the gain is left; ' if found else ''}{interval_note(fewest(means))}"
    lay_out(figure, title=title or "Noise on the weights", caption=caption, x="Noise (std of the tensor)", y=y)
    ticks = {"tickvals": [zero, *above.tolist()], "ticktext": ["0", *(f"{dose:.3g}" for dose in above)]}
    return figure.update_xaxes(type="log", **ticks)


def _in_words(fit: Mapping) -> str:
    """A half dose with its interval, for the legend; what is wrong with it instead, where it has none."""
    if np.isnan(fit["half_dose"]):
        return fit["problem"].partition(":")[0]
    text = f"half dose {fit['half_dose']:.2g}"
    text += "" if np.isnan(fit["low"]) else f" [{fit['low']:.2g}, {fit['high']:.2g}]"
    return f"{text}, beyond the doses measured" if fit["beyond"] else text


def _dashes(components: list[str]) -> dict[str, str]:
    """A dash for each component: the next one where another has the same colour."""
    colours, dashes = player_colours(components), {}
    for component in components:
        before = sum(colours[name] == colours[component] for name in dashes)
        dashes[component] = DASHES[before % len(DASHES)]
    return dashes
