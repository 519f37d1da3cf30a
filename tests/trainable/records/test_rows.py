"""The row of an epoch: every measure under its own name, wherever it stands, and none missing in older rows."""

import json
import tarfile
from dataclasses import asdict, fields
from typing import Any

import pytest

from tests.support.project import ROOT
from trainable.metric import Metric
from trainable.records.rows import ADDED, FROZEN_COLUMNS, RATE_COLUMNS, ROW_COLUMNS, Row


def oldest() -> dict[str, Any]:
    """A row that commit 21d5110 wrote."""
    with tarfile.open(ROOT / "tests/fixtures/runs-21d5110/finished.tar.gz") as archive:
        name = next(name for name in archive.getnames() if name.endswith("/epochs.jsonl"))
        packed = archive.extractfile(name)
        assert packed is not None
        row: dict[str, Any] = json.loads(packed.readline())
    return row


def test_columns_that_the_oldest_rows_lack_are_named_with_what_they_are_there() -> None:
    row = oldest()
    assert set(ROW_COLUMNS) - set(row) == set(ADDED)
    assert Row.from_json(row) == Row(**{**row, **ADDED})


@pytest.mark.parametrize("column", ROW_COLUMNS)
def test_a_row_is_read_with_every_column_and_refused_without_one_that_all_have(column: str) -> None:
    row = oldest()
    row.pop(column, None)
    if column in ADDED:
        assert getattr(Row.from_json(row), column) == ADDED[column]
    else:
        with pytest.raises(KeyError, match=column):
            Row.from_json(row)


def test_values_in_the_order_of_the_columns_are_a_row() -> None:
    """However many columns there are, and wherever the guard's word stands, which is none."""
    values: dict[str, Any] = {name: place for place, name in enumerate(ROW_COLUMNS)}
    assert asdict(Row(*values.values())) == values | {"collapsed": False}
    assert {each.name for each in fields(Row)} - set(ROW_COLUMNS) == {"collapsed"}


def test_every_metric_is_a_rate_and_no_rate_is_counted_as_frozen_work() -> None:
    assert {metric.value for metric in Metric} <= set(RATE_COLUMNS)
    assert not set(RATE_COLUMNS) & set(FROZEN_COLUMNS)
