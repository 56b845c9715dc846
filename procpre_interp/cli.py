"""The command line. Each command is a dataclass in `commands/`, whose fields are its options."""

import errno
import importlib
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from procpre_interp.core.messages import cut, one_line, unknown_name
from procpre_interp.core.places import unreadable
from procpre_interp.core.streams import flush_stdout, open_streams

COMMANDS = {
    "tasks": "List the tasks, with a printed example of each.",
    "corpora": "List the corpora of real text, what is here, and a sample of each; fetch one.",
    "train": "Train a fresh model on a task: phase 1, or phase 2 without pretraining.",
    "transfer": "Take components of finished runs and train on another task: phase 2.",
    "reproduce": "The paper's headline: Dyck pretraining and needle in a haystack.",
    "sweep": "A grid of transfers over replicates, from one YAML file.",
    "savings": "Tokens and compute that phase 1 saves, by the table of a sweep.",
    "initialise": "Fit closed-form initialisations on phase-1 runs, and print one as YAML.",
    "claims": "Do the claims hold? Verdicts and the numbers behind them.",
    "probe": "What heads attend to, what weights and representations are like, and how they developed.",
    "ablate": "What damage to their weights finished models survive.",
    "patch": "Which activations, edges and circuits carry an answer.",
    "runs": "List and filter the runs of a store.",
    "store": "Send a store's runs to an object store such as S3, or fetch them; pack them into one file.",
    "import": "Make a run of a GPT-2 in a folder of Hugging Face's.",
    "export": "Write a run's model as a folder for Hugging Face's transformers.",
    "diagnose": "Name the failure signatures of runs, with the numbers behind them.",
    "report": "Write one HTML file about some runs, or about the newest reproduction.",
    "app": "Open the explorer in the browser.",
}

HELP = """usage: procpre-interp COMMAND [OPTIONS]

Which attention heads, MLPs and layers carry the gain of procedural pretraining, and why.

commands:
{commands}

procpre-interp COMMAND -h shows a command's options; procpre-interp --print-completion bash (or zsh, fish) prints a
script for the shell that completes them. For example:

  procpre-interp reproduce --quick --out runs
  procpre-interp train --task dyck --task.k 16 --train.steps 2000 --train.batch-size 32
  procpre-interp transfer --parent RUN --components attn+ln --task haystack

With every command, --import FILE.py (or a module) loads tasks, controls, interventions and probes of your own.
Runs are kept in the folder that --store names (or $PROCPRE_STORE; default: runs). A run is named by the hash of its
config: repeating a command resumes it where it was stopped, or opens the finished result.
"""


def help_text() -> str:
    """What `procpre-interp --help` prints; needs nothing but this module, so it is instant."""
    return HELP.format(commands="\n".join(f"  {name:<11}{line}" for name, line in COMMANDS.items()))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command. Its exit code: 0, 1 where something failed, 2 for a mistake in the call, 130 after Ctrl-C."""
    open_streams()
    code = _run_safely(list(sys.argv[1:] if arguments is None else arguments))
    problem = flush_stdout()
    if problem is None or code:
        return code
    # Whoever read our output may be gone (`... | head`), which is no news to anybody.
    return 1 if isinstance(problem, BrokenPipeError) else _complain(f"standard output: {problem.strerror}", 1)


def _run_safely(arguments: list[str]) -> int:
    """Run a command; whatever goes wrong is one line on stderr and an exit code."""
    try:
        if not arguments or arguments[0] in ("-h", "--help"):
            print(help_text(), end="")
            return 0 if arguments else 2
        if arguments[0] == "--version":
            from procpre_interp import __version__

            print(f"procpre-interp {__version__}")
            return 0
        if arguments[0] == "--print-completion":
            from procpre_interp.commands.completion import script

            print(script(arguments[1] if len(arguments) > 1 else "", COMMANDS), end="")
            return 0
        return _run(arguments[0], arguments[1:])
    except KeyboardInterrupt:
        return _complain("stopped; repeat the command to go on from there", 130)
    except BrokenPipeError:
        return 1
    except OSError as problem:
        if os.environ.get("PROCPRE_TRACEBACK"):
            raise
        return _complain(_os_problem(problem), 1)
    except (RuntimeError, MemoryError) as problem:  # torch's word for too little memory
        if os.environ.get("PROCPRE_TRACEBACK"):
            raise
        if isinstance(problem, MemoryError) or "allocate memory" in str(problem):
            return _complain("not enough memory for this; ask for less at a time", 1)
        return _complain(f"{type(problem).__name__}: {(str(problem).splitlines() or [''])[0]}", 1)
    except (ValueError, LookupError) as problem:
        if os.environ.get("PROCPRE_TRACEBACK"):
            raise
        return _complain(one_line(problem), 2)


def _run(name: str, arguments: list[str]) -> int:
    if name not in COMMANDS:
        raise unknown_name("command", name, list(COMMANDS))
    from procpre_interp.commands._options import take_all
    from procpre_interp.core import plugins
    from procpre_interp.core.launch import launched
    from procpre_interp.core.startup import quick_imports

    if name not in ("train", "transfer") and (launch := launched()) is not None:
        if launch.rank:
            return 2
        raise ValueError(f"{name} is for one process, not {launch.size}; torchrun starts train and transfer alone")
    own, arguments = take_all(arguments, "--import")
    try:
        with plugins.named(own):
            if name != "app":  # whose pages load them, in a process of their own
                plugins.load_named()
            with quick_imports():
                command = importlib.import_module(f"procpre_interp.commands.{name}")
            return command.main(arguments) or 0
    except SystemExit as leave:  # tyro's, after -h or a mistake that it has explained
        return leave.code if isinstance(leave.code, int) else 2


def _os_problem(problem: OSError) -> str:
    where = f"{problem.filename}: " if problem.filename else ""
    text = f"{where}{problem.strerror or problem}"
    if problem.errno == errno.ENOSPC:
        return f"{text}; make room and repeat the command, it goes on where it was"
    if problem.errno in (errno.EACCES, errno.EPERM) and problem.filename is not None:
        kept = unreadable(Path(os.fsdecode(problem.filename)))
        if kept is not None:
            return f"{text}; you may not read {kept}: change its permissions, or name another file or folder"
    if problem.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
        return f"{text}; choose a folder that you may write to with --store or --out"
    return text


def _complain(text: str, code: int) -> int:
    with suppress(OSError):  # stderr is full, or nobody reads it
        print(f"procpre-interp: {cut(text)}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
