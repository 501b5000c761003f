"""Does a judge of runs under kills see what is lost, doubled and new, blame the right handler, and tell it right?

The runs here are written by hand, so what is right is known without any process.
"""

from __future__ import annotations

from typing import Any

import pytest

from tidelog.testing.chaos.journal import Entry, Place, traced
from tidelog.testing.chaos.plan import chosen, planned, steps_of
from tidelog.testing.chaos.story import tell
from tidelog.testing.chaos.trials import Kill, Trial
from tidelog.testing.chaos.verdict import Judge, Unsteady

HANDLERS = [
    {"name": "bill", "channel": "orders", "delivery": "at-least-once", "takes": "value"},
    {"name": "book", "channel": "invoices", "delivery": "at-least-once", "takes": "value"},
]
INPUTS = [["orders", 0, "", None, [], "Order(1)"], ["orders", 0, "", None, [], "Order(2)"]]
FED = ["orders"]


def order(number: int) -> Place:
    return Place("orders", 0, number - 1, f"input-{number}")


def handled(handler: str, place: Place, life: int = 1, effect: str = "", sends: str = "") -> list[Entry]:
    """The steps of one message, from the first to the last."""

    def entry(what: str, detail: str = "", name: str | None = None) -> Entry:
        step = "/".join(part for part in (handler, what, detail.partition(" ")[0]) if part)
        return Entry(life, what, handler, detail, step if name is None else name, (place,))

    entries = [entry("received"), entry("before-handler")]
    if effect:
        name = effect.partition(" ")[0]
        entries += [entry("before-effect", effect), entry("effect", effect, name), entry("after-effect", effect)]
    entries.append(entry("after-handler"))
    if sends:
        entries += [entry("before-send", sends), entry("after-send", sends)]
    return [*entries, entry("before-commit"), entry("after-commit")]


def trial(
    journal: list[Entry],
    outputs: list[tuple[str, str]] = (),  # type: ignore[assignment]
    kill: Kill | None = None,
    state: list[str] = (),  # type: ignore[assignment]
    trouble: str = "",
) -> Trial:
    """Two orders, and what came of them: (cause, message id) in "invoices"."""
    places = [order(1), order(2)] + [Place("invoices", 0, at, cause) for at, (cause, _) in enumerate(outputs)]
    ids = ["input-1", "input-2", *(name for _, name in outputs)]
    return Trial(kill, kill is not None, journal, places, ids, list(state), trouble)


USUAL = [
    *handled("bill", order(1), sends="invoices"),
    *handled("bill", order(2), sends="invoices"),
    *handled("book", Place("invoices", 0, 0, "input-1"), effect="book 1"),
    *handled("book", Place("invoices", 0, 1, "input-2"), effect="book 2"),
]
SENT = [("input-1", "input-1.bill"), ("input-2", "input-2.bill")]
KILL = Kill("bill/after-send/invoices", 1)


def judge() -> Judge:
    return Judge(trial(USUAL, SENT), trial(USUAL, SENT), HANDLERS, FED)


def seen(found: Trial) -> list[tuple[str, str, str]]:
    return [(one.what, one.handler, str(one.effect)) for one in judge().judge(found)]


def without(entries: list[Entry], what: str, detail: str) -> list[Entry]:
    return [one for one in entries if not (one.what == what and one.detail == detail)]


def test_what_is_as_usual_is_no_deviation() -> None:
    assert seen(trial(USUAL, SENT, KILL)) == []
    again = [*USUAL, *handled("bill", order(1), life=2)]  # handled twice, without another effect
    assert seen(trial(again, SENT, KILL)) == []


def test_an_effect_that_is_missing() -> None:
    assert seen(trial(without(USUAL, "effect", "book 2"), SENT, KILL)) == [("lost", "book", "the effect `book 2`")]


def test_an_effect_that_is_there_twice() -> None:
    twice = [*USUAL, *handled("book", Place("invoices", 0, 0, "input-1"), life=2, effect="book 1")]
    assert seen(trial(twice, SENT, KILL)) == [("duplicate", "book", "the effect `book 1`")]


def test_an_effect_that_nobody_knows() -> None:
    more = [*USUAL, *handled("book", Place("invoices", 0, 0, "input-1"), life=2, effect="refuse 1")]
    assert seen(trial(more, SENT, KILL)) == [("unexpected", "book", "the effect `refuse 1`")]


def test_whoever_gets_a_message_twice_is_not_blamed() -> None:
    twice = [*USUAL, *handled("book", Place("invoices", 0, 2, "input-1"), life=2, effect="book 1")]
    found = trial(twice, [*SENT, ("input-1", "input-1.bill")], KILL)
    assert seen(found) == [("duplicate", "bill", "a message in 'invoices'")]
    found = trial(USUAL, [*SENT, ("input-1", "input-1.bill")], KILL)  # but one of the two is not booked
    assert sorted(seen(found)) == [
        ("duplicate", "bill", "a message in 'invoices'"),
        ("lost", "book", "the effect `book 1`"),
    ]


def test_whoever_gets_nothing_is_not_blamed() -> None:
    journal = [one for one in USUAL if not (one.handler == "book" and one.messages[0].cause == "input-2")]
    assert seen(trial(journal, SENT[:1], KILL)) == [("lost", "bill", "a message in 'invoices'")]


def test_a_handler_without_effects_is_judged_by_being_called() -> None:
    journal = [*handled("bill", order(1)), *handled("bill", order(2))]
    silent = Judge(trial(journal), trial(journal), HANDLERS[:1], FED)
    assert silent.seen_of("bill") == 0
    assert silent.judge(trial([*journal, *handled("bill", order(1), life=2)], kill=KILL)) == []
    (lost,) = silent.judge(trial(journal[:-6], kill=KILL))
    assert (lost.what, lost.handler, lost.effect and lost.effect.cause) == ("lost", "bill", "input-2")


def test_effects_of_a_database_belong_to_whom_they_name_or_to_the_killed_one() -> None:
    usual = trial(USUAL, SENT, state=["book 1", "row 1"])
    knowing = Judge(usual, usual, HANDLERS, FED)
    assert knowing.unowned == 1
    found = knowing.judge(trial(USUAL, SENT, KILL, state=["row 1", "row 1"]))
    assert [(one.what, one.handler) for one in found] == [("lost", "book"), ("duplicate", "bill")]


def test_trouble_is_the_worst() -> None:
    found = judge().judge(trial(USUAL[:4], SENT[:1], KILL, trouble="IntegrityError: it is there"))
    assert (found[0].what, found[0].handler) == ("stuck", "bill")


def test_runs_that_differ_cannot_be_judged() -> None:
    with pytest.raises(Unsteady, match="the effect `book` of book was there 2 and 1 times"):
        Judge(trial(USUAL, SENT), trial(without(USUAL, "effect", "book 2"), SENT), HANDLERS, FED)


def test_what_differs_in_value_alone_is_counted() -> None:
    def run(values: list[str], kill: Kill | None = None) -> Trial:
        entries = [Entry(1, "effect", "bill", f"note {value}", "note", (order(1),)) for value in values]
        return trial(entries, kill=kill)

    loose = Judge(run(["10:00", "10:01"]), run(["11:00", "11:01"]), HANDLERS, FED)
    assert loose.judge(run(["12:00", "12:01"], KILL)) == []
    assert [one.what for one in loose.judge(run(["12:00"], KILL))] == ["lost"]
    assert [one.what for one in loose.judge(run(["12:00", "1", "2"], KILL))] == ["duplicate"]


def test_a_message_of_which_nobody_knows_the_cause() -> None:
    assert seen(trial(USUAL, [SENT[0], ("value-77", "")], KILL)) == []  # the one that is missing
    third = handled("book", Place("invoices", 0, 2, "value-77"), life=2, effect="book 1")
    assert seen(trial([*USUAL, *third], [*SENT, ("value-77", "")], KILL)) == [
        ("duplicate", "bill", "a message in 'invoices'")
    ]


def test_causes_are_followed_through_what_handlers_send_by_themselves() -> None:
    first = Place("orders", 0, 0, "input-1")
    sent, further = Place("stock", 1, 7, "value-a"), Place("parcels", 0, 3, "value-b")
    journal = [Entry(1, "sent", "a", "stock", "", (first, sent)), Entry(1, "sent", "b", "parcels", "", (sent, further))]
    known: dict[tuple[str, str], str] = {}
    entries, places = traced(journal, [sent, further], known, learn=True)
    assert [place.cause for place in places] == ["input-1", "input-1"]
    assert entries[1].messages[0].cause == "input-1"
    # A kill came before it was written: the value tells.
    _, places = traced([], [sent, further], known, learn=False)
    assert [place.cause for place in places] == ["input-1", "input-1"]
    circle = [Entry(1, "sent", "a", "stock", "", (further, sent)), journal[1]]
    assert len(traced(circle, [sent], {}, learn=False)[1]) == 1


# --- plans ---


def test_a_plan_has_each_step_at_the_first_a_middle_and_the_last_passing() -> None:
    journal = [entry for _ in range(5) for entry in handled("bill", order(1))]
    assert steps_of(journal)["bill/before-commit"] == 5
    kills = planned(journal, 0, 1)
    assert [kill.passing for kill in kills if kill.step == "bill/before-commit"] == [1, 3, 5]
    assert [kill.passing for kill in planned(handled("bill", order(1)), 0, 1) if kill.step == "bill/received"] == [1]


def test_random_kills_are_the_same_for_the_same_seed() -> None:
    one, same, other = (planned(USUAL, 3, seed)[-3:] for seed in (1, 1, 2))
    assert one == same != other
    assert [str(kill) for kill in one] == ["random@1", "random@2", "random@3"]


@pytest.mark.parametrize(
    ("only", "found"),
    [
        ("bill/before-commit", {"bill/before-commit@1", "bill/before-commit@2"}),
        ("bill/before-commit@2", {"bill/before-commit@2"}),
        ("bill/after-send", {"bill/after-send/invoices@1", "bill/after-send/invoices@2"}),
        ("random@2", {"random@2"}),
        ("random", {"random@1", "random@2"}),
    ],
)
def test_chosen_steps(only: str, found: set[str]) -> None:
    kills = planned(USUAL, 2, 1)
    assert {str(kill) for kill in chosen(kills, [only], USUAL)} == found
    assert chosen(kills, [], USUAL) == kills


@pytest.mark.parametrize("only", ["nobody", "bill/before-commit@3", "bill/before", "bill@1"])
def test_a_step_that_does_not_exist(only: str) -> None:
    with pytest.raises(LookupError, match="the steps are bill/received"):
        chosen(planned(USUAL, 0, 1), [only], USUAL)


# --- stories ---


def told(found: Trial, judging: Judge | None = None) -> str:
    return str(tell((judging or judge()).judge(found)[0], HANDLERS, INPUTS))


def test_the_story_of_a_duplicate() -> None:
    journal = [
        *handled("bill", order(1), sends="invoices")[:5],
        *handled("bill", order(1), life=2, sends="invoices"),
        *handled("bill", order(2), life=2, sends="invoices"),
    ]
    found = trial(journal, [*SENT, ("input-1", "input-1.bill")], Kill("bill/after-send/invoices", 1))
    usual = trial(journal[5:], SENT)
    text = told(found, Judge(usual, usual, HANDLERS[:1], FED)).splitlines()
    assert text[0] == "bill: message orders-0@0, Order(1)"
    assert [line.split(". ", 1)[1] for line in text[1:-2]] == [
        "bill() is called",
        "bill() has returned",
        "a message to 'invoices' is sent: HERE THE PROCESS IS KILLED",
        "the application is started again, and goes on behind what was committed",
        "bill() is called",
        "bill() has returned",
        "a message to 'invoices' is sent",
        "it is committed",
    ]
    assert text[-2] == "  So a message in 'invoices' is there twice, and should be there once."
    assert 'delivery="exactly-once"' in text[-1]


def test_the_story_of_a_loss() -> None:
    handlers: list[dict[str, Any]] = [HANDLERS[0] | {"delivery": "at-most-once"}]
    whole = [*handled("bill", order(1), effect="pay 1"), *handled("bill", order(2), effect="pay 2")]
    usual = trial(whole)
    killed = trial(whole[:9], kill=Kill("bill/received", 2))
    (lost,) = Judge(usual, usual, handlers, FED).judge(killed)
    text = str(tell(lost, handlers, INPUTS)).splitlines()
    assert text[0] == "bill: message orders-0@1, Order(2)"
    assert text[1].endswith(
        'it is received, and committed by that (delivery="at-most-once"): HERE THE PROCESS IS KILLED'
    )
    assert text[2].endswith("the application is started again, and the message does not come again")
    assert text[3] == "  So the effect `pay 2` is not there, and should be there once."


def test_the_story_of_a_kill_elsewhere() -> None:
    journal = [*handled("bill", order(1), effect="pay 1")[:5], *handled("book", Place("invoices", 0, 0, "input-1"))[:2]]
    again = handled("bill", order(1), life=2, effect="pay 1")
    usual = trial(handled("bill", order(1), effect="pay 1"))
    found = trial([*journal, *again], kill=Kill("book/before-handler", 1))
    text = told(found, Judge(usual, usual, HANDLERS[:1], FED))
    assert "meanwhile book at invoices-0@0: book() is called: HERE THE PROCESS IS KILLED" in text
