"""What all tests share: one plugin per real thing, and the rule that nothing is skipped."""

from __future__ import annotations

import contextlib
import shutil
import signal
import time
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

# No test's node lives so long.
RUN_DIRECTORY_S = 600.0

pytest_plugins = [
    "tests.fixtures.fix_postgres",
    "tests.fixtures.fix_redis",
    "tests.fixtures.fix_node",
    "tests.fixtures.fix_lab",
    "tests.fixtures.fix_workers",
    "supervisor.testing.pytest_plugin",
]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--no-skips``, which ``make test`` uses: there everything that is needed is there."""
    parser.addoption("--no-skips", action="store_true", help="a skipped test is a failed test")


def pytest_configure() -> None:
    """Undo what a shell does to its background jobs, or no test's Ctrl-C would reach anybody."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _run_links() -> set[Path]:
    """The links to state directories; a glob to the end would leave out those that lead nowhere."""
    return {directory / "state" for directory in Path("/run").glob("novacron-*")}


@pytest.fixture(autouse=True)
def _no_run_directories_left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Take away the run directories that a test's state directories had outside of themselves."""
    before = _run_links()
    yield
    ours = tmp_path_factory.getbasetemp()
    for link in _run_links():
        # Another run of the tests may start a node in this moment, and take its link away.
        with contextlib.suppress(FileNotFoundError):
            state = link.readlink()
            is_ours = link not in before and state.is_relative_to(ours)
            # A state directory may be there for a node with mounts of its own alone.
            is_old = link.parent.stat().st_mtime < time.time() - RUN_DIRECTORY_S
            if is_ours or (is_old and not state.exists()):
                shutil.rmtree(link.parent, ignore_errors=True)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skip into a failure that gives its reason."""
    report = yield
    if report.skipped and item.config.getoption("--no-skips") and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{reason} (a skip is a failure with --no-skips)"
    return report
