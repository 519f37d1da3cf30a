"""A module of the user's that has the name of one of our packages is named, and never taken for it."""

import subprocess
import sys
from pathlib import Path

from tests.support.project import ROOT


def test_another_module_named_sweep_is_an_error_of_the_import_that_names_both(
    tmp_path: Path,
) -> None:
    (tmp_path / "sweep.py").write_text("raise SystemExit('a module of the user was imported')\n")
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.append({str(ROOT)!r}); import analysis"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        f"ImportError: sweep must be the package in {ROOT}, but Python finds {tmp_path / 'sweep.py'}: rename that, or "
        "use the installed command `analysis`, which does not import modules from the current folder"
    )
