"""Do ids recognise what is there, and never what was aborted?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import tidelog
from tests.unit.transaction_kit import Failure, Shop, shops, values


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    yield from shops(tmp_path / "shop.log")


def test_an_id_of_an_aborted_transaction_is_free(shop: Shop) -> None:
    for _ in range(3):
        with pytest.raises(Failure), shop.log.transaction(shop.producer) as tx:
            assert not tx.send(shop.receipts, "r", id="one").duplicate
            many = tx.send_many(shop.receipts, ["s", "t"], ids=["two", "three"])
            assert not many.duplicates.any()
            raise Failure
    with shop.log.transaction(shop.producer) as tx:
        assert not tx.send(shop.receipts, "r", id="one").duplicate
        assert not tx.send_many(shop.receipts, ["s", "t"], ids=["two", "three"]).duplicates.any()
    assert values(shop.receipts) == ["r", "s", "t"]


def test_an_id_of_a_committed_transaction_is_taken(shop: Shop) -> None:
    with shop.log.transaction(shop.producer) as tx:
        first = tx.send(shop.receipts, "r", id="one")
        again = tx.send(shop.receipts, "r", id="one")
        assert again.duplicate and again.offset == first.offset, "within the transaction too"
    with shop.log.transaction(shop.producer) as tx:
        again = tx.send(shop.receipts, "r", id="one")
        assert again.duplicate and again.offset == first.offset
        many = tx.send_many(shop.receipts, ["r", "s"], ids=["one", "two"])
        assert many.duplicates.tolist() == [True, False]
    assert shop.receipts.send("r", id="one").duplicate
    assert shop.log.producer().send(shop.receipts, "s", id="two").duplicate
    assert values(shop.receipts) == ["r", "s"]


def test_an_id_sent_outside_is_taken_inside(shop: Shop) -> None:
    shop.receipts.send("r", id="one")
    with shop.log.transaction(shop.producer) as tx:
        assert tx.send(shop.receipts, "r", id="one").duplicate
    assert values(shop.receipts) == ["r"]


def test_after_the_log_was_opened_again(tmp_path: Path) -> None:
    for shop in shops(tmp_path / "log"):
        with pytest.raises(Failure), shop.log.transaction(shop.producer) as tx:
            tx.send(shop.receipts, "r", id="aborted")
            raise Failure
        with shop.log.transaction(shop.producer) as tx:
            tx.send(shop.receipts, "s", id="committed")
    with tidelog.open(tmp_path / "log") as log:
        receipts = log.topic("receipts", str, partitions=1)
        with log.producer(name="till") as producer, log.transaction(producer) as tx:
            assert tx.send(receipts, "s", id="committed").duplicate
            assert not tx.send(receipts, "r", id="aborted").duplicate
        assert values(receipts) == ["s", "r"]
