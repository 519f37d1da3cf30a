"""Trials on Ray: the only package of the sweep that imports Ray, and the environment variables that Ray reads.

They are set here, before any module of this package imports Ray, which reads some at once (reasons in
docs/explanation/ray.md).
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
os.environ.setdefault("RAY_gcs_server_port_wait_time_s", "120")

try:
    Path.home()
except RuntimeError:
    # a container's user may have neither HOME nor an entry in passwd, but Ray needs a home when it is imported
    os.environ["HOME"] = tempfile.mkdtemp(prefix="home-of-ray-")
    atexit.register(shutil.rmtree, os.environ["HOME"], ignore_errors=True)
