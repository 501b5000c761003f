"""Does an application survive kills, end in order when it is told to, and bring dead workers back?"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import tidelog
from tidelog.app import loading, workers

SERVICE = Path(__file__).with_name("app_service.py")
WAIT_SECONDS = 60.0


class Service:
    """One running application, and its story."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = tidelog.open(folder / "log")
        self.work = self.log.queue("work", str, partitions=4)
        self.started: list[subprocess.Popen[str]] = []

    def start(self, *arguments: object, **environment: object) -> subprocess.Popen[str]:
        return self.start_command([sys.executable, str(SERVICE), *map(str, arguments)], **environment)

    def start_command(self, command: list[str], **environment: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            command,
            env={**os.environ, "SERVICE_FOLDER": str(self.folder), **{k: str(v) for k, v in environment.items()}},
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.started.append(process)
        return process

    def story(self) -> list[list[str]]:
        file = self.folder / "story"
        return [line.split() for line in file.read_text().splitlines()] if file.exists() else []

    def words(self, what: str) -> list[list[str]]:
        return [line for line in self.story() if line[1] == what]

    def done(self) -> list[tuple[int, int]]:
        return [(int(line[2]), int(line[3])) for line in self.words("done")]

    def committed(self) -> dict[int, int]:
        return {row.partition: row.offset for row in self.work.offsets() if row.offset >= 0}

    def lag(self) -> int:
        return sum(row.lag for row in self.work.offsets()) if self.work.offsets() else -1

    def until(self, holds: Callable[[], object]) -> None:
        deadline = time.monotonic() + WAIT_SECONDS
        while not holds():
            assert time.monotonic() < deadline, (self.story()[-5:], self.committed())
            time.sleep(0.01)

    def close(self) -> None:
        for process in self.started:
            if process.poll() is None:
                process.kill()
            if process.stderr is not None and not process.stderr.closed:
                process.communicate()
        self.log.close()


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    it = Service(tmp_path)
    try:
        yield it
    finally:
        it.close()


@pytest.mark.parametrize(("concurrency", "pause"), [("1", 0.0005), ("4", 0.002), ("key", 0.01)])
def test_after_a_kill_nothing_is_lost_and_commits_were_contiguous(
    service: Service, concurrency: str, pause: float
) -> None:
    total = 4_000
    service.work.send_many([str(n) for n in range(total)], keys=[f"k{n % 40}" for n in range(total)])
    for _ in range(3):
        process = service.start(SERVICE_CONCURRENCY=concurrency, SERVICE_PAUSE=pause)
        before = len(service.done())
        service.until(lambda: len(service.done()) > before + 200)  # noqa: B023
        process.kill()
        process.wait()
        done = set(service.done())
        for partition, offset in service.committed().items():
            start = service.work.bounds(partition)[0]
            missing = [one for one in range(start, offset) if (partition, one) not in done]
            assert not missing, f"{len(missing)} messages before the committed offset {offset} were never handled"
    assert len(set(service.done())) < total, "the kills came too late to mean anything"
    process = service.start(SERVICE_CONCURRENCY=concurrency)
    service.until(lambda: service.lag() == 0)
    process.terminate()
    assert process.wait(WAIT_SECONDS) == 0
    assert len(set(service.done())) == total
    by_key: dict[str, list[int]] = {}
    first: set[str] = set()
    for line in service.words("done"):
        number = line[4]
        if number not in first:  # the first time that each was handled
            first.add(number)
            by_key.setdefault(f"k{int(number) % 40}", []).append(int(number))
    assert all(numbers == sorted(numbers) for numbers in by_key.values())


@pytest.mark.parametrize("concurrency", ["1", "key"])
def test_sigterm_finishes_what_is_in_flight(service: Service, concurrency: str) -> None:
    for number in range(8):
        service.work.send("sleep:0.6", key=str(number))
    process = service.start(SERVICE_CONCURRENCY=concurrency)
    service.until(lambda: service.words("begin"))
    time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(WAIT_SECONDS) == 0, process.communicate()
    begun, done = len(service.words("begin")), len(service.done())
    assert begun == done == (1 if concurrency == "1" else 8)
    assert sum(service.committed().values()) == done
    assert service.story()[-1][1] == "stopped"


def test_sigterm_does_not_wait_longer_than_the_drain_timeout(service: Service) -> None:
    service.work.send("sleep:50", key="a")
    process = service.start(SERVICE_DRAIN=0.3)
    service.until(lambda: service.words("begin"))
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    assert not service.done() and sum(service.committed().values()) == 0


def test_ctrl_c_ends_in_order_and_a_second_one_at_once(service: Service) -> None:
    process = service.start()
    service.until(lambda: service.words("ready"))
    process.send_signal(signal.SIGINT)
    assert process.wait(WAIT_SECONDS) == -signal.SIGINT  # python ends so after an unhandled KeyboardInterrupt
    assert service.words("stopped")
    service.work.send("sleep:50", key="a")
    process = service.start()
    service.until(lambda: service.words("begin"))
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == -signal.SIGINT


def test_an_error_that_nobody_takes_ends_the_program(service: Service) -> None:
    service.work.send("1", key="a")
    service.work.send("fail", key="a")
    process = service.start()
    _, said = process.communicate(timeout=WAIT_SECONDS)
    assert process.returncode == 1
    assert "ValueError: told to fail" in said and "work-" in said and "dead_letter=" in said
    assert sum(service.committed().values()) == 1


# --- workers ---


def members(service: Service) -> set[int]:
    groups = service.log.groups
    return {member.pid for member in groups["work"].members} if "work" in groups else set()


def test_workers_share_the_work_and_come_back_when_they_die(service: Service) -> None:
    process = service.start(2)
    service.until(lambda: len(members(service)) == 2)
    first = members(service)
    assert process.pid not in first
    for number in range(200):
        service.work.send(str(number), key=f"k{number}")
    service.until(lambda: service.lag() == 0)
    assert {int(line[0]) for line in service.words("done")} == first
    victim = min(first)
    os.kill(victim, signal.SIGKILL)
    service.until(lambda: len(members(service)) == 2 and victim not in members(service))
    service.work.send("die", key="k1")  # a message that kills its worker, once
    service.until(lambda: (service.folder / "died").exists())
    service.until(lambda: service.lag() == 0 and len(members(service)) == 2)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=WAIT_SECONDS)
    assert process.returncode == 0
    assert "ended by SIGKILL" in said and "exit code 9" in said
    assert not members(service)
    assert len(set(service.done())) == 201


def test_workers_end_when_their_parent_is_gone(service: Service) -> None:
    process = service.start(2)
    service.until(lambda: len(members(service)) == 2)
    process.kill()
    process.wait()
    service.until(lambda: not members(service))
    assert len(service.words("stopped")) == 2


def test_an_error_that_nobody_takes_ends_all_workers(service: Service) -> None:
    process = service.start(2)
    service.until(lambda: len(members(service)) == 2)
    service.work.send("fail", key="a")
    _, said = process.communicate(timeout=WAIT_SECONDS)
    assert process.returncode == 1
    assert "ValueError: told to fail" in said and "so do the others" in said
    assert not members(service)


def test_a_worker_that_dies_young_waits_longer_each_time() -> None:
    worker = workers._Worker(0)
    waits = []
    for second in range(10):
        worker.born = 100.0 + second
        waits.append(worker.died(101.0 + second))
    assert waits[:4] == [0.1, 0.2, 0.4, 0.8] and max(waits) == waits[-1] == 10.0
    worker.born = 200.0
    assert worker.died(200.1 + workers.YOUNG_SECONDS) == 0.0
    worker.born = 300.0
    assert worker.died(300.5) == 0.1


@pytest.mark.parametrize(("count", "error"), [(0, ValueError), (True, TypeError), ("2", TypeError)])
def test_wrong_numbers_of_workers(count: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="workers="):
        workers.supervise(["true"], count, drain_timeout=1)


# --- finding an application ---


def test_targets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "shop_for_targets"
    package.mkdir()
    (package / "__init__.py").touch()
    code = "from tidelog.app import App\napp = App('one')\nclass Inner:\n    other = App('two')\nnumber = 7\n"
    (package / "billing.py").write_text(code)
    (package / "broken.py").write_text("import a_module_that_is_not_there\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setitem(sys.modules, "billing", None)  # gone again afterwards
    del sys.modules["billing"]
    one = loading.load("shop_for_targets.billing")
    assert one.name == "one" and loading.load("shop_for_targets.billing:app") is one
    assert loading.load("shop_for_targets.billing:Inner.other").name == "two"
    assert loading.load("shop_for_targets/billing.py:app").name == "one"
    assert loading.target_of(one) == "shop_for_targets.billing:app"
    for target, error, says in [
        ("shop_for_targets.billing:nothing", LookupError, "it has shop_for_targets.billing:app"),
        ("shop_for_targets.billing:number", TypeError, "is a int, not a tidelog.App"),
        ("shop_for_targets.nothing:app", LookupError, "there is no module 'shop_for_targets.nothing'"),
        ("nothing_at_all_of_this_name", LookupError, "there is no module"),
        ("shop_for_targets/nothing.py", LookupError, "there is no file"),
        ("shop_for_targets.broken", ModuleNotFoundError, "a_module_that_is_not_there"),
        (":app", ValueError, "names no module"),
    ]:
        with pytest.raises(error, match=says):
            loading.load(target)


def test_an_application_that_no_module_holds_cannot_have_workers() -> None:
    from tidelog.app import App

    with pytest.raises(ValueError, match="is no name of a module"):
        App("hidden").run(workers=2)
