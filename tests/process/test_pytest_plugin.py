"""The fixture against leftovers finds them, wherever they hide, and lets clean tests pass."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.testing.pytest_plugin import ProcessLeftError, leaving_no_process

pytestmark = pytest.mark.process

SLEEP = [sys.executable, "-S", "-c", "import time; time.sleep(60)"]
# Leaves a grandchild in a session of its own, whose parent has ended.
DETACH = """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(60)
    os._exit(0)
os.wait()
"""


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    """A process that was there before."""
    process = subprocess.Popen(SLEEP)
    yield process
    process.kill()
    process.wait()


def test_what_ends_in_time_is_no_leftover(bystander: subprocess.Popen[bytes]) -> None:
    """Neither is what was there before, which lives on."""
    with leaving_no_process():
        process = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(0.2)"])

    with contextlib.suppress(ChildProcessError):
        os.waitpid(process.pid, 0)
    process.returncode = 0
    assert bystander.poll() is None


def test_a_child_that_is_left_is_named_and_ended() -> None:
    """By its pid and its command line."""
    with pytest.raises(ProcessLeftError) as caught, leaving_no_process(grace_s=0.1):
        process = subprocess.Popen(SLEEP)

    process.returncode = -signal.SIGKILL
    assert [line.split()[0] for line in caught.value.lines] == [str(process.pid)]
    assert "time.sleep(60)" in str(caught.value)
    assert not Path(f"/proc/{process.pid}").exists()


def test_a_detached_grandchild_is_found() -> None:
    """Its own session and the death of its parents do not hide it."""
    with pytest.raises(ProcessLeftError) as caught, leaving_no_process(grace_s=0.1):
        subprocess.run([sys.executable, "-S", "-c", DETACH], check=True)

    (line,) = caught.value.lines
    assert not Path(f"/proc/{line.split()[0]}").exists()


def test_a_test_that_leaves_a_process_fails_and_the_next_one_does_not(tmp_path: Path) -> None:
    """Seen from outside: pytest reports the test, names the process, and goes on clean."""
    (tmp_path / "test_it.py").write_text(
        "import subprocess\n"
        "import pytest\n"
        "pytestmark = pytest.mark.usefixtures('no_process_left')\n"
        f"def test_leaves():\n    subprocess.Popen({SLEEP!r}).returncode = 0\n"
        "def test_clean():\n    subprocess.run(['true'], check=True)\n"
    )
    began_s = time.monotonic()

    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "supervisor.testing.pytest_plugin"),
            *("-p", "no:cacheprovider", f"--rootdir={tmp_path}", str(tmp_path)),
        ],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert done.returncode == 1
    assert "ERROR at teardown of test_leaves" in done.stdout
    assert "left processes behind" in done.stdout
    assert "2 passed, 1 error" in done.stdout
    assert time.monotonic() - began_s < 20
