"""Real processes on servers that can be cut off: the fixtures of the fault tests."""

from tests.faults.conftest import ground, open_ledger, pytest_runtest_makereport, seed, stack

__all__ = ["ground", "open_ledger", "pytest_runtest_makereport", "seed", "stack"]
