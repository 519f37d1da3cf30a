"""Interprets a column of text as labels of two classes, or numbers. Which words mean "missing" is never guessed."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd

from trainable.config import DataConfig
from trainable.errors import RequestError

MAYBE_MISSING: Final = frozenset(
    (
        *(
            "na",
            "n/a",
            "n.a.",
            "#n/a",
            "<na>",
            "nan",
            "null",
            "none",
            "nil",
            "missing",
            "unknown",
            "unk",
            "undefined",
        ),
        *("?", ".", "-", "--", "–", "−", "#value!", "#ref!", "#null!", "#name?", "#div/0!"),
    )
)
"""Words, in lower case, that mean a missing value in some tables and a value in others."""
NUMBER: Final = re.compile(r"[-−+]?([0-9]{1,40}\.?[0-9]{0,40}|\.[0-9]{1,40})([eE][-+]?[0-9]{1,3})?")
EXACT_DIGITS: Final = 15
"""Longer whole numbers are names, which a float would round: a double holds any number of 15 digits (IEEE 754)."""
SHOWN: Final = 5  # values that a message lists; assumed


@dataclass(frozen=True)
class Labels:
    """A target column."""

    values: "pd.Series[int]"
    """0 or 1; also 0 if the label is missing."""
    missing: "pd.Series[bool]"
    classes: tuple[str, str]
    """What the table calls label 0 and label 1."""
    called: "pd.Series[str]"
    """The value of each row, under one name for all its spellings."""
    ordered: tuple[str, ...]
    """The values: those of label 0, then the one of label 1."""

    def said(self, rows: "np.ndarray[Any, Any]") -> str:
        """How these rows are counted, such as `no (31 rows) counts as 0; yes (29 rows) counts as 1`."""
        counts = self.called[rows].value_counts()
        each = [f"{value} ({counts.get(value, 0):,} rows)" for value in self.ordered]
        zero = f"{', '.join(each[:-1])} count{'s' if len(each) == 2 else ''} as 0"
        return f"{zero}; {each[-1]} counts as 1"


def labels_of(column: "pd.Series[str]", data: DataConfig, where: str) -> Labels:
    """Labels from the text of a column.

    Raises:
        RequestError: not two classes, words that may mean "missing", missing labels that are not allowed.
    """
    missing = missing_in(column, data, where)
    if missing.all():
        raise RequestError(f"{where} must have two values, but it has none")
    if missing.any() and data.missing == "refuse":
        raise RequestError(
            f"{where} must have a value in every row, but {int(missing.sum()):,} of {len(missing):,} have none, "
            f"row {int(np.flatnonzero(missing)[0]) + 1} first; fill them in, or set data.missing=drop to leave them out"
        )
    names = _one_name_each(column[~missing].unique().tolist())
    ordered = _ordered(set(names.values()))
    if len(ordered) > 2 and data.missing_values is None:
        _refuse_words(ordered, where)
    _refuse_spellings(ordered, where)
    one = _positive(ordered, data, where)
    zeros = [value for value in ordered if value != one]
    zero = zeros[0] if len(zeros) == 1 else f"not {one}"
    called = column.where(~missing).map(names)
    values = called.eq(one).astype("int64")
    return Labels(values, missing, (zero, one), called, (*zeros, one))


def missing_in(column: "pd.Series[str]", data: DataConfig, where: str) -> "pd.Series[bool]":
    """Which rows have no value: an empty field, or one of `data.missing_values`.

    Raises:
        RequestError: one of these does not occur, or also occurs in another spelling.
    """
    values = [value for value in column.unique() if value != ""]
    absent = {value for word in data.missing_values or () for value in values if _same(value, word)}
    for word in data.missing_values or ():
        there = any(_same(value, word) for value in values)
        like = [v for v in values if v not in absent and v.casefold() == word.strip().casefold()]
        if like or not there:
            but = f"beside {word!r}" if there else f"no row has {word!r}"
            but += f" it has {like[0]!r}" if there else f"; it has {like[0]!r}" if like else ""
            raise RequestError(
                f"data.missing_values must list words of {where}, each in all its spellings, but {but}"
            )
    return (column == "") | column.isin(absent)


def _refuse_words(values: Sequence[str], where: str) -> None:
    words = [value for value in values if value.casefold() in MAYBE_MISSING]
    if words:
        listed = ", ".join(f'"{word}"' for word in words)
        raise RequestError(
            f"{where} must have two values, but it has {len(values)}: {_shown(values)}; if {' and '.join(words)} "
            f"mean{'s' if len(words) == 1 else ''} that there is no value, "
            f"set 'data.missing_values=[{listed}]'; if not, set 'data.missing_values=[]'"
        )


def _refuse_spellings(values: Sequence[str], where: str) -> None:
    """Refuse one word in two spellings, which is hardly two classes."""
    first: dict[str, str] = {}
    for value in values:
        other = first.setdefault(value.casefold(), value)
        if other != value:
            raise RequestError(
                f"{where} must spell each value in one way, but it has {other!r} and {value!r}; spell them alike"
            )


def _positive(values: Sequence[str], data: DataConfig, where: str) -> str:
    """The value that counts as 1: the one that was named, otherwise the larger of two."""
    if data.positive is not None:
        named = [value for value in values if _same(value, data.positive)]
        if not named:
            raise RequestError(
                f"data.positive must be one of the values of {where}, {_shown(values)}, but it is {data.positive!r}"
            )
        if len(values) > 1:
            return named[0]
    if len(values) != 2:
        remedy = (
            "; set data.positive=VALUE for one value against all others" if len(values) > 2 else ""
        )
        raise RequestError(
            f"{where} must have two values, but it has {len(values)}: {_shown(values)}{remedy}"
        )
    return values[1]


def _shown(values: Sequence[str]) -> str:
    return ", ".join(map(repr, values[:SHOWN])) + (", …" if len(values) > SHOWN else "")


def _number(text: str) -> float | None:
    return float(text.replace("−", "-")) if NUMBER.fullmatch(text) else None


def _same(value: str, given: str) -> bool:
    """Is `value` what was given? True and false lose their spelling when YAML reads them."""
    given = given.strip()
    if value == given or (given in ("True", "False") and value.casefold() == given.casefold()):
        return True
    return _number(value) is not None and _number(value) == _number(given)


def _one_name_each(values: Sequence[str]) -> dict[str, str]:
    """The name of each value: the numbers 1 and 1.0 are one value, named by its shortest spelling."""
    shortest: dict[float, str] = {}
    for value in sorted(values, key=lambda text: (len(text), text)):
        number = _number(value)
        if number is not None:
            shortest.setdefault(number, value)
    return {value: shortest.get(_number(value), value) for value in values}  # type: ignore[arg-type]


def _ordered(values: Collection[str]) -> list[str]:
    """By size if all are numbers, otherwise alphabetically."""
    numbers = {value: _number(value) for value in values}
    if None not in numbers.values():
        return sorted(values, key=lambda value: numbers[value] or 0.0)
    return sorted(values)


def typed(frame: pd.DataFrame) -> pd.DataFrame:
    """Columns of text by their content: numbers if every value is one, missing where a field is empty."""
    return pd.DataFrame({name: _typed(frame[name]) for name in frame.columns}, index=frame.index)


def _typed(column: "pd.Series[str]") -> "pd.Series[Any]":
    there = column.where(column != "", None)
    values = there.dropna().unique()
    if len(values) and all(
        NUMBER.fullmatch(v) and len(v) <= EXACT_DIGITS and "−" not in v for v in values
    ):
        return pd.to_numeric(there)
    return there
