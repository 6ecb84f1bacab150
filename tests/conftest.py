# SPDX-License-Identifier: BSD-3-Clause
"""What all tests share: the shared data, loops over instruction sets, and what may not be skipped in CI."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from trulysparse import _kernels

settings.register_profile("local", deadline=None, max_examples=50)
settings.register_profile("ci", deadline=None, max_examples=50, derandomize=True, database=None)
IN_CI = os.environ.get("TRULYSPARSE_CI", "") not in ("", "0")
settings.load_profile("ci" if IN_CI else "local")


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    """Return a function that finds a shared data file by name, e.g. ``shared_data("madelon.npz")``.

    The directory is ``TRULYSPARSE_SHARED``, else ``../shared/data`` beside the checkout. A missing file skips
    the test; under ``TRULYSPARSE_CI`` it fails.
    """
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    directory = Path(os.environ.get("TRULYSPARSE_SHARED", beside))

    def find(name: str) -> Path:
        path = directory / name
        if not path.is_file():
            pytest.skip(f"no shared data file {path}; set TRULYSPARSE_SHARED to the directory that has it")
        return path

    return find


@pytest.fixture(params=_kernels.available_isas())
def each_isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run the test once under every instruction set that this machine has."""
    before = _kernels.isa()
    _kernels.set_isa(request.param)
    yield request.param
    _kernels.set_isa(before)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Under ``TRULYSPARSE_CI``, a test that needs MPI or the shared data fails where it would be skipped."""
    report = yield
    needed = "shared_data" in getattr(item, "fixturenames", ()) or item.get_closest_marker("mpi")
    if IN_CI and needed and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, but TRULYSPARSE_CI asks for it: {report.longrepr}"
    return report
