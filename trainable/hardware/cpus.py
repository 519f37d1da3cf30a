"""How many CPUs this process may use."""

from joblib import cpu_count


def usable_cpus() -> int:
    """CPUs by affinity and by the control group's quota (v1 and v2, rounded up), whichever is fewer; at least 1.

    A container with 4 of 64 CPUs has 64 in `os.cpu_count()`, and often in its affinity too.
    """
    return int(cpu_count())
