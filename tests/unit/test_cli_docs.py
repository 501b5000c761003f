"""Does `tidelog docs` write what was asked for, and end as a change deserves?"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.unit.commands import Commands

SHOP = '''
import msgspec
from tidelog.app import App

class Order(msgspec.Struct):
    """What a customer wants."""
    id: int
    sku: str

app = App("shop", url="shop.log", version="1.0.0")
other = App("other")
number = 3

@app.on(app.queue("orders", Order, partitions=2))
def take(order: Order) -> None:
    """Take it."""
'''


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Commands:
    return Commands(capsys, monkeypatch)


@pytest.fixture(autouse=True)
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A module docs_shop.py in the current directory."""
    path = tmp_path / "docs_shop.py"
    path.write_text(SHOP)
    (tmp_path / "docs_raises.py").write_text("raise ValueError('no luck')\n")
    (tmp_path / "docs_misses.py").write_text("{}['key']\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield path
    for name in [name for name in sys.modules if name.startswith("docs_")]:
        del sys.modules[name]
    assert not (tmp_path / "shop.log").exists(), "describing opens no log"


def changed(shop: Path, old: str, new: str) -> None:
    """The module with something else in it, imported anew."""
    text = shop.read_text()
    assert old in text
    (shop.parent / "docs_later.py").write_text(text.replace(old, new))


def test_json(run: Commands) -> None:
    document = run.good("docs", "docs_shop:app").json
    assert document["info"] == {"title": "shop", "version": "1.0.0"}
    assert document["operations"]["take"]["summary"] == "Take it."


def test_every_way_to_name_it(run: Commands, shop: Path) -> None:
    (shop.parent / "docs_parts").mkdir()
    (shop.parent / "docs_parts" / "__init__.py").write_text("")
    (shop.parent / "docs_parts" / "inner.py").write_text(f"{SHOP}\nclass Holder:\n    app = app\n")
    expected = run.good("docs", "docs_shop:app").out
    words = ["docs_shop", "docs_shop.py:app", f"{shop}:app", "docs_parts.inner:app", "docs_parts.inner:Holder.app"]
    for word in words:
        assert run.good("docs", word).out == expected
    assert run.good("docs", "docs_shop:other").json["info"]["title"] == "other"


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ("docs_shop:nothing", 3, "it has docs_shop:app, docs_shop:other"),
        ("docs_nowhere:app", 3, "there is no module 'docs_nowhere'"),
        ("docs_nowhere.py:app", 3, "there is no file docs_nowhere.py"),
        ("docs_shop:number", 2, "is a int, not a tidelog.App"),
        (":app", 2, "names no module"),
        ("docs_shop..more:app", 2, "is no name of a module"),
        ("docs_raises:app", 1, "no luck (ValueError)"),
        ("docs_misses:app", 1, "'key' (KeyError)"),
    ],
)
def test_what_names_no_application(run: Commands, words: str, code: int, says: str) -> None:
    ran = run("docs", words)
    assert (ran.code, ran.out) == (code, "")
    assert says in ran.err


def test_a_module_that_is_missing_within(run: Commands, shop: Path) -> None:
    (shop.parent / "docs_broken.py").write_text("import docs_nowhere_else\n")
    ran = run("docs", "docs_broken:app")
    assert ran.code == 3 and "docs_nowhere_else" in ran.err and "docs_broken" not in ran.err


def test_formats(run: Commands, tmp_path: Path) -> None:
    document = run.good("docs", "docs_shop:app").json
    assert yaml.safe_load(run.good("docs", "docs_shop:app", "--format", "yaml").out) == document
    assert run.good("docs", "docs_shop:app", "--format", "html").out.startswith("<!doctype html>")
    for name, begins in (
        ("a.json", "{"),
        ("a.yaml", "asyncapi: "),
        ("a.yml", "asyncapi: "),
        ("a.HTML", "<!doctype"),
        ("a", "{"),
    ):
        ran = run.good("docs", "docs_shop:app", "--out", name)
        assert ran.out == "" and f"wrote {name}" in ran.err
        assert (tmp_path / name).read_text().startswith(begins)
    run.good("docs", "docs_shop:app", "--out", "b.json", "--format", "yaml")
    assert (tmp_path / "b.json").read_text().startswith("asyncapi: ")
    assert run("docs", "docs_shop:app", "--format", "xml").code == 2


@pytest.mark.parametrize("name", ["old.json", "old.yaml"])
def test_check(run: Commands, shop: Path, name: str) -> None:
    run.good("docs", "docs_shop:app", "--out", name)
    assert "0 breaking, 0 compatible" in run.good("docs", "docs_shop:app", "--check", name).out

    changed(shop, "    sku: str", "    sku: str\n    note: str = ''")
    ran = run.good("docs", "docs_later:app", "--check", name)
    assert "compatible" in ran.out and "channels.orders.Order.payload.note" in ran.out
    assert "0 breaking, 1 compatible" in ran.out
    del sys.modules["docs_later"]

    changed(shop, "    sku: str", "    sku: str\n    note: str")
    ran = run("docs", "docs_later:app", "--check", name)
    assert ran.code == 1
    assert "required field added" in ran.out and "1 breaking, 0 compatible" in ran.out
    rows = json.loads(run("docs", "docs_later:app", "--check", name, "--format", "json").out)
    assert [(row["effect"], row["path"], row["change"]) for row in rows] == [
        ("breaking", "channels.orders.Order.payload.note", "required field added")
    ]
    assert rows[0]["reason"]


def test_check_of_nothing(run: Commands, tmp_path: Path) -> None:
    assert run("docs", "docs_shop:app", "--check", "nowhere.json").code == 3
    (tmp_path / "no.json").write_text("[]")
    ran = run("docs", "docs_shop:app", "--check", "no.json")
    assert ran.code == 1 and "no description" in ran.err
    assert run("docs", "docs_shop:app", "--check", "no.json", "--out", "x").code == 2
    assert run("docs", "docs_shop:app", "--check", "no.json", "--format", "html").code == 2


def test_out_says_what_is_in_the_way(run: Commands, tmp_path: Path) -> None:
    ran = run("docs", "docs_shop:app", "--out", tmp_path / "nowhere" / "a.json")
    assert ran.code == 3 and f"there is no directory {tmp_path / 'nowhere'}" in ran.err and ran.err.count("\n") == 1
    ran = run("docs", "docs_shop:app", "--out", tmp_path)
    assert ran.code == 1 and f"{tmp_path} cannot be written: Is a directory" in ran.err
    ran = run("docs", "docs_shop:app", "--out", "/dev/full")
    assert ran.code == 1 and "/dev/full cannot be written: No space left on device" in ran.err


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"root:x:0:0\n",
        b"\xff\xfe\x00binary",
        b"{",
        b'{"asyncapi": 5}',
        b'{"asyncapi": "3.0.0", "channels": {"a": 5}}',
        b'{"asyncapi": "3.0.0", "channels": {"a": {}}, "operations": {"b": {"channel": 5}}}',
        b"a: [1\nb: }",
    ],
)
def test_check_of_what_is_no_description_is_one_line(run: Commands, tmp_path: Path, text: bytes) -> None:
    (tmp_path / "old.json").write_bytes(text)
    ran = run("docs", "docs_shop:app", "--check", "old.json")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("tidelog: --check old.json: ") and ran.err.count("\n") == 1
    assert "TIDELOG_LOG_LEVEL" not in ran.err
