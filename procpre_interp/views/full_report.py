"""The explorer's answers in one file: every question's figures with their sentences, from tables and a model."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from procpre_interp.analysis.diagnosis import explain_signatures
from procpre_interp.claims.files import Unreadable
from procpre_interp.claims.judged import StoredClaim
from procpre_interp.claims.text import describe_cost, map_interactions_table
from procpre_interp.store.run import Run
from procpre_interp.store.store import RunStore
from procpre_interp.views.exhibits import cheaper, claims, damage, pairs, real_text, results, text_results, where
from procpre_interp.views.exhibits.runs import with_weights
from procpre_interp.views.html_page import Block, Caution, Section, write_report
from procpre_interp.views.html_report import introduction, results_sections

MOST_CLAIMS = 40
"""Claims whose contrasts are drawn."""


def answers_report(
    store: RunStore, path: str | Path, *, table: str = "", run: str | None = "", title: str = ""
) -> Path:
    """Write the report on a store: results, maps, damage, real text, claims, and, of one run, what is inside its model.

    `table` is the stored table of conditions that it begins with, by default the newest reproduction. `run` is the run
    that is looked into: an id, "" for one that was pretrained and keeps several steps, None for none. Questions that
    the store cannot answer are left out. Raises `ValueError` for a store without a reproduction, and `UnknownRun`.
    """
    found = results.load_results(store, table)
    known, problems = claims.load_claims(store)
    before = claims.load_earlier()
    chosen = _run(store, run)
    sections = [
        introduction(found, store),
        *_transfer(found),
        *_places(store),
        *_damage(store, found, known, before),
        *_cheaper(known, before),
        *_real_text(store, known),
        *_claims(store, known, problems),
        *([] if chosen is None else _inside(chosen, store)),
    ]
    return write_report(path, title or found.title, sections)


def _run(store: RunStore, run: str | None) -> Run | None:
    if run is None:
        return None
    if run:
        return store.open(run)
    names = list(with_weights(store.query(), store))
    return store.open(names[0]) if names else None


def _transfer(found: results.Results) -> list[Section]:
    about: list[Block | Caution] = [found.about.protocol, text_results.answer_of(found).text]
    first, *rest = results_sections(found)
    cost: list[Block | Caution] = [describe_cost(found.about.cost)]
    blocks = [*about, *first.blocks, *(block for section in rest for block in section.blocks), *cost]
    return [Section(title="Did transfer help?", blocks=blocks)]


def _places(store: RunStore) -> Iterator[Section]:
    """A section for each sweep with maps."""
    for name in [name for name, kinds in results.catalogue(store).items() if "maps" in kinds]:
        sweep = results.load_results(store, name)
        for each in where.maps(sweep):
            table = where.effects(each)
            blocks: list[Block | Caution] = [each.title]
            for method in each.methods:
                shown = table.loc[table["method"] == method]
                blocks += [
                    f"{where.METHOD_NAMES.get(method, method)}. {where.answer(shown).text}",
                    where.heatmap(shown),
                ]
            blocks += [each.coverage, where.bars(table), where.as_text(table)]
            if (together := pairs.interactions(each)) is not None:
                blocks += [pairs.heatmap(together, table), map_interactions_table(together)]
            yield Section(title="Where does it live?", blocks=blocks)


def _damage(
    store: RunStore, found: results.Results, known: Mapping[str, StoredClaim], before: Mapping[str, StoredClaim]
) -> Iterator[Section]:
    blocks: list[Block | Caution] = []
    for judged in damage.damage_claims(known).values():
        blocks += [damage.answer(judged).text, damage.origin(judged), *_ladder(judged)]
        if (earlier := before.get(judged.name)) is not None:
            blocks += [claims.about_earlier(earlier), *_ladder(earlier)]
    for judged in damage.noise_claims(known).values():
        blocks += [damage.answer(judged).text, damage.origin(judged)]
        blocks += [damage.noise(judged), damage.noise_on_finished(judged)]
        if (earlier := before.get(judged.name)) is not None:
            blocks += [claims.about_earlier(earlier), damage.noise(earlier), damage.noise_on_finished(earlier)]
    runs, problems = damage.transferred_runs(found, store)
    if runs:
        by_condition, findings = damage.diagnosis(found, store)
        blocks += ["Why transfers fail: one row per condition and what is seen there.", by_condition]
        blocks += explain_signatures(findings["signature"])
    blocks += [Caution(text=problem) for problem in problems[:3]]
    if blocks:
        yield Section(title="What survives damage?", blocks=blocks)


def _ladder(judged: StoredClaim) -> Iterator[Block | Caution]:
    yield damage.controls(judged)
    if len(kept := damage.kept(judged)):
        yield "What each control keeps of the transferred weights, from the least to the most:"
        yield kept


def _cheaper(known: Mapping[str, StoredClaim], before: Mapping[str, StoredClaim]) -> Iterator[Section]:
    blocks: list[Block | Caution] = []
    for judged in cheaper.cheaper_claims(known).values():
        blocks += [f"{cheaper.answer(judged).text} {damage.origin(judged)}", cheaper.shares(judged)]
        if cheaper.has_entropies(judged):
            blocks.append(cheaper.entropy_and_breakthrough(judged))
        if (earlier := before.get(judged.name)) is not None:
            blocks += [claims.about_earlier(earlier), cheaper.shares(earlier)]
            if cheaper.has_entropies(earlier):
                blocks.append(cheaper.entropy_and_breakthrough(earlier))
    if (found := cheaper.load_search()) is not None:
        blocks += [cheaper.search_answer(found).text, cheaper.search(found)]
    if blocks:
        yield Section(title="Can anything cheaper do the same?", blocks=blocks)


def _real_text(store: RunStore, known: Mapping[str, StoredClaim]) -> Iterator[Section]:
    """Every claim on text and every fair sweep of the store, with what each arm was tuned to."""
    blocks: list[Block | Caution] = []
    for judged in real_text.text_claims(known).values():
        blocks += [real_text.answer(judged).text, damage.origin(judged)]
        if real_text.is_fair(judged.cells):
            blocks += [real_text.arms(judged), real_text.tuned(judged.cells)]
    for name in [name for name, kinds in results.catalogue(store).items() if "fair" in kinds]:
        sweep = results.load_results(store, name)
        blocks += [real_text.arms_of_results(sweep), real_text.tuned(sweep.table)]
    if blocks:
        yield Section(title="Does it help on real text?", blocks=blocks)


def _claims(store: RunStore, known: Mapping[str, StoredClaim], problems: list[Unreadable]) -> Iterator[Section]:
    blocks: list[Block | Caution] = [Caution(text=each.problem) for each in problems]
    judged = {name: claim for name, claim in known.items() if not claim.quick}
    if judged:
        blocks += [
            claims.answer(judged).text,
            claims.overview(judged),
            *(claims.contrasts(each) for each in list(judged.values())[:MOST_CLAIMS]),
        ]
    summary, source = claims.load_beside(store)
    blocks += [f"Beside the paper's numbers, from {source}:", claims.beside_the_paper(summary)]
    yield Section(title="Do the claims hold?", blocks=blocks)


def _inside(run: Run, store: RunStore) -> Iterator[Section]:
    """What is inside one run's model. Imports torch."""
    from procpre_interp.pipeline.execute import load_model, load_task
    from procpre_interp.train.process import run_threads
    from procpre_interp.views.exhibits import attention, circuits, sequences, weights

    if not run.steps:
        return
    with run_threads(1):
        model, task, of = load_model(run), load_task(run), f"run {run.id[:8]}"
        yield Section(title="What was generated?", blocks=[sequences.tokens(task), sequences.control(task)])
        table = attention.score_table(model, task)
        job = attention.standing_out(table, task).score
        others = [name for name in attention.score_names(task) if name not in (job, *attention.GENERAL)][:2]
        scores = [job, *others]
        looks = [attention.scored(table, task, score, of=of) for score in (*scores, "entropy_relative")]
        pattern = attention.pattern(model, task, attention.sequence(task, 0, 0), of=of)
        developed = [attention.development(run, store, score) for score in (job, "entropy_relative")]
        about = f"Of {of} alone: observations, not results."
        yield Section(title="Where does attention look?", blocks=[about, *looks, pattern, *developed])
        if task.causes:
            cause = next(iter(task.causes))
            shown = [circuits.effects(model, task, cause, "z"), circuits.graph(model, task, cause)]
            blocks = [about, *shown, circuits.faithfulness(model, task, cause)]
            yield Section(title="Which circuit?", blocks=blocks)
        moved: list[Block | Caution] = [about, weights.spectra(model, of=of)]
        if len(run.steps) > 1:
            before, names = load_model(run, run.steps[0]), (f"step {run.steps[0]:,}", f"step {run.steps[-1]:,}")
            moved += [weights.drift(before, model, of=of), weights.likeness(before, model, task, names=names)]
        yield Section(title="How do weights move?", blocks=moved)
