"""Which closed-form initialisation comes nearest to procedural pretraining? Fits the options and searches recipes.

    python experiments/search_initialisation.py [--out runs] [--workers 2] [--budget 150] [--quick]

The options are fitted on Dyck models of seeds 0 to 5. Recipes are scored on haystack, seeds 0 to 3, by the mean over
training of validation accuracy, which tells a late breakthrough from none; test data are not looked at. The search
starts from the size of every transferred tensor. What it finds, and all numbers, go into
experiments/results/initialisation.json, where the claims read them: they try it on seeds from 1000.
"""

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import tyro

from procpre_interp.core.environment import now
from procpre_interp.core.terminal import check_workers, default_store, run_script, usable_cores
from procpre_interp.core.text_table import stdout_console
from procpre_interp.engine.engines import Processes
from procpre_interp.engine.processes import execute_all
from procpre_interp.pipeline.execute import load_model
from procpre_interp.stats.greedy_search import FILE, Recipe, greedy_search, recipe_name
from procpre_interp.stats.resampling import replicate_matrix
from procpre_interp.store.outcomes import cost_of
from procpre_interp.store.store import RunStore
from procpre_interp.study.initialisation_lab import SCALES, Lab, fit_options, write_lab
from procpre_interp.study.protocols import PROCEDURAL, PROTOCOLS, haystack_sweep
from procpre_interp.study.smoke_test import few_steps
from procpre_interp.sweep.chains import pretraining_run
from procpre_interp.sweep.live_table import live_table
from procpre_interp.sweep.plan import results, run_sweep

FITTED = range(6)
"""Seeds of the phase-1 models that the numbers are means over."""
TUNED = range(4)
"""Seeds of phase 2 that recipes are scored on."""


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """Fit closed-form initialisations and search the best recipe within a budget of runs."""

    out: Path = field(default_factory=default_store)
    """Folder of the runs; those that it has are not computed again."""
    workers: int = field(default_factory=usable_cores)
    """Processes of one thread each. Does not change the numbers."""
    budget: int = 150
    """Phase-2 runs, at most."""
    quick: bool = False
    """Two phase-1 models and one seed of a few steps, to see that everything works: what it finds means nothing."""
    results: Path | None = None
    """The file to write. Default: experiments/results/initialisation.json, or with --quick one in the folder of the
    runs."""


def search_recipes(options: SearchOptions) -> int:
    """Fit, search, write."""
    check_workers(options.workers)
    store, console = RunStore(options.out), stdout_console()
    recipe, protocol, fitted, tuned = PROCEDURAL["dyck"], PROTOCOLS["cheap"], FITTED, TUNED
    if options.quick:
        recipe = dataclasses.replace(recipe, train=few_steps(recipe.train))
        protocol = dataclasses.replace(protocol, phase1=recipe.train, phase2=few_steps(protocol.phase2))
        fitted, tuned = FITTED[:2], TUNED[:1]
    parents = [pretraining_run(recipe, seed) for seed in fitted]
    problems = execute_all({run.run_id: run for run in parents}, store, workers=options.workers)
    if problems:
        raise ValueError(f"phase 1 failed: {next(iter(problems.values()))}")
    models = [load_model(store.open(run.run_id)) for run in parents]
    about: dict[str, object] = {"created": now(), "protocol": protocol.text}
    about |= {"fitted_on": [run.run_id for run in parents]}
    about |= {"quick": options.quick, "fitted_seeds": list(fitted), "tuning_seeds": list(tuned)}
    about |= {"budget": options.budget}
    lab, runs = Lab(fitted=fit_options(models), about=about), set[str]()

    def score(recipes: Sequence[Recipe]) -> list[float]:
        conditions = tuple(lab.condition(recipe_name(recipe), recipe) for recipe in recipes if recipe)
        sweep = haystack_sweep("search", conditions, protocol=protocol, replicates=len(tuned), first_seed=tuned[0])
        planned, failed = run_sweep(
            sweep, store, engine=Processes(options.workers), show=live_table(store, options.workers)
        )
        runs.update(planned.configs)
        # A run that diverged, or could not be made, is as bad as one that never learnt anything.
        area = replicate_matrix(results(planned, store, failed), "area").fillna(0.0).mean().to_dict()
        found = [float(area[recipe_name(recipe) if recipe else "none"]) for recipe in recipes]
        for recipe, value in zip(recipes, found):
            console.print(f"{value:.4f}  {recipe_name(recipe)}")
        return found

    search = greedy_search(lab.options, SCALES, score, budget=options.budget, cost=len(tuned))
    about |= {"cost": cost_of(runs, store)}
    path = options.results or (options.out / FILE.name if options.quick else FILE)
    write_lab(Lab(fitted=lab.fitted, search=search, about=about), path)
    console.print(f"Best: {recipe_name(search.best)} ({search.score:.4f}); {search.reason}. Written: {path}")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """The script's command line."""

    def work() -> int:
        return search_recipes(tyro.cli(SearchOptions, description=__doc__, args=arguments))

    return run_script("search_initialisation", work)


if __name__ == "__main__":
    sys.exit(main())
