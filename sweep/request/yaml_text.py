"""YAML as this project reads it: the core schema of 1.2, with the line of each key; what it writes reads back equal."""

import re
from pathlib import Path
from typing import Any

import yaml

from trainable.errors import RequestError


class _Loader(yaml.SafeLoader):
    """YAML 1.2's core schema: 1e-3 is a number; off, no and 12:30 are text; a repeated key is refused."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  PyYAML's own protocol

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key.value!r} is given twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),  # "": a key without a value
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
    ("merge", r"<<", "<"),
):
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first)
    )
_Loader.add_constructor("tag:yaml.org,2002:int", lambda loader, node: int(str(node.value)))

Lines = dict[tuple[str, ...], int]


def parse_yaml(text: str, source: str) -> tuple[Any, Lines]:
    """The value of `text` and the line of each key.

    Raises:
        RequestError: it is not YAML, or gives a key twice.
    """
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        value = loader.construct_document(node) if node is not None else None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # also a number of 5,000 digits
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or error
        raise RequestError(f"{source}{line} must be YAML, but: {problem}") from None
    lines: Lines = {}
    _note_lines(node, (), lines, set())
    return value, lines


def _note_lines(
    node: yaml.Node | None, path: tuple[str, ...], lines: Lines, seen: set[int]
) -> None:
    if isinstance(node, yaml.MappingNode) and id(node) not in seen:
        seen.add(id(node))
        for key, value in node.value:
            lines[(*path, str(key.value))] = key.start_mark.line + 1
            _note_lines(value, (*path, str(key.value)), lines, seen)


def read_yaml(path: Path) -> tuple[dict[str, Any], dict[tuple[str, ...], str]]:
    """The keys in `path`, and where each was given.

    Raises:
        RequestError: it can't be read, or holds no keys.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise RequestError(
            f"{path} must be UTF-8 text, but it is not; save it again as UTF-8"
        ) from None
    except OSError as error:
        raise RequestError(
            f"{path} must be a configuration file, but it can't be read: {error.strerror}"
        ) from None
    return keys_in(text, str(path))


def keys_in(text: str, source: str) -> tuple[dict[str, Any], dict[tuple[str, ...], str]]:
    """The keys in `text`, and where each was given.

    Raises:
        RequestError: it holds none.
    """
    facts, lines = parse_yaml(text, source)
    if not isinstance(facts, dict):
        raise RequestError(
            f"{source} must hold keys such as name, data and trial, but it holds {facts!r}"
        )
    places = {key: f"line {line} of {source}" for key, line in lines.items()}
    return facts, places


class _Dumper(yaml.SafeDumper):
    """Quotes every text that this loader, or YAML 1.1's, would read as something else."""

    yaml_implicit_resolvers: dict[str, Any] = {  # noqa: RUF012  PyYAML's own protocol
        first: yaml.SafeDumper.yaml_implicit_resolvers.get(first, [])
        + _Loader.yaml_implicit_resolvers.get(first, [])
        for first in {*yaml.SafeDumper.yaml_implicit_resolvers, *_Loader.yaml_implicit_resolvers}
    }


def _write_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    """Write what is not printable, line ends included, as an escape: YAML folds and changes some of it."""
    style = None if text.isprintable() else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _write_text)


def write_yaml(facts: dict[str, Any]) -> str:
    """`facts` as YAML that `parse_yaml` reads back as equal, whatever strings they hold."""
    return yaml.dump(facts, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
