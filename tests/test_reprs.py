"""What runs, tables and models show in a notebook."""

import dataclasses

import pandas as pd

from procpre_interp.core.html import fields_html, table_html
from procpre_interp.store.store import RunStore
from tests.explorer import DEMO
from tests.models import TINY, random_model


def test_a_run():
    text = RunStore(DEMO).open("f00f71212a994232", verify=False)._repr_html_()
    for part in ("Run f00f71212a994232", "haystack", "9643c1a212deed14 (attn+ln)", "0, 595, 1,157, 5,000", "0.944"):
        assert part in text
    assert "16384 parameters" in text


def test_a_table():
    table = RunStore(DEMO).read_table("reproduce-cacb0e48")
    text = table._repr_html_()
    assert "30 rows" in text
    assert "Dyck pretraining and needle in a haystack" in text
    assert text.count("<tr>") == 5 + 1 + 5
    evil = dataclasses.replace(table, frame=pd.DataFrame({"<script>": ["<b>"]}))
    assert "<script>" not in evil._repr_html_()
    assert "&lt;b&gt;" in evil._repr_html_()


def test_a_model_counts_every_parameter_once():
    model = random_model(TINY)
    text = model._repr_html_()
    assert f"<td>all</td><td>{model.flat.numel():,}</td>" in text
    assert (
        f"<td>attn</td><td>{TINY.n_layers * sum(p.numel() for p in model.blocks[0].attn.parameters()):,}</td>" in text
    )


def test_text_is_escaped_and_empty_fields_are_left_out():
    text = fields_html("<i>", {"<a>": "<b>", "none": None, "empty": ""})
    assert "<i>" not in text
    assert "&lt;a&gt;" in text
    assert "none" not in text
    assert "1,234,567" in table_html(["n"], [[1234567]])
