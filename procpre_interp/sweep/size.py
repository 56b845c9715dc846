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
    phase2 = set(planned.cells["run"]) - {""}
    lines = [
        f"{sweep.name}: {len(sweep.seeds)} replicates, {len(planned.configs) - len(phase2):,} runs of phase 1 and "
        f"{len(phase2):,} of phase 2; {len(planned.configs) - len(missing):,} of them are finished."
    ]
    for name, runs in {"phase 1": set(missing) - phase2, "phase 2": set(missing) & phase2}.items():
        steps = sum(missing[run].train.last_step for run in runs)
        lines.append(f"To do in {name}: {len(runs):,} runs, at most {steps:,} steps.")
    if planned.deferred:
        lines.append(f"{planned.deferred:,} cells are counted once their parents are finished, which rank their heads.")
    for each in sweep.filled_maps:
        said = coverage(each.players, each.methods, replicate=sweep.first_seed, sampling=each.sampling)
        lines.append(f"Map of {each.phase1}: {said}")
    return "\n".join(lines)
