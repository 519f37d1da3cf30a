"""A file that can be opened and not read, whoever asks: no right of root's helps."""

from pathlib import Path
from typing import Final

UNREADABLE: Final = Path("/proc/self/mem")
"""Memory at address 0, which no process has: `Input/output error`. To be linked to."""
