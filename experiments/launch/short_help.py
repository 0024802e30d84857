"""What ``--help`` shows: the options that most runs need, on one screen; and shell completion."""

from __future__ import annotations

import ast
import inspect
import shutil
import textwrap
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

from experiments.run.config import flat
from experiments.run.errors import flag

# What a run is mostly asked for, in few words; choices stand in the place of {}.
COMMON = {
    "agents": "how many agents (default: 5)",
    "topology": "graph family or file (python -m cdjax.topology --help)",
    "algorithm": "{}",
    "learning_rate": "step size of the first step",
    "momentum": "in [0, 1) (default: the algorithm's own)",
    "epochs": "passes over the data (default: 50; 20 on digits)",
    "batch_size": "per agent and step (default: 128; 16 on digits)",
    "seed": "of data, parameters and order",
    "dataset": "{}",
    "data_dir": "folder of the data set's archive files",
    "partition": "how data is dealt: {}",
    "model": "{}",
    "out": "folder of the runs' folders",
    "checkpoint_every": "epochs between checkpoints",
    "resume": "go on with the run in this folder",
    "quiet": "print nothing but errors",
    "log": "also log to {}; several between commas",
}
# Options of the command line that are none of a run: flag, value, what it does.
STARTING = (
    ("--config", "FILE", "options from YAML, JSON or a run's folder"),
    ("--print-config", "", "print all options as YAML, and end"),
    ("--print-completion", "", "print a completion for bash and zsh, and end"),
    ("--help", "", "show the common options, and end"),
    ("--help-all", "", "show all options with their choices, and end"),
)
_MOST_CHOICES = 7
_INDENT = 22


def short_help(default: Any, *, program: str, description: str | None) -> str:
    """The common options of a run or a study, by subject, with their choices and defaults."""
    width = max(40, min(shutil.get_terminal_size().columns, 100))
    lines = [f"usage: {program} [OPTIONS]"]
    description = description or inspect.getdoc(type(default)) or ""
    lines += ["", *textwrap.wrap(description.split("\n\n")[0], width)]
    for subject, part, names in _subjects(default):
        docs, hints = _docs(type(part)), get_type_hints(type(part))
        lines.append(f"{subject}:")
        for name in names:
            of_run = None if part is default else COMMON.get(name)
            short = of_run or docs.get(name, "").partition(". ")[0].rstrip(".")
            text = _text(short, hints[name], getattr(part, name))
            lines += _entry(f"{flag(name)}{_value(hints[name])}", text, width)
    lines.append("start:")
    for option, value, text in STARTING:
        lines += _entry(f"{option} {value}".rstrip(), text, width)
    return "\n".join(lines)


def starting() -> str:
    """The options that are none of a run, in one paragraph."""
    return "Besides the options below: " + ", ".join(
        f"{f'{option} {value}'.rstrip()} ({text})" for option, value, text in STARTING
    )


def completion(default: Any) -> str:
    """A script for bash and for zsh's bashcompinit, to be kept in a file that ``~/.bashrc`` reads.

    It completes the options of ``python -m experiments.NAME``, and the choices of those that have
    some; for other words after ``python`` it asks what was there before.
    """
    options = [flag(name) for name in flat(default)] + [option for option, *_ in STARTING]
    cases = "\n".join(
        f'    {flag(name)}) words="{" ".join(map(str, choices))}" ;;'
        for name, choices in _choices(default)
    )
    return _SCRIPT.format(options=" ".join(options), cases=cases)


def _subjects(default: Any) -> Iterator[tuple[str, Any, list[str]]]:
    """Each part with the names of those of its options that are shown; a study's own first."""
    own = [
        field.name for field in fields(default) if not is_dataclass(getattr(default, field.name))
    ]
    if own:
        yield "study", default, own
    for field in fields(default):
        part = getattr(default, field.name)
        names = [name for name in COMMON if is_dataclass(part) and name in vars(part)]
        if names:
            yield field.name, part, names


def _docs(part: type) -> dict[str, str]:
    """What stands below each field in the source of a part."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(part))).body
    assert isinstance(definition, ast.ClassDef)
    found, name = {}, None
    for node in definition.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            name = node.target.id
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and name:
            found[name], name = " ".join(str(node.value.value).split()), None
    return found


def _text(short: str, hint: Any, value: Any) -> str:
    """A few words on an option, with its choices if they are few, and its default."""
    choices = _literal(hint)
    many = f"{', '.join(choices[:3])}, ... ({len(choices)} in --help-all)"
    text = short.replace("{}", ", ".join(choices) if len(choices) <= _MOST_CHOICES else many)
    if value not in (None, False, ()) and "default" not in text:
        several = isinstance(value, tuple)
        text += f" (default: {' '.join(map(str, value)) if several else value})"
    return text


def _entry(head: str, text: str, width: int) -> list[str]:
    lines = textwrap.wrap(text, max(width - _INDENT, 20))
    if len(head) + 4 > _INDENT:
        return [f"  {head}", *(" " * _INDENT + line for line in lines)]
    first = f"  {head:<{_INDENT - 2}}{lines[0] if lines else ''}"
    return [first, *(" " * _INDENT + line for line in lines[1:])]


def _value(hint: Any) -> str:
    """What follows a flag; nothing after a switch."""
    kinds = [kind for kind in (get_args(hint) or (hint,)) if kind is not type(None)]
    if hint is bool:
        return ""
    names = {int: " N", float: " X"}
    return names.get(kinds[0], " NAME" if _literal(hint) or hint is str else " PATH")


def _literal(hint: Any) -> tuple[str, ...]:
    for one in (hint, *get_args(hint)):
        if get_origin(one) is Literal:
            return get_args(one)
    return ()


def _choices(config: Any) -> Iterator[tuple[str, tuple[str, ...]]]:
    from cdjax.topology import FAMILIES
    from experiments.run.varying import VARYING

    for part in (config, *filter(is_dataclass, vars(config).values())):
        for name, hint in get_type_hints(type(part)).items():
            choices = _literal(hint) or ((*FAMILIES, *VARYING) if name == "topology" else ())
            if choices:
                yield name, choices


_SCRIPT = """\
# Completion of python -m experiments.NAME. Keep it in a file, and read that in ~/.bashrc:
#   python -m experiments.digits --print-completion > ~/.cdjax-completion.bash
#   echo 'source ~/.cdjax-completion.bash' >> ~/.bashrc
# In zsh, these two lines belong into ~/.zshrc:
#   autoload -Uz compinit bashcompinit && compinit && bashcompinit
#   source ~/.cdjax-completion.bash
declare -F _completion_loader > /dev/null && _completion_loader python 2> /dev/null
_cdjax_before=$(complete -p python 2> /dev/null | sed -n 's/.*-F \\([^ ]*\\) .*/\\1/p')
[[ $_cdjax_before == _cdjax_experiments ]] && _cdjax_before=
_cdjax_experiments() {{
  local current=${{COMP_WORDS[COMP_CWORD]}} option=${{COMP_WORDS[COMP_CWORD-1]}} words=
  COMPREPLY=()
  local started="${{COMP_WORDS[1]}} ${{COMP_WORDS[2]}}"
  if [[ $started != "-m experiments."* || $COMP_CWORD -lt 3 ]]; then
    [[ -n $_cdjax_before ]] && "$_cdjax_before" "$@"
    return
  fi
  case $option in
{cases}
  esac
  [[ $current == -* ]] && words="{options}"
  [[ -n $words ]] && COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -o bashdefault -o default -F _cdjax_experiments python python3
"""
