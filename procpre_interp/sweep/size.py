"""What a sweep takes before it is run: runs, training steps, and the coalitions of its maps."""

from procpre_interp.stats.coalitions import coverage
from procpre_interp.store.outcomes import is_whole
from procpre_interp.store.store import RunStore
from procpre_interp.sweep.plan import Plan


def describe_size(planned: Plan, store: RunStore) -> str:
    """Runs of each phase, how many of them are finished, the most steps that the others may take, and each map's
    coalitions; a line each."""
    sweep = planned.sweep
    missing = {run: config for run, config in planned.configs.items() if not is_whole(store, run)}
    phases = sorted({1, 2, *(role.phase for role in planned.roles.values())})
    of_phase = {phase: [run for run, role in planned.roles.items() if role.phase == phase] for phase in phases}
    *counts, last = (f"{len(runs):,} of phase {phase}" for phase, runs in of_phase.items())
    lines = [
        f"{sweep.name}: {len(sweep.seeds)} replicates, {', '.join(counts).replace(' of', ' runs of', 1)} and {last}; "
        f"{len(planned.configs) - len(missing):,} of them are finished."
    ]
    for phase, runs in of_phase.items():
        todo = [missing[run].train for run in runs if run in missing]
        steps = sum(train.last_step - train.start_at for train in todo)
        lines.append(f"To do in phase {phase}: {len(todo):,} runs, at most {steps:,} steps.")
    if planned.deferred:
        lines.append(f"{planned.deferred:,} cells are counted once their parents are finished, which rank their heads.")
    for each in sweep.filled_maps:
        said = coverage(each.players, each.methods, replicate=sweep.first_seed, sampling=each.sampling)
        lines.append(f"Map of {each.phase1}: {said}")
    return "\n".join(lines)
