"""The notebook of examples/ runs from top to bottom on a run folder, and shows what the records hold."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from analysis.frames import results
from tests.support.project import ROOT

NOTEBOOK = ROOT / "examples" / "explore_results.ipynb"


@pytest.mark.whole
def test_the_notebook_runs_on_any_run(
    unchanged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLOTLY_RENDERER", "json")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    first = next(cell for cell in notebook.cells if cell.cell_type == "code")
    assert first.source.startswith("run = ")
    first.source = f"run = {str(unchanged)!r}"
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = "".join(
        str(output.get("data", {}).get("text/plain", ""))
        for cell in notebook.cells
        for output in cell.get("outputs", [])
    )
    assert all(trial_id in shown for trial_id in results.trials(unchanged)["trial_id"])
