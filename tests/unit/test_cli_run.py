"""Does `tidelog run` run an application, with workers too, and end with the right exit code?"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import tidelog
from tests.unit.commands import Commands
from tests.unit.test_app_processes import SERVICE, WAIT_SECONDS, Service, members


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    it = Service(tmp_path)
    try:
        yield it
    finally:
        it.close()


def tidelog_run(*words: object) -> list[str]:
    return [sys.executable, "-m", "tidelog.cli", "run", *map(str, words)]


def test_until_sigterm(service: Service) -> None:
    process = service.start_command(tidelog_run(f"{SERVICE}:app"))
    service.work.send("1", key="a")
    service.until(lambda: service.done())
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=WAIT_SECONDS)
    assert process.returncode == 0, said
    assert "service runs with 1 handlers" in said and "SIGTERM" in said and "has stopped" in said
    assert sum(service.committed().values()) == 1


def test_until_ctrl_c(service: Service) -> None:
    process = service.start_command(tidelog_run(SERVICE))
    service.until(lambda: service.words("ready"))
    process.send_signal(signal.SIGINT)
    assert process.wait(WAIT_SECONDS) == 130
    assert service.words("stopped")


def test_until_an_error(service: Service) -> None:
    service.work.send("fail", key="a")
    process = service.start_command(tidelog_run(SERVICE))
    _, said = process.communicate(timeout=WAIT_SECONDS)
    assert process.returncode == 1
    assert "told to fail" in said


def test_another_log_than_the_application_names(service: Service, tmp_path: Path) -> None:
    with tidelog.open(tmp_path / "other.log") as other:
        work = other.queue("work", str, partitions=4)
        work.send("elsewhere", key="a")
        process = service.start_command(tidelog_run(SERVICE, "-u", tmp_path / "other.log"))
        service.until(lambda: service.words("done"))
        process.terminate()
        assert process.wait(WAIT_SECONDS) == 0
    assert not service.committed()


def test_workers(service: Service) -> None:
    process = service.start_command(tidelog_run(SERVICE, "--workers", 2, "--log-level", "warning"))
    service.until(lambda: len(members(service)) == 2)
    assert process.pid not in members(service)
    service.work.send("1", key="a")
    service.until(lambda: service.lag() == 0)
    service.work.send("fail", key="a")
    _, said = process.communicate(timeout=WAIT_SECONDS)
    assert process.returncode == 1, said
    assert "told to fail" in said and not members(service)


def test_workers_that_cannot_start_end_it(service: Service, tmp_path: Path) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text(
        "import os\nfrom tidelog.app import App\napp = App('a', log=None, url='memory:')\n"
        "app.on('work')(print)\n"
        "if os.environ.get('ONCE'):\n    raise RuntimeError('only in workers')\nos.environ['ONCE'] = '1'\n"
    )
    process = service.start_command(tidelog_run(broken, "--workers", 2))
    begun = time.monotonic()
    _, said = process.communicate(timeout=WAIT_SECONDS)
    assert process.returncode == 1 and "only in workers" in said
    assert time.monotonic() - begun < 30


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["nothing_of_this_name:app"], 3, "there is no module"),
        (["nowhere/there.py"], 3, "there is no file"),
        ([f"{SERVICE.with_name('commands.py')}:Commands"], 2, "not a tidelog.App"),
        ([":app"], 2, "names no module"),
        ([f"{SERVICE.with_name('commands.py')}:app"], 3, "it has no tidelog.App"),
        (["a:b", "--workers", "0"], 2, "the least is 1"),
        ([], 2, "required: MODULE:APP"),
    ],
)
def test_what_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: list[str], code: int, says: str
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    ran = Commands(capsys, monkeypatch)("run", *words)
    assert (ran.code, says.lower() in ran.err.lower()) == (code, True), ran.err


def test_an_application_without_handlers_is_no_program(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = tmp_path / "empty_service.py"
    empty.write_text("import tidelog\napp = tidelog.App('a', 'memory:')\n")
    ran = Commands(capsys, monkeypatch)("run", empty)
    assert ran.code == 2 and "has no handlers, so there is nothing to run" in ran.err
