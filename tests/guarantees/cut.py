"""What do receivers get after a real power cut? `python -m tests.guarantees.cut ACK WHEN`

Imports tests.power.mounts, tests.guarantees. A process sends on a loop-mounted ext4, and receives in one group for each
delivery; the file system is cut off, the process is killed, it is mounted again, and a fresh process says what is
there, as one JSON object. WHEN: "open" while the process has the log open; "committed" the same, after
`commit(x, level="synced")` of the last message; "killed" after the process was killed; "closed" after it
closed the log.

Messages a to d are older than ten flush intervals when the power goes, e and f are fresh. Of the old ones a, b and c
were received before that time, everything else after it; f is the last one and in hand. The manual receiver has
committed b, and of the fresh ones e. The transactions of the exactly-once one have the level ACK, or synced when WHEN
is "committed". In "open" there are applications too, one for each delivery, which have handled and committed a to f.

Exit codes: 0; 77 the lane cannot run here.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from tests.guarantees.actor import Actor, Remote
from tests.guarantees.cells import APPLICATION_DELIVERIES, DELIVERIES
from tests.power import mounts

INTERVAL_SECONDS = 0.1
OLD_SECONDS = 15 * INTERVAL_SECONDS


def work(actor: Actor | Remote, ack: str, when: str) -> None:
    """Everything up to the cut."""
    actor.make()
    actor.send(["a", "b", "c", "d"], ack)
    level = "synced" if when == "committed" else ack
    for delivery in DELIVERIES:
        actor.join(delivery, delivery, level, group=delivery)
        for value in "abc":
            assert actor.receive(delivery) == value
            if delivery == "manual" and value == "b":
                actor.commit(delivery)
    if when == "open":
        start_applications(actor, ack, os.devnull)
        for delivery in APPLICATION_DELIVERIES:
            actor.wait_for_commit(f"app-{delivery}", len("abcd"))
    time.sleep(OLD_SECONDS)
    actor.send(["e", "f"], ack)
    for delivery in DELIVERIES:
        for value in "def":
            assert actor.receive(delivery) == value
            if delivery == "manual" and value == "e":
                actor.commit(delivery)
        if when == "committed" and delivery != "none":
            actor.commit(delivery, "synced")
    if when == "open":
        for delivery in APPLICATION_DELIVERIES:
            actor.wait_for_commit(f"app-{delivery}", len("abcdef"))


def start_applications(actor: Actor | Remote, ack: str, stories: str) -> None:
    """One for each delivery, as a group of its own. `stories`: the beginning of the names of their files."""
    for delivery in APPLICATION_DELIVERIES:
        name = f"app-{delivery}"
        story = stories if stories == os.devnull else f"{stories}{delivery}"
        actor.start_application(delivery, ack, story, application=name, to=f"{name}-results")


def look_at_applications(actor: Actor | Remote, ack: str, place: Path, sent: int) -> dict[str, object]:
    """What they get afterwards, and what has come of everything."""
    start_applications(actor, ack, f"{place}/story-")
    for delivery in APPLICATION_DELIVERIES:
        actor.wait_for_commit(f"app-{delivery}", sent + 1)
    actor.stop_application()
    return {
        delivery: [(place / f"story-{delivery}").read_text().split(), actor.results(f"app-{delivery}-results")]
        for delivery in APPLICATION_DELIVERIES
    }


def look(actor: Actor | Remote, ack: str) -> dict[str, Any]:
    """What is there afterwards."""
    history, bounds = actor.scan(), actor.bounds()
    got = {}
    sent = actor.send(["after"], "written")
    for delivery in DELIVERIES:
        actor.join(delivery, delivery, ack, group=delivery)
        got[delivery] = actor.rest(delivery, 1)
    return {"history": history, "end": bounds[1], "next": sent[0], "got": got, "results": actor.results()}


def main() -> None:
    """Cut once."""
    ack, when = sys.argv[1:]
    mounts.enter_namespace()
    with mounts.workplace() as place:
        image, mountpoint = place / "image", place / "mnt"
        mountpoint.mkdir()
        mounts.make_ext4(image, 64)
        mounts.mount(image, mountpoint, "data=ordered")
        log = mountpoint / "log"
        actor = Remote(log, INTERVAL_SECONDS)
        try:
            work(actor, ack, when)
            if when == "killed":
                actor.kill()
            if when == "closed":
                for delivery in DELIVERIES:
                    actor.leave(delivery)
                actor.close()
            mounts.cut_off(mountpoint, mounts.DROP_JOURNAL)
        finally:
            actor.end()
            mounts.unmount(mountpoint)
        mounts.mount(image, mountpoint, "data=ordered")
        actor = Remote(log, INTERVAL_SECONDS)
        try:
            found = look(actor, ack)
            if when == "open":
                found["applications"] = look_at_applications(actor, ack, place, found["next"])
            print(json.dumps(found))
        finally:
            actor.end()
            mounts.unmount(mountpoint)


if __name__ == "__main__":
    main()
