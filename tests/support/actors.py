"""The trainable as Tune calls it, in the test's own process."""

import pytest
import ray

from tests.support.bench import Bench
from tests.support.manifests import put_manifest
from trainable.config import TrialConfig
from trainable.records.files import write_atomically, write_json
from trainable.records.run_folder import RunFolder
from trainable.records.trial_folder import TrialRecord
from trainable.trial import FaceTrial


def make_actor(bench: Bench, monkeypatch: pytest.MonkeyPatch, *trials: TrialConfig) -> FaceTrial:
    """An actor for the first of `trials`, all of them on record."""
    monkeypatch.setattr(FaceTrial, "__repr__", lambda self: "slot-test")
    monkeypatch.setattr(ray, "get_gpu_ids", list)
    run = RunFolder(bench.run.folder)
    put_manifest(run)
    write_json(run.session, {"number": 1})
    (run.path / "trials").mkdir()
    write_atomically(run.split, bench.split.read_bytes())
    records = [TrialRecord.create(run, each, number, 1) for number, each in enumerate(trials)]
    return FaceTrial(
        {
            "run": bench.run.model_dump(mode="json"),
            "session": 1,
            "resources": {"CPU": 1.0},
            "trial_id": records[0].trial_id,
        }
    )


def own_record(actor: FaceTrial) -> TrialRecord:
    """That of the trial which the actor has now."""
    return RunFolder(actor._run.folder).trial(actor._config["trial_id"])
