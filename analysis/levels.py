"""From where on something counts: the levels that all conclusions share."""

from typing import Final

CONFIDENCE: Final = 0.95
"""Confidence level of every interval: the usual one."""
ALPHA: Final = 0.05
"""Significance level: p-values below it, after Holm's correction if there are several, count as findings. The usual
level."""
POWER: Final = 0.8
"""The probability with which a test finds the difference that is called visible: the usual one (Cohen 1988)."""
NEGLIGIBLE: Final = 0.01
"""A difference of a share or area up to this does not matter: one point; assumed."""
FINALISTS: Final = 5
"""The winner and its runners-up, in all; each further one makes Holm's correction stricter; assumed."""
