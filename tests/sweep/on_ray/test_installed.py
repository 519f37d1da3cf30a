"""Workers import the driver's code, wherever the command is given; what another node imports is looked at first."""

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ray import cloudpickle

from sweep.on_ray.installed import code_here, job, python_path, refuse_other_code
from tests.support.processes import start
from tests.support.project import ROOT
from tests.support.ray_sweeps import end
from trainable import installation
from trainable.errors import RequestError
from trainable.records.manifest import read_manifest
from trainable.records.rows import Status
from trainable.records.run_folder import RunFolder

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

COMMAND = """
import sys
from sweep.__main__ import main
sys.exit(main())
"""
THEIRS = "raise SystemExit('a module of the user was imported')\n"
WITNESS = """
import os
with open(os.environ["WITNESS"], "a") as _file:
    _file.write(f"{os.getpid()} {__file__}\\n")
"""


def installed(root: Path) -> Path:
    """A copy of the packages that says which process imports it, as pip installs them below `root`; its command."""
    site, command = root / "site-packages", root / "bin" / "sweep"
    for package in installation.PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, site / package, ignore=ignored)
    with (site / "trainable" / "__init__.py").open("a") as file:
        file.write(WITNESS)
    (site / "face_attribute_sweep-9.9.dist-info").mkdir()
    (site / "face_attribute_sweep-9.9.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: face-attribute-sweep\nVersion: 9.9\n"
    )
    command.parent.mkdir()
    command.write_text(COMMAND)
    return command


def give(command: Path, *arguments: object, where: Path) -> subprocess.Popen[str]:
    """The installed command, in a folder of the user's."""
    return start(
        [sys.executable, str(command), *map(str, arguments)],
        cwd=where,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={
            **os.environ,
            "PYTHONPATH": str(command.parent.parent / "site-packages"),
            "WITNESS": str(command.parent / "witness"),
            "SWEEP_STORE": str(where / "store"),
            "SWEEP_RAY_BESIDE_CPUS": "1",  # so that idle workers import early, too
        },
    )


@pytest.fixture
def users(tmp_path: Path) -> Path:
    """A folder with modules of the user's that are named as ours are."""
    folder = tmp_path / "user"
    folder.mkdir()
    for name in installation.PACKAGES:
        (folder / f"{name}.py").write_text(THEIRS)
    return folder


def test_trials_run_the_installed_code_where_the_user_has_modules_of_its_names(
    configure: Callable[..., Path], tmp_path: Path, users: Path
) -> None:
    """Ray would put the user's folder first on the path of each worker."""
    command = installed(tmp_path / "there")
    config = configure({"lr": 1e-3, "epochs": 2}, sharing="off")
    code, out, err = end(give(command, "run", config, where=users), seconds=400)
    assert code == 0, out + err
    run = RunFolder(tmp_path / "run")
    (record,) = run.trials()
    assert record.status().status is Status.FINISHED
    assert read_manifest(run).project_version == "9.9"
    imported = dict(
        line.split(" ", 1) for line in (command.parent / "witness").read_text().splitlines()
    )
    place = command.parent.parent / "site-packages" / "trainable" / "__init__.py"
    assert imported[str(record.status().pid)] == str(place)


@pytest.mark.slow
def test_a_checkout_that_is_not_installed_runs_its_own_code_where_another_is(
    configure: Callable[..., Path], tmp_path: Path
) -> None:
    """Given in its folder; idle workers, which import early, know of the installed one alone by themselves."""
    clone, witness = tmp_path / "clone", tmp_path / "witness"
    for package in installation.PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, clone / package, ignore=ignored)
    with (clone / "trainable" / "__init__.py").open("a") as file:
        file.write(WITNESS)
    config = configure({"lr": 1e-3, "epochs": 2}, sharing="off")
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment |= {"WITNESS": str(witness), "SWEEP_STORE": str(tmp_path / "store")}
    process = start(
        [sys.executable, "-m", "sweep", "run", str(config)],
        cwd=clone,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment | {"SWEEP_RAY_BESIDE_CPUS": "1"},
    )
    code, out, err = end(process, seconds=400)
    assert code == 0, out + err
    run = RunFolder(tmp_path / "run")
    (record,) = run.trials()
    assert read_manifest(run).project_version == "not installed"
    imported = dict(line.split(" ", 1) for line in witness.read_text().splitlines())
    assert imported[str(record.status().pid)] == str(clone / "trainable" / "__init__.py")


@pytest.fixture
def other_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A cluster of one node where another version is installed."""
    from ray.cluster_utils import Cluster

    command = installed(tmp_path / "other")
    site = command.parent.parent / "site-packages"
    (site / "trainable" / "later.py").write_text("")
    monkeypatch.setenv("PYTHONPATH", str(site))
    monkeypatch.setenv("WITNESS", str(command.parent / "witness"))
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False}
    )
    yield cluster
    cluster.shutdown()


@pytest.mark.slow
def test_a_node_with_other_code_is_refused_before_anything_begins(
    configure: Callable[..., Path], tmp_path: Path, users: Path, other_cluster: Any
) -> None:
    command = installed(tmp_path / "there")
    config = configure({"lr": 1e-3, "epochs": 2}, sharing="off")
    for asked in ("plan", "run"):
        process = give(command, asked, config, "--address", other_cluster.address, where=users)
        code, out, err = end(process, seconds=300)
        assert code == 2, out + err
        assert err.count("\n") == 1 and "every node must have the code of this driver" in err
        assert (
            f"imports other code from {tmp_path / 'other' / 'site-packages'} (version 9.9)" in err
        )
        assert not (tmp_path / "run").exists()


# ---------------------------------------------------------------- without a Ray


def test_the_question_reaches_a_node_that_has_no_such_code(users: Path) -> None:
    """It is sent whole: what it is named after may be the user's there, or missing."""
    asked = cloudpickle.dumps(code_here)
    program = "import pickle, sys, json; print(json.dumps(pickle.load(sys.stdin.buffer)()))"
    for module, why in (
        (THEIRS, "SystemExit: a module of the user was imported"),
        (
            "",
            "ModuleNotFoundError: No module named 'trainable.installation'; 'trainable' is not a package",
        ),
    ):
        (users / "trainable.py").write_text(module)
        ended = subprocess.run(
            [sys.executable, "-c", program], input=asked, cwd=users, capture_output=True, check=True
        )
        answer = json.loads(ended.stdout)
        assert answer["why"] == why
        with pytest.raises(RequestError, match="install the same version on every node") as caught:
            refuse_other_code([code_here(), answer])
        assert f"but {answer['host']} can't import it ({why})" in str(caught.value)
    assert pickle.loads(asked)() == code_here()


def test_the_same_code_in_another_place_is_no_other_code() -> None:
    mine = code_here()
    refuse_other_code([mine, mine | {"host": "b", "place": "/elsewhere", "version": "other"}])
    with pytest.raises(
        RequestError, match=r"but b imports other code from /elsewhere \(version 1.0\)"
    ):
        refuse_other_code(
            [mine, mine | {"host": "b", "place": "/elsewhere", "version": "1.0", "digest": "0"}]
        )


@pytest.mark.parametrize("before", [None, "/theirs"])
def test_a_checkout_is_made_known_to_workers_and_an_installation_is_known(
    monkeypatch: pytest.MonkeyPatch, before: str | None
) -> None:
    if before is None:
        monkeypatch.delenv("PYTHONPATH", raising=False)
    else:
        monkeypatch.setenv("PYTHONPATH", before)
    for place, known in ((Path("/clone"), ["/clone"]), (Path("/usr/site-packages"), [])):
        monkeypatch.setattr("sweep.on_ray.installed.place", lambda place=place: place)
        told = job()
        told._py_driver_sys_path.extend(["/where/the/user/is"])  # as ray.init does
        assert list(told._get_proto_job_config().py_driver_sys_path) == known
        with python_path():
            folders = [*known, *([before] if before else [])]
            assert os.environ.get("PYTHONPATH") == (":".join(folders) or None)
        assert os.environ.get("PYTHONPATH") == before


def test_a_module_of_the_users_is_named_where_python_m_would_run_it(users: Path) -> None:
    """Of a sweep.py nothing can be said: then nothing of ours runs."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for command, theirs in (("sweep", "trainable"), ("analysis", "sweep")):
        for name in installation.PACKAGES:
            (users / f"{name}.py").unlink(missing_ok=True)
        (users / f"{theirs}.py").write_text(THEIRS)
        ended = subprocess.run(
            [sys.executable, "-m", command, "--version"],
            cwd=users,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert ended.returncode == 2 and ended.stdout == ""
        assert ended.stderr.count("\n") == 1
        assert f"{theirs} must be the package in {ROOT}" in ended.stderr
        assert f"Python finds {users / f'{theirs}.py'}" in ended.stderr
