"""The training loop as a Ray Tune trainable: one actor runs many trials, one after another.

`setup` can run on an actor that never runs the trial, so records are opened in the first `step`.
"""

import gc
import logging
import os
import socket
import time
import traceback
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import ray
import torch
from ray import tune
from ray.util.metrics import Gauge

from trainable.config import RunSettings
from trainable.data import TrainingData, open_training_data
from trainable.fit import fit
from trainable.frozen.shared import Shared
from trainable.hardware.cache import default_folder
from trainable.hardware.cpus import usable_cpus
from trainable.hardware.device import CaptureFailed, device_of
from trainable.hardware.memory import (
    give_back_idle_memory,
    import_before_training,
    keep_freed_memory,
)
from trainable.installation import code_digest, place
from trainable.network.model import Backbone, load_backbone
from trainable.records.faults import fault_of_run
from trainable.records.files import now
from trainable.records.paths import StaleSession
from trainable.records.rows import Outcome, Row, Status
from trainable.records.run_folder import RunFolder
from trainable.records.trial_folder import TrialRecord
from trainable.write_behind import Behind

LOG = logging.getLogger("trainable")


class FaceTrial(tune.Trainable):  # type: ignore[misc]  # Ray ships no types
    """Config: `run` (RunSettings as a dict), `session`, `resources`, `workers` (the most on one machine), `code` (path
    and digest of the driver's), and `trial_id`, which names the record."""

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> tune.PlacementGroupFactory:
        """What a trial gets. Defined here, so that the class keeps its name in Ray's dashboard."""
        return tune.PlacementGroupFactory([config["resources"]])

    def setup(self, config: dict[str, Any]) -> None:
        keep_freed_memory()
        self._run = RunSettings(**config["run"])
        self._shared: tuple[TrainingData, Backbone, Shared | None] | None = None
        with_it = ThreadPoolExecutor(1, thread_name_prefix="load")
        self._loading = with_it.submit(_load, self._run)
        with_it.shutdown(wait=False)
        import_before_training()
        self._gauges = {
            name: Gauge(f"sweep_{name}", text, tag_keys=("trial_id", "strategy"))
            for name, text in (
                ("value", "The metric that decides, at the last epoch"),
                ("best", "Its best value so far"),
                ("epoch", "Epochs finished"),
            )
        }
        self._fault = ""
        self._emptied = False
        self._writes_behind = bool(config.get("behind", True))
        self._behind = Behind(config.get("workers", 1))
        self._lost = ""
        """The fault of the run that prevented an earlier trial's weights from being written."""
        self._other_code = _other_code(config.get("code"))
        self._await(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._leave()
        self._await(new_config)
        return True

    def cleanup(self) -> None:
        self._behind.wait()
        self._leave()
        if self._shared is not None:
            data, _, shared = self._shared
            if shared is not None:
                shared.close()
            if data.training.decoders is not None:
                data.training.decoders.close()

    def __repr__(self) -> str:
        """A stable slot name: Ray keeps showing the one from the actor's first trial."""
        return f"slot-{ray.get_runtime_context().get_actor_id()[:6]}"

    def step(self) -> dict[str, Any]:
        """Train one epoch; the step after the last writes weights and status, or leaves them to be written behind."""
        if fault := self._other_code or self._fault or self._lost:
            time.sleep(1)  # the driver is ending the session
            return {"fault": fault}
        try:
            return self._epoch()
        except torch.OutOfMemoryError:
            if self._emptied:
                LOG.exception("trial %s failed", self._config["trial_id"])
                raise
            LOG.warning(
                "the GPU ran out of memory: features are no longer held there, and the trial is retried once",
                exc_info=True,
            )
        except CaptureFailed as error:
            self._train_eagerly(error)
            raise  # this process can't be trusted: on an error Tune ends it, and retries in a new one
        except StaleSession:
            raise
        except Exception as error:
            LOG.exception("trial %s failed", self._config["trial_id"])
            self._fault = fault_of_run(RunFolder(self._run.folder), error)
            if not self._fault:
                raise
            return {"fault": self._fault}
        self._emptied = True  # only here does the exception hold nothing any more
        if self._shared is not None and self._shared[2] is not None:
            self._shared[2].drop_resident()
        self._let_go()
        gc.collect()
        device_of(self._run.device).give_back()
        return self.step()

    def _epoch(self) -> dict[str, Any]:
        if self._rows is None:
            self._open()
        assert self._rows is not None
        try:
            row = next(self._rows)
        except StopIteration as end:
            return self._end(end.value)
        give_back_idle_memory()
        return self._report(row)

    def _await(self, config: dict[str, Any]) -> None:
        self._config = config
        self._rows: Generator[Row, None, Outcome] | None = None
        self._record: TrialRecord | None = None
        self._handler: logging.Handler | None = None
        self._fault = ""
        self._emptied = False

    def _open(self) -> None:
        """Open the trial's record, note there that it runs, and start or continue."""
        folder = RunFolder(self._run.folder)
        record = folder.trial(self._config["trial_id"], self._config["session"])
        record.behind = self._behind if self._writes_behind else None
        self._record = record
        if self._handler is None:
            self._handler = logging.FileHandler(record.log)
            self._handler.handleError = lambda record: None  # type: ignore[method-assign]  # of a full disk
            self._handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
            LOG.addHandler(self._handler)
            LOG.setLevel(logging.INFO)
        status = record.status()
        record.write_status(
            replace(
                status,
                status=Status.RUNNING,
                reason="",
                attempt=status.attempt + 1,
                host=socket.gethostname(),
                device=self._device(),
                slot=repr(self),
                pid=os.getpid(),
                started=status.started or now(),
                ended="",
            )
        )
        settings = record.asked.settings
        LOG.info(
            "trial %s in %r on %s (CUDA_VISIBLE_DEVICES=%s): %s",
            record.trial_id,
            self,
            self._device(),
            os.environ.get("CUDA_VISIBLE_DEVICES"),
            settings,
        )
        self._rows = self._training(record)

    def _training(self, record: TrialRecord) -> Generator[Row, None, Outcome]:
        """The loop over this trial's epochs; what trials share is opened by the first one."""
        run = self._run
        if record.status().eager:
            run = run.model_copy(update={"graphs": False})
        if self._shared is None:
            data, backbone = self._loading.result()
            device_of(run.device).limit_memory(run.gpu_share)
            self._shared = data, backbone, Shared(run, data, backbone) if run.sharing else None
        data, backbone, shared = self._shared
        return fit(record.asked.settings, run, data, backbone, record, shared)

    def _train_eagerly(self, error: CaptureFailed) -> None:
        """Record that this trial's steps are no longer captured."""
        LOG.warning(
            "trial %s continues eagerly: %s", self._config["trial_id"], error, exc_info=True
        )
        assert self._record is not None
        self._record.write_status(replace(self._record.status(), eager=str(error)))

    def _device(self) -> str:
        gpus = ", ".join(f"gpu {number}" for number in ray.get_gpu_ids())
        if self._run.device == "cuda":
            return f"{gpus} ({device_of('cuda').name()})"
        return gpus or f"cpu, {self._run.threads} threads"

    def _report(self, row: Row) -> dict[str, Any]:
        """What the driver is sent about an epoch; everything else is on record."""
        assert self._record is not None
        metric = self._run.metric
        values = [getattr(each, metric.value) for each in self._record.rows()]
        best = metric.score(max(map(metric.score, values)))
        tags = {
            "trial_id": self._record.trial_id,
            "strategy": self._record.asked.settings.strategy,
        }
        for name, value in (("value", values[-1]), ("best", best), ("epoch", row.epoch)):
            self._gauges[name].set(value, tags)
        return {
            "epoch": row.epoch,
            "value": values[-1],
            "best_value": best,
            "val_loss": row.val_loss,
            "seconds": row.seconds,
            "collapsed": row.collapsed,
            "remark": self._shared[2].problem if self._shared and self._shared[2] else "",
        }

    def _end(self, outcome: Outcome) -> dict[str, Any]:
        """Write the status last: it ends the trial. Tune is told at once; the driver waits for the status."""
        assert self._record is not None
        record, ended = self._record, now()
        LOG.info("trial %s: %s %s", record.trial_id, outcome.status, outcome.reason)
        if self._behind.has_left:
            record.write_status(replace(record.status(), reason="its weights are being written"))
        self._behind.begin(
            lambda: record.end(outcome.status, outcome.reason, ended),
            lambda error: self._not_written(record, error),
        )
        return {"done": True, "status": outcome.status.value, "reason": outcome.reason}

    def _not_written(self, record: TrialRecord, error: Exception) -> None:
        """Called by the thread that writes behind: the trial will be retried. A fault of the run ends the session with
        this worker's next step. If not even the status can be written, the worker exits, which the driver sees.
        """
        try:
            record.say("".join(traceback.format_exception(error)))
            self._lost = fault_of_run(RunFolder(self._run.folder), error)
            reason = self._lost or f"its weights could not be written: {error!r}"
            status = record.status()
            failures = status.failures + (not self._lost)
            record.write_status(
                replace(status, status=Status.INTERRUPTED, reason=reason, failures=failures)
            )
        except StaleSession:
            pass  # it is another driver's trial now
        except BaseException:
            os._exit(1)

    def _leave(self) -> None:
        """Let go of the last trial: its model and its log. Shared features may be held on the device again."""
        self._let_go()
        if self._shared is not None and self._shared[2] is not None:
            self._shared[2].hold_resident()
        if self._handler is not None:
            LOG.removeHandler(self._handler)
            self._handler.close()
            self._handler = None

    def _let_go(self) -> None:
        """Close the training, and free the GPU's memory."""
        if self._rows is not None:
            self._rows.close()
        self._rows = None
        device_of(self._run.device).give_back()


def _other_code(drivers: dict[str, str] | None) -> str:
    """Why this worker must not train: its code is not the driver's, as on a node that joined later; otherwise ""."""
    here = str(place())
    if drivers is None or here == drivers["place"] or code_digest() == drivers["digest"]:
        return ""
    return (
        f"workers must run the code of their driver, which is in {drivers['place']}, but {socket.gethostname()} has "
        f"other code in {here}; install the same version there"
    )


def _load(run: RunSettings) -> tuple[TrainingData, Backbone]:
    """What all trials of an actor share. On a GPU images are decoded by processes, started before CUDA is used;
    on a CPU, where the layers take a hundred times as long, by threads.
    """
    data = open_training_data(RunFolder(run.folder).split, run.images, run.image_size)
    processes = min(run.workers, usable_cpus()) if run.device == "cuda" else 1
    data.begin_decoders(processes, run.store or default_folder())
    return data, load_backbone(run.weights, run.width)
