"""Makes the list of all commands, options and values that shells' completions are answered from."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from segbench.cli._lazy import COMMANDS, CommandGroup, make_command

_OPTIONS = {
    "--preset": "presets",
    "--method": "methods",
    "--task": "tasks",
    "--tissue": "tissues",
    "--train": "tissues",
    "--dataset": "datasets",
    "--start": "starts",
    "--status": "statuses",
    "--metric": "metrics",
    "--sections": "sections",
    "--without": "launch options",
    "--write": "forms",
}
"""What the value of an option is, wherever the option stands and its type does not tell it."""
_ARGUMENTS = {
    ("data", "show"): "datasets",
    ("data", "remove"): "datasets",
    ("methods", "show"): "methods",
    ("methods", "install"): "methods",
    ("methods", "check"): "methods",
    ("methods", "measure"): "methods",
    ("methods", "weights", "fetch"): "weights",
    ("methods", "weights", "add"): "weights",
    ("grid", "logs"): "runs",
    ("runs", "show"): "runs",
    ("runs", "evaluate"): "runs",
    ("runs", "predict"): "runs",
    ("runs", "repeat"): "runs",
    ("models", "apply"): "models",
    ("models", "export"): "models",
    ("analyze", "training-data"): "tissues",
    ("analyze", "recommend"): "tissues",
    ("plot",): "figures",
    ("help",): "words",
}
"""What the first argument of a command is, where it is no path."""
_METRICS = ("accuracy", "map", "ap50", "ap75", "ar", "ar50", "ar75")
Value = tuple[str, str]


def made_index() -> dict[str, Any]:
    """Return the commands as JSON-able values, and the values that depend on the code alone."""
    commands = {name: _node((name,), make_command(name), about) for name, about in COMMANDS.items()}
    return {"commands": {"commands": commands}, "values": {name: make() for name, make in _VALUES.items()}}


def _node(words: tuple[str, ...], command: Any, about: str = "") -> dict[str, Any]:
    about = about or str(command.get_short_help_str(limit=100))
    if isinstance(command, CommandGroup):
        return {"help": about, "commands": {name: _node((*words, name), one) for name, one in command.commands.items()}}
    options: list[dict[str, Any]] = []
    arguments: list[str] = []
    for param in command.params:
        if param.param_type_name == "argument":
            kind = _choices(param) or (_ARGUMENTS.get(words, "") if not arguments else "")
            arguments.append(f"{kind}*" if param.nargs == -1 else kind)
        elif not getattr(param, "hidden", False):
            options.append(_option(words, param))
    options.append({"flags": ["--help", "-h"], "help": "Show the help.", "takes": False, "many": False, "values": ""})
    return {"help": about, "options": options, "arguments": arguments}


def _option(words: tuple[str, ...], param: Any) -> dict[str, Any]:
    flags = [*param.opts, *param.secondary_opts]
    name = max(param.opts, key=len)
    kind = _choices(param) or _OPTIONS.get(name, "")
    if name == "--part":
        from segbench.analysis.registry import ANALYSES

        kind = "=" + "|".join(ANALYSES[words[-1]].parts)
    about = " ".join(str(param.help or "").split())
    return {"flags": flags, "help": about, "takes": not param.is_flag, "many": bool(param.multiple), "values": kind}


def _choices(param: Any) -> str:
    choices = getattr(getattr(param, "type_descriptor", None), "choices", None)
    return "=" + "|".join(map(str, choices)) if choices else ""


def _weights() -> Iterable[Value]:
    from segbench.methods.weights import RELEASED

    return [(one.name, f"{one.kind} of {', '.join(one.methods)}") for one in RELEASED.values()]


def _starts() -> Iterable[Value]:
    return [
        ("random", "weights that are drawn"),
        ("published-backbone", "a backbone that was trained on ImageNet"),
        ("generalist", "the method's released model of cells"),
    ]


def _presets() -> Iterable[Value]:
    return [("demo", "three methods on synthetic data"), ("paper", "the published 138 runs"), ("full", "954 runs")]


def _methods() -> Iterable[Value]:
    from segbench.engine.grid.cards import method_names

    return [(name, "") for name in method_names()]


def _statuses() -> Iterable[Value]:
    from segbench.engine.results.statuses import ENDED

    return [(status.value, "") for status in ENDED]


def _forms() -> Iterable[Value]:
    from segbench.engine.models.outputs import FORMS

    return [(name, "") for name in (*FORMS, "all")]


def _launch_options() -> Iterable[Value]:
    from segbench.cli._options import OPTION_OF

    return [(name.replace("_", "-"), "") for name in OPTION_OF]


def _words() -> Iterable[Value]:
    from segbench.words import WORDS

    return [("words", "all of them"), *WORDS.items()]


_VALUES: dict[str, Callable[[], Iterable[Value]]] = {
    "weights": _weights,
    "starts": _starts,
    "presets": _presets,
    "methods": _methods,
    "statuses": _statuses,
    "metrics": lambda: [(name, "") for name in _METRICS],
    "forms": _forms,
    "launch options": _launch_options,
    "words": _words,
}
