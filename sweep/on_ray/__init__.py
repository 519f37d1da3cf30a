"""Trials on a Ray: the only room of the sweep that imports it, and what Ray reads of the environment.

Set here, before any file of this room imports Ray, which reads some of it at once (reasons in docs/explanation/ray.md).
"""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
os.environ.setdefault("RAY_memory_monitor_refresh_ms", "0")
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", str(10**6))
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")

try:
    Path.home()
except RuntimeError:
    # a container's user without HOME and without an entry in passwd: Ray asks as it is imported
    os.environ["HOME"] = tempfile.mkdtemp(prefix="home-of-ray-")
    atexit.register(shutil.rmtree, os.environ["HOME"], ignore_errors=True)
