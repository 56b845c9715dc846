"""A store as `reproduce` leaves it, with made-up numbers and bytes for weights, for report and app."""

from pathlib import Path

import numpy as np
import pandas as pd

from procpre_interp.store.store import RunStore, environment

NAN = float("nan")
TABLE = "reproduce-1234abcd"
LABELS = {
    "none": "no pretraining",
    "dyck_full": "Dyck, full transfer",
    "dyck_shuffled_weights": "Dyck, weights <shuffled> within each tensor",
}


def reproduce_table(**columns) -> pd.DataFrame:
    """Three replicates of two conditions by hand; "dyck_full" breaks through in two of three."""
    table = {
        "condition": ["none", "dyck_full"] * 3,
        "label": ["no pretraining", "Dyck"] * 3,
        "replicate": [0, 0, 1, 1, 2, 2],
        "phase1_run": [None, "p0", None, "p1", None, "p2"],
        "run": ["n0", "d0", "n1", "d1", "n2", "d2"],
        "status": "finished",
        "accuracy": [0.10, 0.90, 0.12, 0.80, 0.11, 0.10],
        "exact_match": [0.10, 0.90, 0.12, 0.80, 0.11, 0.10],
        "breakthrough_step": [NAN, 1000.0, NAN, 2000.0, NAN, NAN],
        "limit": 4000,
        "seconds": [10.0, 12.0] * 3,
        "phase1_seconds": [0.0, 30.0] * 3,
        "tokens": 1_000_000,
        "phase1_accuracy": [NAN, 0.41] * 3,
    }
    return pd.DataFrame(table | columns)


def fill(store: RunStore, replicates: int = 5) -> None:
    """Runs and the table of `replicates` x the three conditions."""
    rows = []
    for replicate in range(1000, 1000 + replicates):
        noise = np.random.Generator(np.random.PCG64(replicate))
        for index, (condition, label) in enumerate(LABELS.items()):
            start = noise.uniform(800, 2600) if condition != "none" else np.inf
            steps = np.arange(0, 4001, 50)
            accuracy = 0.1 + 0.8 / (1 + np.exp((start - steps) / 150)) + noise.normal(0, 0.01, len(steps))
            run_id = f"{index}{replicate:x}".ljust(16, "0")
            breakthrough = next((int(step) for step, share in zip(steps, accuracy) if share >= 0.5), None)
            summary = {
                "status": "finished",
                "stop_reason": "all steps done",
                "task": "haystack",
                "seed": replicate,
                "parents": "" if condition == "none" else "phase1parent0000",
                "n_layers": 2,
                "d_model": 16,
                "steps": 4000,
                "accuracy": accuracy[-1],
                "exact_match": accuracy[-1],
                "loss_nats": 3 - 2.5 * accuracy[-1],
                "breakthrough_step": breakthrough,
                "breakthrough_limit": 4000,
                "tokens": 63_000_000,
                "seconds": 25.0,
                "threads": 1,
                "device": "cpu",
            }
            write_run(store, run_id, summary, steps, accuracy, condition)
            rows.append(
                {
                    "condition": condition,
                    "label": label,
                    "replicate": replicate,
                    "phase1_run": None if condition == "none" else "phase1parent0000",
                    "run": run_id,
                    **{key: summary[key] for key in ("status", "accuracy", "exact_match", "seconds", "tokens")},
                    "breakthrough_step": NAN if breakthrough is None else float(breakthrough),
                    "limit": 4000,
                    "phase1_seconds": 0.0 if condition == "none" else 40.0,
                    "phase1_accuracy": NAN if condition == "none" else 0.41,
                }
            )
    about = {
        "title": "Dyck pretraining & needle in a haystack",
        "protocol": "Cheap protocol (not the paper's): made-up numbers for a test.",
        "task": "haystack",
        "limit": 4000,
        "threshold": 0.5,
        "paper": {"none": 0.113, "dyck_full": 0.969},
        "paper_notes": {"dyck_shuffled_weights": "the paper: accuracy drops dramatically"},
        "cost": {"runs": len(rows), "cpu_seconds": 25.0 * len(rows), "tokens": 63_000_000 * len(rows)},
    }
    store.write_table(TABLE, pd.DataFrame(rows), about)


def write_run(
    store: RunStore, run_id: str, summary: dict, steps: np.ndarray, accuracy: np.ndarray, condition: str
) -> None:
    """One finished run with its history."""
    parents = "" if condition == "none" else f"parents:\n- {{run: phase1parent0000, selector: {condition}}}\n"
    history = {"step": steps, "tokens": steps * 15_750, "split": "validation", "accuracy": accuracy}
    history |= {
        "exact_match": accuracy,
        "loss_nats": 3 - 2.5 * accuracy,
        "learning_rate": 3e-3,
        "seconds": steps / 160,
    }
    with store.claim(run_id) as partial:
        assert partial is not None
        partial.write_config(f"task: {{name: haystack, version: 1}}\nseed: {summary['seed']}\n{parents}")
        partial.write_json("environment.json", environment(threads=1))
        partial.write_table("history", pd.DataFrame(history))
        partial.weights_path(4000).write_bytes(b"weights")
        partial.finish(summary)


def fill_text(store: RunStore, replicates: int = 2) -> None:
    """The table of a sweep on text: a transfer from sort lowers the loss by .1 nats, give or take."""
    rows, steps = [], np.arange(0, 401, 50)
    for replicate in range(replicates):
        for index, (condition, label) in enumerate({"none": "no pretraining", "sort": "Sort"}.items()):
            loss = 2 + 3 * np.exp(-steps / 100) + 0.02 * replicate - (0.1 + 0.01 * replicate) * index
            run_id = f"{index}{replicate}".ljust(16, "e")
            scores = {"loss_nats": loss[-1], "perplexity": np.exp(loss[-1]), "bits_per_byte": loss[-1] / np.log(2)}
            scores |= {"accuracy": 0.3, "exact_match": 0.0, "epochs": 0.1, "tokens": 400_000, "teraflops": 8.0}
            summary = {"status": "finished", "task": "text", "seed": replicate, "steps": 400, "seconds": 9.0}
            history = {"step": steps, "tokens": steps * 1000, "split": "validation", "accuracy": 0.3, "loss_nats": loss}
            history |= {
                "seconds": steps * 0.02,
                "exact_match": 0.0,
                "perplexity": np.exp(loss),
                "bits_per_byte": loss / np.log(2),
            }
            with store.claim(run_id) as partial:
                assert partial is not None
                partial.write_config(f"task: {{name: text, version: 1, corpus: python-stdlib}}\nseed: {replicate}\n")
                partial.write_json("environment.json", environment(threads=1))
                partial.write_table("history", pd.DataFrame(history).assign(task_length=None))
                partial.weights_path(400).write_bytes(b"weights")
                partial.finish({**summary, **scores, "parents": "", "breakthrough_step": None, "threads": 1})
            cell = {"condition": condition, "label": label, "replicate": replicate, "run": run_id, **scores}
            cell |= {"status": "finished", "breakthrough_step": NAN, "limit": 400, "seconds": 9.0}
            rows.append(
                cell
                | {
                    "phase1_run": None,
                    "phase1_seconds": 0.0,
                    "phase1_teraflops": 2.0 * index,
                    "phase1_tokens": 9000.0 * index,
                }
            )
    store.write_table("text-1234abcd", pd.DataFrame(rows), {"title": "Sort & text", "task": "text"})


if __name__ == "__main__":
    import sys

    fill(RunStore(Path(sys.argv[1])), int(sys.argv[2]))
