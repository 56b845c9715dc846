"""What `reproduce` and `sweep` print in the end: the table of conditions."""

import pandas as pd

from procpre_interp.claims.text import conditions_table, describe_cost, explain_columns, explain_intervals
from procpre_interp.core.text_table import print_table, stdout_console
from procpre_interp.stats.summary import summarise_conditions
from procpre_interp.store.about import About


def print_results(table: pd.DataFrame, about: About) -> None:
    """The table of conditions, what its columns mean, the protocol and the cost, on stdout."""
    summary = summarise_conditions(table)
    rows = conditions_table(summary, about)
    console = stdout_console()
    print_table(console, rows.to_dict("list"), about.title, left=["Condition"])
    lines = (about.note, explain_intervals(summary), explain_columns(about), about.protocol)
    for line in filter(None, lines):
        console.print(f"\n{line}")
    console.print(f"\nCost: {describe_cost(about.cost)}.")
