"""Does `tidelog chaos` say what is wrong with what it was given, before it kills anything?

That it finds what is wrong with an application is held by tests/processes/test_chaos.py.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.commands import Commands

SHOP = """
import msgspec
import tidelog
from tidelog.testing import effect

class Order(msgspec.Struct):
    id: int
    sku: str

app = tidelog.App("shop", url="shop.log")
orders = app.queue("orders", Order)
number = 3

@app.on(orders)
def take(order: Order) -> None:
    {body}
"""


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Commands:
    return Commands(capsys, monkeypatch)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current directory, with an application chaos_shop.py; it stays as it was."""
    (tmp_path / "chaos_shop.py").write_text(SHOP.format(body="effect('take', order.id)"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "temporary").mkdir()
    yield tmp_path
    assert not (tmp_path / "shop.log").exists(), "the application's own log is never touched"
    assert not list((tmp_path / "temporary").glob("tidelog-chaos-*")), "nothing is left behind"
    assert "chaos_shop" not in sys.modules, "the application is loaded in processes of its own only"


def write(here: Path, name: str, text: str) -> str:
    (here / f"{name}.py").write_text(text)
    return f"{name}:app"


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ("chaos_nowhere:app", 3, "there is no module 'chaos_nowhere' in {here}"),
        ("chaos_nowhere.py:app", 3, "there is no file {here}/chaos_nowhere.py"),
        ("chaos_shop:nothing", 3, "it has chaos_shop:app"),
        ("chaos_shop:number", 2, "is a int, not a tidelog.App"),
        (":app", 2, "names no module"),
        ("chaos_shop --expect sometimes", 2, "use one of exactly-once, at-least-once, at-most-once"),
        ("chaos_shop --expect nobody=exactly-once", 2, "there is no handler 'nobody'"),
        ("chaos_shop --only take/nothing", 2, "there is no step 'take/nothing'; the steps are take/received"),
        ("chaos_shop --messages 0", 2, "no number above zero"),
        ("chaos_shop --random -1", 2, "below what makes sense"),
        ("chaos_shop --timeout 0", 2, "below what makes sense"),
        ("chaos_shop --input nothing.jsonl", 2, "nothing.jsonl"),
        ("chaos_shop --input bills=x.jsonl", 2, "has no channel 'bills', it has orders"),
        ("chaos_shop -i a.jsonl -i b.jsonl", 2, "has a file already"),
    ],
)
def test_what_cannot_be_done(run: Commands, here: Path, words: str, code: int, says: str) -> None:
    ran = run("chaos", *words.split(), "-q")
    assert ran.code == code, ran
    assert says.format(here=here) in ran.err
    assert ran.err.startswith("tidelog: ") and ran.err.count("\n") == 1
    assert ran.out == ""


@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        ("raise ValueError('no luck')", 1, "chaos_other cannot be imported: ValueError: no luck"),
        ("import tidelog\napp = tidelog.App('shop')", 2, "has no handlers, so there is nothing to kill"),
        (
            """
import tidelog
log = tidelog.open("memory:")
app = tidelog.App("shop", log=log)
@app.on(log.queue("orders"))
def take(data: bytes) -> None: ...
""",
            2,
            "'orders' is a channel of a log that is open already",
        ),
        (SHOP.format(body="raise ValueError(order.sku)"), 1, "stops without being killed: ValueError"),
        (
            "import os\n" + SHOP.format(body="effect('take', order.id) if 'run-1' in os.getcwd() else None"),
            1,
            "two runs without a kill differ: the effect `take` of take was there 5 and 0 times",
        ),
        (
            SHOP.format(body="...") + "\ndef chaos_inputs(): return [(orders, Order(1, 'a')), 7]",
            2,
            "chaos_inputs() gave 7",
        ),
        (SHOP.format(body="...") + "\ndef chaos_inputs(): return [('bills', 1)]", 2, "there is no channel 'bills'"),
        (
            SHOP.format(body="...") + "\ndef chaos_inputs(): return [(orders, 1)]",
            2,
            "input 1 cannot be sent to 'orders'",
        ),
        (SHOP.format(body="...") + "\ndef chaos_inputs(): return []", 2, "there is not one message for shop"),
        (SHOP.format(body="...") + "\nchaos_inputs = 3", 2, "chaos_inputs is a int, not a function"),
        (
            SHOP.format(body="...") + "\ndef chaos_effects(): return 1 / 0",
            2,
            "chaos_effects() failed: ZeroDivisionError",
        ),
        (
            SHOP.format(body="...") + "\n@app.before_start\ndef no(): raise OSError('no')",
            1,
            "it cannot start: OSError: no",
        ),
    ],
)
def test_an_application_that_cannot_be_judged(run: Commands, here: Path, text: str, code: int, says: str) -> None:
    ran = run("chaos", write(here, "chaos_other", text), "-q")
    assert ran.code == code, ran
    assert says in ran.err


def test_one_that_does_not_come_to_rest(run: Commands, here: Path) -> None:
    text = SHOP.format(body="raise ValueError").replace(
        "@app.on(orders)", "@app.on(orders, retries=tidelog.app.Retry(9, 60))"
    )
    ran = run("chaos", write(here, "chaos_other", "import tidelog.app\n" + text), "-q", "--timeout", "0.3")
    assert ran.code == 1 and "does not come to rest without being killed: nothing happened for 0.3 s" in ran.err
    assert "a retry of take is left" in ran.err


def test_lines_of_a_file(run: Commands, here: Path) -> None:
    (here / "orders.jsonl").write_text('{"id": 1, "sku": "tea"}\n\n{"id": 2, "sku": "oil"}\n')
    command = ["chaos", "chaos_shop", "-q", "--only", "take/before-effect/take@1", "--format", "json"]
    for given in ("orders.jsonl", "orders=orders.jsonl", str(here / "orders.jsonl")):
        document = run.good(*command, "--input", given).json
        assert (document["messages"], document["kills"], document["handlers"][0]["effects"]) == (2, 1, 2)
    (here / "orders.jsonl").write_text('{"id": 1}\n')
    ran = run(*command, "--input", "orders.jsonl")
    assert ran.code == 2 and "orders.jsonl, line 1: this is no value of 'orders'" in ran.err


def test_seeds_make_the_same_messages(run: Commands) -> None:
    def steps(seed: int) -> str:
        ran = run(
            "chaos",
            "chaos_shop",
            "-q",
            "--seed",
            seed,
            "--only",
            "take/after-effect/take@2",
            "--expect",
            "exactly-once",
        )
        assert ran.code == 1
        return next(line for line in ran.out.splitlines() if line.startswith("take: message"))

    assert steps(3) == steps(3) != steps(4)
