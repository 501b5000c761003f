"""Does kill_test kill when and where it says, and notice what goes wrong?"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from tests.unit import kill_programs as programs
from tidelog.testing import KillTestFailed, Lives, kill_test, step
from tidelog.testing.lives import Ended

ENDLESS = 1_000_000_000


def end_of(lives: Lives, life: int, timeout: float = 20.0) -> Ended:
    until = time.monotonic() + timeout
    while time.monotonic() < until:
        for ended in lives.wait(0.1):
            if ended.life == life:
                return ended
    raise AssertionError(f"life {life} has not ended")


def numbers(path: Path) -> list[int]:
    return [int(line) for line in path.read_bytes().split()]


def is_there(process: int) -> bool:
    with suppress(ProcessLookupError, FileNotFoundError):
        return Path(f"/proc/{process}/stat").read_text().split()[2] != "Z"
    return False


# --- lives ---


def test_a_step_does_nothing_outside_of_a_life() -> None:
    step("nowhere")


def test_endings(tmp_path: Path) -> None:
    with Lives() as lives:
        done = end_of(lives, lives.start(partial(programs.count_to, str(tmp_path / "n"), 3)))
        assert done == (done.life, "done", ("before", "after"), None, "")
        failed = end_of(lives, lives.start(programs.fails))
        assert failed.status == "failed" and "LookupError: there is no such thing" in failed.text
        assert end_of(lives, lives.start(partial(programs.leaves, 0))).status == "done"
        assert "SystemExit: 4" in end_of(lives, lives.start(partial(programs.leaves, 4))).text
        assert "exit code 3" in end_of(lives, lives.start(programs.ends_at_once)).text
        assert "exit code -15" in end_of(lives, lives.start(partial(programs.dies_of, signal.SIGTERM))).text
        assert end_of(lives, lives.start(partial(programs.dies_of, signal.SIGKILL))).status == "killed"
    assert numbers(tmp_path / "n") == [1, 2, 3]


@pytest.mark.parametrize(
    ("name", "nth", "left"), [("before", 1, 0), ("after", 1, 1), ("before", 3, 2), ("after", 3, 3)]
)
def test_death_at_a_step(name: str, nth: int, left: int, tmp_path: Path) -> None:
    with Lives() as lives:
        program = partial(programs.count_to, str(tmp_path / "n"), 10)
        ended = end_of(lives, lives.start(program, step=name, nth=nth))
        assert (ended.status, ended.at) == ("killed", name)
    assert len(numbers(tmp_path / "n")) == left


def test_a_step_that_is_passed_too_seldom_kills_nobody(tmp_path: Path) -> None:
    with Lives() as lives:
        program = partial(programs.count_to, str(tmp_path / "n"), 3)
        assert end_of(lives, lives.start(program, step="after", nth=4)).status == "done"


def test_steps_of_threads() -> None:
    with Lives() as lives:
        assert end_of(lives, lives.start(programs.steps_of_two_threads)).steps == ("first", "in a thread", "last")
        assert end_of(lives, lives.start(programs.steps_of_two_threads, step="in a thread")).at == "in a thread"


def test_every_line_is_a_step(tmp_path: Path) -> None:
    path = tmp_path / "total"
    first = programs.traced.__code__.co_firstlineno
    with Lives(lines=[programs.traced, programs.inner]) as lives:
        program = partial(programs.traced, str(path))
        steps = end_of(lives, lives.start(program)).steps
        assert {f"traced:{first + line}" for line in range(1, 6)} <= set(steps)
        assert {"traced:return", "inner:return"} <= set(steps)
        path.unlink()
        assert end_of(lives, lives.start(program, step=f"traced:{first + 4}")).status == "killed"
        assert not path.exists()  # before the line
        assert end_of(lives, lives.start(program, step=f"traced:{first + 5}")).status == "killed"
        assert path.read_text() == "6"
        assert end_of(lives, lives.start(program, step="inner:return", nth=3)).at == "inner:return"


def test_kill_from_outside() -> None:
    with Lives() as lives:
        one, two = lives.start(programs.sleeps), lives.start(programs.sleeps)
        lives.kill(two)
        assert end_of(lives, two).status == "killed"
        lives.kill(two)  # it has ended: nobody else is hit
        assert lives.wait(0.2) == []
        lives.kill(one)
        assert end_of(lives, one).status == "killed"


def test_a_death_is_told_though_a_child_lives_on(tmp_path: Path) -> None:
    with Lives() as lives:
        ended = end_of(
            lives,
            lives.start(partial(programs.with_a_child_that_stays, str(tmp_path / "p")), step="there is a child"),
            timeout=10,
        )
        assert ended.status == "killed"
    with suppress(ProcessLookupError):
        os.kill(int((tmp_path / "p").read_text()), signal.SIGKILL)


def test_nobody_outlives_it(tmp_path: Path) -> None:
    path = tmp_path / "p"
    with Lives() as lives:
        end_of(lives, lives.start(partial(programs.says_where, str(path))))
        nursery = int(path.read_text().split()[-1])
        assert is_there(nursery)
        for _ in range(3):
            lives.start(programs.sleeps)
        time.sleep(0.2)
        children = Path(f"/proc/{nursery}/task/{nursery}/children").read_text().split()
        assert len(children) == 3
    assert not is_there(nursery) and not any(is_there(int(child)) for child in children)


def test_lives_end_with_their_nursery(tmp_path: Path) -> None:
    path = tmp_path / "p"
    with Lives() as lives:
        end_of(lives, lives.start(partial(programs.says_where, str(path))))
        nursery = int(path.read_text().split()[-1])
        lives.start(programs.sleeps)
        time.sleep(0.2)
        (child,) = Path(f"/proc/{nursery}/task/{nursery}/children").read_text().split()
        os.kill(nursery, signal.SIGKILL)
        with pytest.raises(RuntimeError, match="ended with exit code -9"):
            while True:
                lives.wait(1)
        until = time.monotonic() + 5
        while is_there(int(child)):
            assert time.monotonic() < until
            time.sleep(0.01)


def test_it_runs_where_the_caller_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KILL_TEST_WORD", "tea")
    with Lives() as lives:
        end_of(lives, lives.start(partial(programs.says_where, "where")))
    assert (tmp_path / "where").read_text().split()[:2] == [str(tmp_path), "tea"]


def test_a_program_that_cannot_be_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "is_soon_gone.py").write_text("def program(): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    program = importlib.import_module("is_soon_gone").program
    with Lives() as lives:
        with pytest.raises(AttributeError, match="local object"):
            lives.start(lambda: None)
        (tmp_path / "is_soon_gone.py").unlink()
        with pytest.raises(RuntimeError, match="(?s)at the top of a module.*No module named 'is_soon_gone'"):
            lives.start(program)
        assert end_of(lives, lives.start(programs.steps_of_two_threads)).status == "done"  # others can
    sys.modules.pop("is_soon_gone")


# --- kill_test ---


def test_right_however_often_it_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "n"
    told = kill_test(
        partial(programs.count_to, str(path), ENDLESS),
        kills=40,
        until=lambda: True,
        lines=[programs.count_to],
        within=0.05,
        seed=7,
    )
    assert numbers(path) == list(range(1, len(numbers(path)) + 1))
    assert told.kills == sum(told.at.values()) >= 40 and told.lives >= told.kills
    assert {"before", "after", "anywhere"} <= told.at.keys() and len(told.at) >= 8
    assert str(told).startswith(f"{told.kills} kills of {told.lives} processes") and "(seed 7)" in str(told)


def test_a_kill_in_between_is_found(tmp_path: Path) -> None:
    path = tmp_path / "n"
    program = partial(programs.count_twice, str(path), ENDLESS)
    kill_test(program, kills=30, until=lambda: True, lines=[programs.count_twice, programs.note], within=0.05)
    found = numbers(path)
    assert set(found) == set(range(1, max(found) + 1)) and len(found) > max(found)


def test_it_ends_when_all_have_returned(tmp_path: Path) -> None:
    path = tmp_path / "n"
    told = kill_test(partial(programs.count_to, str(path), 500), kills=5, within=0.02)
    assert numbers(path) == list(range(1, 501)) and (told.kills, told.lives) == (5, 6)


def test_programs_together_until_it_is_done(tmp_path: Path) -> None:
    paths = [tmp_path / "a", tmp_path / "b"]

    def done() -> bool:
        return all(path.exists() and len(numbers(path)) >= 50 for path in paths)

    service = (partial(programs.count_to, str(path), ENDLESS) for path in paths)
    told = kill_test(*service, kills=20, until=done, within=0.05)
    assert told.kills >= 20 and done()
    assert all(numbers(path) == list(range(1, len(numbers(path)) + 1)) for path in paths)


def test_services_are_stopped_when_it_is_done() -> None:
    began = time.monotonic()
    kill_test(programs.sleeps, kills=3, until=lambda: True, within=0.05)
    assert time.monotonic() - began < 20


def test_a_program_that_fails() -> None:
    with pytest.raises(KillTestFailed, match="(?s)failed after 0 kills.*LookupError: there is no such thing"):
        kill_test(programs.fails, kills=3)


def test_too_little_to_do(tmp_path: Path) -> None:
    with pytest.raises(KillTestFailed, match="done after [0-9] of 100 kills"):
        kill_test(partial(programs.count_to, str(tmp_path / "n"), 2), kills=100)


def test_not_done_in_time() -> None:
    with pytest.raises(KillTestFailed, match="not done after 0.5 s"):
        kill_test(programs.sleeps, kills=0, timeout=0.5)


def test_what_makes_no_sense() -> None:
    with pytest.raises(ValueError, match="at least one program"):
        kill_test()
    for options in ({"kills": -1}, {"within": 0.0}, {"timeout": 0.0}):
        with pytest.raises(ValueError, match="below what makes sense"):
            kill_test(programs.sleeps, **options)  # type: ignore[arg-type]
