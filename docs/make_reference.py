"""The pages of the reference that follow from the code: commands, configuration, frames. A test holds them equal.

python docs/make_reference.py
"""

import ast
import inspect
import json
import textwrap
import types
from collections.abc import Iterator, Sequence
from enum import Enum
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin, get_type_hints

import typer
from pydantic import AfterValidator, BaseModel, BeforeValidator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from analysis.__main__ import app as analysis_app
from analysis.frames.columns import as_markdown as frames_page
from sweep.__main__ import app as sweep_app
from sweep.request import config as request
from sweep.request.config import EPOCHS, SweepConfig
from sweep.request.space import RANGES, SettingError, parse_space
from trainable import config as trial
from trainable.config import TrialConfig
from trainable.show.exit_codes import Exit

REFERENCE: Final = Path(__file__).parent / "reference"
MADE: Final = "<!-- made by docs/make_reference.py: change the code instead -->"


def row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [row(columns), row(["---"] * len(columns)), *map(row, rows)] if rows else []


# ---------------------------------------------------------------- commands


def commands_page() -> str:
    lines = [
        "# Commands",
        "",
        MADE,
        "",
        "Every command has `--help` (`-h`), and ends with one of the [exit codes](#exit-codes). `sweep --version` and",
        "`analysis --version` print the version, the commit and the place of the code.",
        "",
        "`CONFIG` is a [YAML file](configuration.md), `RUN` is a [run folder](run-folder.md), and `KEY=VALUE` is a",
        "key of the configuration with its value, such as `trial.epochs=3`.",
    ]
    for program, app in (("sweep", sweep_app), ("analysis", analysis_app)):
        for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
            lines += ["", *command_section(f"{program} {name}", command)]
    lines += ["", "## Exit codes", "", *table(("code", "meaning"), list(exit_codes()))]
    return "\n".join(lines) + "\n"


def command_section(name: str, command: Any) -> Iterator[str]:
    hints = get_type_hints(command.callback)
    options = [p for p in command.params if any(n[:1] == "-" for n in names_of(p))]
    arguments = [p for p in command.params if p not in options]
    usage = [name, *(p.metavar for p in arguments), *(f"[{option(p, hints)}]" for p in options)]
    yield from (f"## `{name}`", "", command.help, "")
    yield from (
        "```text",
        *textwrap.wrap(" ".join(usage), 100, subsequent_indent="    "),
        "```",
        "",
    )
    rows = [(f"`{p.metavar}`", "", p.help) for p in arguments]
    rows += [(f"`{option(p, hints)}`", default_of(p), p.help) for p in options]
    yield from table(("argument or option", "default", "meaning"), rows)


def names_of(parameter: Any) -> list[str]:
    return [name for name in (*parameter.opts, *parameter.secondary_opts) if name.strip()]


def option(parameter: Any, hints: dict[str, Any]) -> str:
    """--trials N, as it is typed."""
    names = "/".join(names_of(parameter))
    if parameter.is_flag:
        return names
    number = int in (hints[parameter.name], *get_args(hints[parameter.name]))
    return f"{names} {parameter.metavar or ('N' if number else 'TEXT')}"


def default_of(parameter: Any) -> str:
    plain = parameter.is_flag or parameter.default is None
    said = "" if plain else f"`{parameter.default}`"
    return said + (f", at least {least}" if (least := getattr(parameter, "min", None)) else "")


def exit_codes() -> Iterator[tuple[str, str]]:
    meanings = attribute_docs(Exit)
    for code in Exit:
        yield f"{code.value}", meanings[code.name]


# ---------------------------------------------------------------- configuration

KINDS: Final = {
    request._seconds: "a duration such as `8h`, `90m` or `45s`",
    request._bytes: "a size such as `200GB`",
    request._share: "`0`, `1`, or a share such as `1/2`",
    request._name: "letters, digits, `.`, `_` and `-`",
    request._section: "settings of a trial",
    trial._weights: "`imagenet` | `none` | a path",
    trial._known_head: "`mlp` | `pretrained` | `linear` | sizes such as `512-64`",
}
"""What a validator of ours takes, in words."""


def configuration_page() -> str:
    lines = [
        "# Configuration",
        "",
        MADE,
        "",
        "Every key of the YAML file that `sweep plan`, `sweep run` and `analysis explore` read.",
        "[Write a configuration](../how-to/configure.md) shows them at work. The command line can override any of",
        "them (`trial.epochs=3`). An unknown key is refused, and the message names the nearest known one. The file",
        "`sweep.yaml` in a run folder has all keys, with the values of that run.",
        "",
        "## Top level",
        "",
        *section(SweepConfig, ""),
    ]
    for name, model in sections(SweepConfig).items():
        lines += ["", f"## `{name}`", "", first_line(model), ""]
        if model is TrialConfig:
            lines += [*searched(), ""]
        lines += section(model, f"{name}.")
        if model is TrialConfig:
            meaning = "How many epochs a trial may train: a budget, and never searched."
            lines.append(
                row(("`trial.epochs`", "whole number, at least 1", f"`{EPOCHS}`", meaning))
            )
        for inner, nested in sections(model).items():
            lines += ["", f"## `{name}.{inner}`", "", first_line(nested), ""]
            lines += section(nested, f"{name}.{inner}.")
    return "\n".join(lines) + "\n"


def searched() -> Iterator[str]:
    yield "A plain value is fixed. To search a setting, give a list, or one of these; both ends are included:"
    yield ""
    shapes = {
        "uniform": "`{uniform: [0.1, 0.5]}`, evenly",
        "loguniform": "`{loguniform: [1e-5, 1e-3]}`, evenly in the logarithm",
        "int": "`{int: [1, 4]}`, whole numbers",
        "logint": "`{logint: [8, 256]}`, whole numbers, evenly in the logarithm",
        "quniform": "`{quniform: [0.1, 0.5, 0.1]}`, in steps of the third number",
    }
    yield from (f"* {shapes[kind]}" for kind in RANGES)
    yield "* `{when: {optimizer: sgd}, uniform: [0.8, 0.99]}`, searched only where another setting has this value;"
    yield "  beside `when` there may also be `choice: [a, b]` or `value: a`"


def section(model: type[BaseModel], prefix: str) -> list[str]:
    meanings = attribute_docs(model)
    needed = needed_of_a_space() if model is TrialConfig else ""
    rows = [
        (
            f"`{prefix}{name}`",
            kind_of(info),
            "must be given" if name == needed else default_in_words(info),
            meanings.get(name, ""),
        )
        for name, info in model.model_fields.items()
    ]
    return table(("key", "value", "default", "meaning"), rows)


def needed_of_a_space() -> str:
    """The setting without which there is no search space, though a trial alone has a default for it."""
    try:
        parse_space({})
    except SettingError as error:
        return error.name
    raise AssertionError("a space of nothing")


def sections(model: type[BaseModel]) -> dict[str, type[BaseModel]]:
    """The keys that hold sections of their own."""
    found = {}
    for name, info in model.model_fields.items():
        for part in (info.annotation, *get_args(info.annotation)):
            if isinstance(part, type) and issubclass(part, BaseModel):
                found[name] = part
        if name == "trial":  # a search space over these
            found[name] = TrialConfig
    return found


def first_line(model: type[BaseModel]) -> str:
    return (inspect.cleandoc(model.__doc__ or "").split("\n\n")[0]).replace("\n", " ")


def attribute_docs(owner: type) -> dict[str, str]:
    """Attribute → the text under it in the source, in one line."""
    [body] = ast.parse(textwrap.dedent(inspect.getsource(owner))).body
    assert isinstance(body, ast.ClassDef)
    found: dict[str, str] = {}
    for before, after in zip(body.body, body.body[1:], strict=False):
        target = before.target if isinstance(before, ast.AnnAssign) else None
        if isinstance(before, ast.Assign):
            [target] = before.targets  # type: ignore[assignment]
        if isinstance(target, ast.Name) and isinstance(after, ast.Expr):
            if isinstance(after.value, ast.Constant):
                found[target.id] = " ".join(str(after.value.value).split())
    return found


def kind_of(info: FieldInfo) -> str:
    """What may stand there, in words."""
    words = kind(info.annotation, info.metadata)
    if any(isinstance(m, BeforeValidator) and m.func is request._off for m in info.metadata):
        words += " | `off`"
    return words


def kind(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    for mark in metadata:
        if isinstance(mark, BeforeValidator | AfterValidator) and mark.func in KINDS:
            auto = " | `auto`" if "auto" in str(annotation) else ""
            return KINDS[mark.func] + auto
    origin, inside = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return kind(inside[0], inside[1:])
    if origin in (Union, types.UnionType):
        return " | ".join(kind(part, metadata) for part in inside if part is not type(None))
    if origin is Literal:
        return " | ".join(f"`{value}`" for value in inside)
    if origin is tuple:
        return f"list of {kind(inside[0])}"
    if inspect.isclass(annotation) and issubclass(annotation, Enum):
        return " | ".join(f"`{member.value}`" for member in annotation)
    plain = {bool: "`true` | `false`", int: "whole number", float: "number", str: "text"}
    plain |= {Path: "path"}
    if annotation in plain:
        return ", ".join([plain[annotation], *bounds(metadata)])
    return "settings of a trial" if annotation == dict[str, Any] else "section"


def bounds(metadata: Sequence[Any]) -> Iterator[str]:
    words = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    for mark in chain.from_iterable(getattr(m, "metadata", [m]) for m in metadata):
        for name, word in words.items():
            if (limit := getattr(mark, name, None)) is not None:
                yield f"{word} {limit}"


def default_in_words(info: FieldInfo) -> str:
    value = info.default
    if value is PydanticUndefined:
        return "must be given"
    if value is None:
        off = any(isinstance(m, BeforeValidator) and m.func is request._off for m in info.metadata)
        return "`off`" if off else ""
    if isinstance(value, BaseModel):
        return "as below"
    if isinstance(value, Enum | Path | str):
        return f"`{value.value if isinstance(value, Enum) else value}`"
    if value == ():
        return "none"
    return f"`{json.dumps(value)}`"


PAGES: Final = {
    "commands.md": commands_page,
    "configuration.md": configuration_page,
    "frames.md": frames_page,
}


if __name__ == "__main__":
    for name, made in PAGES.items():
        (REFERENCE / name).write_text(made())
