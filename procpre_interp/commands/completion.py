"""`procpre-interp --print-completion SHELL`: a script that completes commands, their options and names of tasks."""

import contextlib
import importlib
import io
import re
import shlex
from collections.abc import Callable, Mapping, Sequence

from procpre_interp.core.messages import unknown_name

PROGRAM = "procpre-interp"
_OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*(?:\.[a-z][a-z0-9_-]*)*(?![\w.-]*[A-Z])")
"""An option in a help text, but for places to be filled in such as --task.OPTION."""


def script(shell: str, commands: Mapping[str, str]) -> str:
    """The script for a shell; `commands` has a line of help for each. Raises `ValueError` for an unknown shell."""
    if shell not in SHELLS:
        raise unknown_name("shell", shell, list(SHELLS))
    from procpre_interp.data import TASKS

    return SHELLS[shell](commands, {name: options_of(name) for name in commands}, list(TASKS))


def options_of(command: str) -> list[str]:
    """Every option that the command's help names, in its order."""
    page = io.StringIO()
    with contextlib.redirect_stdout(page), contextlib.suppress(SystemExit):
        importlib.import_module(f"procpre_interp.commands.{command}").main(["-h"])
    return list(dict.fromkeys(_OPTION.findall(page.getvalue())))


def _bash(commands: Mapping[str, str], options: Mapping[str, Sequence[str]], tasks: Sequence[str]) -> str:
    cases = "\n".join(f'    {name}) words="{" ".join(options[name])}" ;;' for name in commands)
    return f"""_procpre_interp() {{
  local cur=${{COMP_WORDS[COMP_CWORD]}} words=""
  if (( COMP_CWORD == 1 )); then words="{" ".join(commands)}"
  elif [[ ${{COMP_WORDS[COMP_CWORD-1]}} == --task ]]; then words="{" ".join(tasks)}"
  else case ${{COMP_WORDS[1]}} in
{cases}
  esac; fi
  COMPREPLY=($(compgen -W "$words" -- "$cur"))
}}
complete -o default -F _procpre_interp {PROGRAM}
"""


def _zsh(commands: Mapping[str, str], options: Mapping[str, Sequence[str]], tasks: Sequence[str]) -> str:
    cases = "\n".join(f"    {name}) compadd -- {' '.join(options[name])} ;;" for name in commands)
    return f"""#compdef {PROGRAM}
_procpre_interp() {{
  if (( CURRENT == 2 )); then compadd -- {" ".join(commands)}; return; fi
  if [[ $words[CURRENT-1] == --task ]]; then compadd -- {" ".join(tasks)}; return; fi
  case $words[2] in
{cases}
  esac
  _files
}}
compdef _procpre_interp {PROGRAM}
"""


def _fish(commands: Mapping[str, str], options: Mapping[str, Sequence[str]], tasks: Sequence[str]) -> str:
    lines = [
        f"complete -c {PROGRAM} -n __fish_use_subcommand -f -a {name} -d {shlex.quote(line)}"
        for name, line in commands.items()
    ]
    for name, found in options.items():
        seen = f"complete -c {PROGRAM} -n '__fish_seen_subcommand_from {name}'"
        lines += [
            f"{seen} -l {option[2:]}{' -x -a ' + shlex.quote(' '.join(tasks)) if option == '--task' else ''}"
            for option in found
        ]
    return "\n".join(lines) + "\n"


SHELLS: dict[str, Callable[[Mapping[str, str], Mapping[str, Sequence[str]], Sequence[str]], str]] = {
    "bash": _bash,
    "zsh": _zsh,
    "fish": _fish,
}
"""Shell -> what writes its script from commands, their options and the tasks."""
