"""What a configuration may hold, in our words: pydantic's findings are reported without its wording."""

from typing import Any, Final

from pydantic import ValidationError

from trainable.errors import did_you_mean

KINDS: Final = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "text",
    "path": "a path",
    "tuple": "a list",
    "dict": "keys with their values",
}
"""By the prefix of pydantic's error types."""


def explain(error: ValidationError, value: object) -> str:
    """What must hold for one value, by every finding of `error` (several where several types are allowed), and what
    was given."""
    found = error.errors()
    words = [word for each in found for word in _words(each)]
    rest = [said for each in found if not _words(each) and (said := _must(each))]
    given = f"but it is {say(value)}"
    if words and not rest:
        hint = did_you_mean(value, words) if isinstance(value, str) else ""
        return f"must be one of {', '.join(words)}, {given}{hint}"
    if words:
        return f"must be {', '.join(words)} or {rest[0]}, {given}"
    if found[0]["type"] == "string_type" and not isinstance(value, list | dict | None):
        return f"must be text, {given}, which YAML does not read as text: put it in quotes"
    said = rest[0]
    return (
        f"{said if said.startswith(('must', 'needs', 'schedule')) else f'must be {said}'}, {given}"
    )


def say(value: object) -> str:
    """A value as YAML writes it."""
    if value is None or isinstance(value, bool):
        return {None: "empty", True: "true", False: "false"}[value]
    return repr(value)


def _words(found: Any) -> list[str]:
    """The words that are allowed."""
    if found["type"] not in ("literal_error", "enum"):
        return []
    expected = str(found["ctx"]["expected"])
    return [word.strip(" '") for word in expected.replace(" or ", ", ").split(",")]


def _must(found: Any) -> str:
    kind, context = found["type"], found.get("ctx", {})
    bounds = {
        "greater_than": "more than {gt:g}",
        "greater_than_equal": "at least {ge:g}",
        "less_than": "less than {lt:g}",
        "less_than_equal": "at most {le:g}",
        "finite_number": "a finite number",
    }
    if kind in bounds:
        return bounds[kind].format(**context)
    if kind == "value_error":
        return str(context["error"])
    name = kind.partition("_")[0]
    return KINDS.get(name) or str(found["msg"]).removeprefix("Input should be ")
