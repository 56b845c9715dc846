"""What `procpre-interp sweep` says of a fair sweep: its size, what its arms were tuned to, and what is missing."""

from procpre_interp.core.text_table import print_table, stdout_console
from procpre_interp.stats.rows import named_rows
from procpre_interp.store.store import RunStore
from procpre_interp.sweep.config import Sweep
from procpre_interp.sweep.fair import Tuned, choices, confirming_sweep, trials_of, tuned_by, tuning_sweep
from procpre_interp.sweep.fair_arms import arms_of
from procpre_interp.sweep.plan import plan
from procpre_interp.sweep.size import describe_size


def describe_fair_size(sweep: Sweep, store: RunStore) -> str:
    """Arms and trials, and the runs of tuning and of confirmation. As long as a trial is missing, it is not known which
    of the latter there are already, apart from those of phase 1."""
    assert sweep.fair is not None
    planned = plan(tuning_sweep(sweep), store)
    arms, trials = arms_of(sweep).arms, trials_of(sweep)
    lines = [
        f"{len(arms)} arms: {', '.join(each.condition.name for each in arms)}.",
        f"Each has {sweep.fair.n_trials} trials on each of {len(sweep.fair.tuning_seeds)} tuning seeds.",
        describe_size(planned, store),
    ]
    confirming = tuned_by(sweep, planned, store, {}).confirming
    if confirming is None:
        lines.append("The runs of phase 2 that follow are counted as if none was there, before tuning has ended.")
        confirming = confirming_sweep(sweep, {trial.arm.condition.name: trial for trial in trials.values()})
    return "\n".join([*lines, describe_size(plan(confirming, store), store)])


def print_tuning(tuned: Tuned) -> None:
    """The table of choices; before all trials are finished, how many are missing and what failed."""
    for run, problem in tuned.problems.items():
        print(f"failed: {tuned.planned.labels.get(run, run)}: {problem}")
    for row in named_rows(tuned.planned.cells.loc[tuned.planned.cells["problem"] != ""]):
        print(f"failed: {row.label}: {row.problem}")
    if tuned.confirming is None:
        print(f"tuning: {tuned.progress}; the same command goes on from here")
        return
    chosen = choices(tuned.trials)
    text = {
        "Arm": chosen["arm"],
        "Learning rate": [f"{value:g}" for value in chosen["learning_rate"]],
        "Initial scale": [f"{value:g}" for value in chosen["initial_scale"]],
        "Validation loss, nats": [f"{value:.4f}" for value in chosen["validation_loss_nats"]],
        "Trials": chosen["trials"].astype(str),
        "At the edge": chosen["at_edge"].str.replace("_", " "),
    }
    title = "What each arm was tuned to, on seeds of tuning alone"
    print_table(stdout_console(), {name: list(column) for name, column in text.items()}, title, left=["Arm"])
    if any(chosen["at_edge"]):
        print("At the edge: the smallest or largest value that was tried, so that a better one may lie beyond.")
    print(f"trials: {tuned.table_name}\n")
