"""Does every process answer a client's batches by Kafka's rules, whatever happened to the store in between?

The oracle keeps the list of all batches that were accepted and works each answer out of the whole of it, by the rules
as they are written down for Kafka; it has no window, no epoch that is kept, no file. Three actors send in turn: this
process, another one, and one that opens the partition anew and knows only what the disk says. In between segments roll,
files of producers are lost or damaged, messages are trimmed, the store is reopened, and the machine seems to start
anew.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.unit.raw_batches import append, batch
from tests.unit.stores import Opened
from tidelog.errors import Fenced

MODULUS = 2**31
SEGMENT_BYTES = 4096

OTHER = """
import sys
sys.path.insert(0, {root!r})
from pathlib import Path
from tests.unit.stores import Opened
from tests.unit.raw_batches import append, batch
from tidelog.errors import Fenced
opened = Opened(Path({path!r}), segment_bytes=4096)
print("ready", flush=True)
for line in sys.stdin:
    producer_id, epoch, sequence, count, size = map(int, line.split())
    try:
        print(*append(opened.parts[0], batch(producer_id, epoch, sequence, [b"v" * size] * count)), flush=True)
    except Fenced:
        print("fenced 0", flush=True)
    except ValueError as error:
        print("out-of-order" if "does not follow" in str(error) else repr(error), 0, flush=True)
"""


class Accepted:
    """A batch that was appended."""

    def __init__(self, producer_id: int, epoch: int, sequence: int, count: int, offset: int) -> None:
        self.producer_id, self.epoch, self.sequence, self.count, self.offset = (
            producer_id,
            epoch,
            sequence,
            count,
            offset,
        )

    @property
    def last(self) -> int:
        return (self.sequence + self.count - 1) % MODULUS


def verdict(history: list[Accepted], producer_id: int, epoch: int, sequence: int, count: int) -> tuple[str, int]:
    """What Kafka answers."""
    own = [one for one in history if one.producer_id == producer_id]
    if not own:
        return "accepted", -1
    newest = max(one.epoch for one in own)
    current = [one for one in own if one.epoch == newest]
    if epoch == newest:
        for one in current[-5:]:
            if one.sequence == sequence and one.last == (sequence + count - 1) % MODULUS:
                return "duplicate", one.offset
    if epoch < newest:
        return "fenced", -1
    follows = 0 if epoch > newest else (current[-1].last + 1) % MODULUS
    return ("accepted", -1) if sequence == follows else ("out-of-order", -1)


class Producers(RuleBasedStateMachine):
    """One partition, three producers, batches of one to four messages."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="tidelog-rules-"))
        self.path = self.folder / "store"
        self.history: list[Accepted] = []
        self.opened: Opened | None = None
        self.other: subprocess.Popen[str] | None = None

    @initialize()
    def begin(self) -> None:
        self.opened = Opened(self.path, segment_bytes=SEGMENT_BYTES)

    def teardown(self) -> None:
        self.stop_other()
        if self.opened is not None:
            self.opened.store.close()
        shutil.rmtree(self.folder)

    # --- sending ---

    @rule(
        actor=st.sampled_from(["here", "other", "anew"]),
        sends=st.lists(
            st.tuples(
                st.integers(1, 3),  # producer id
                st.sampled_from([0] * 12 + [1, -1]),  # epoch, from the newest
                st.sampled_from([0] * 9 + [-1, 1, 7]),  # sequence, from what follows
                st.sampled_from([0] * 8 + list(range(1, 8))),  # 0: a new batch; else what was sent so many batches ago
                st.integers(1, 4),  # messages
                st.sampled_from([0, 5, MODULUS - 2, MODULUS - 9]),  # sequence of an unknown producer's first
                st.sampled_from([1, 100, 700]),  # bytes of a value
            ),
            min_size=8,
            max_size=30,
        ),
    )
    def send(self, actor: str, sends: list[tuple[int, int, int, int, int, int, int]]) -> None:
        """What follows, what follows nearly, what was sent before."""
        for number, one in enumerate(sends):
            self.send_one(actor if number % 5 == 0 else "here" if actor == "anew" else actor, *one)

    def send_one(
        self, actor: str, producer_id: int, epoch: int, step: int, back: int, count: int, start: int, size: int
    ) -> None:
        own = [one for one in self.history if one.producer_id == producer_id]
        if not own:
            sent = (producer_id, 2, start, count)
        elif 0 < back <= len(own):
            old = own[-back]
            sent = (producer_id, old.epoch, old.sequence, old.count + (1 if step == 7 else 0))
        else:
            newest = max(one.epoch for one in own)
            follows = (own[-1].last + 1 + step) % MODULUS if epoch == 0 else max(step, 0)
            sent = (producer_id, newest + epoch, follows, count)
        wanted = verdict(self.history, *sent)
        end = self.partition.bounds()[1]
        got = getattr(self, f"send_{actor}")(*sent, size)
        if wanted[0] == "accepted":
            assert got == ("accepted", end)
            self.history.append(Accepted(*sent, end))
        else:
            assert got == wanted
            assert self.partition.bounds()[1] == end

    @property
    def partition(self) -> Any:
        assert self.opened is not None
        return self.opened.parts[0]

    def send_here(self, producer_id: int, epoch: int, sequence: int, count: int, size: int) -> tuple[str, int]:
        try:
            offset, duplicate = append(self.partition, batch(producer_id, epoch, sequence, [b"v" * size] * count))
        except Fenced:
            return "fenced", -1
        except ValueError as error:
            assert "does not follow" in str(error)
            return "out-of-order", -1
        return "duplicate" if duplicate else "accepted", offset

    def send_anew(self, *batch_of: int) -> tuple[str, int]:
        assert self.opened is not None
        self.opened.parts = []  # the table of this process goes with its last handle
        self.opened.parts = [self.opened.store.partition(slot, bytes(range(16))) for slot in self.opened.slots]
        return self.send_here(*batch_of)

    def send_other(self, *batch_of: int) -> tuple[str, int]:
        if self.other is None:
            code = OTHER.format(root=str(Path(__file__).parents[2]), path=str(self.path))
            self.other = subprocess.Popen(
                [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            assert self.other.stdout is not None and self.other.stdout.readline() == "ready\n"
        assert self.other.stdin is not None and self.other.stdout is not None
        self.other.stdin.write(" ".join(map(str, batch_of)) + "\n")
        self.other.stdin.flush()
        answer, duplicate = self.other.stdout.readline().split()
        if answer in ("fenced", "out-of-order"):
            return answer, -1
        return ("duplicate" if duplicate == "True" else "accepted"), int(answer)

    # --- what happens in between ---

    @rule(count=st.integers(1, 6))
    def plain(self, count: int) -> None:
        """Messages of nobody."""
        assert self.opened is not None
        self.opened.sender().send_many([b"p" * 400] * count)

    def stop_other(self) -> None:
        if self.other is not None:
            self.other.kill()
            self.other.wait()
            for pipe in (self.other.stdin, self.other.stdout):
                if pipe is not None:
                    pipe.close()
            self.other = None

    @rule(boot=st.booleans())
    def reopen(self, boot: bool) -> None:
        """Everybody dies or leaves; then perhaps another boot."""
        assert self.opened is not None
        self.stop_other()
        self.opened.store.sync()
        self.opened.store.close()
        if boot:
            words = (self.path / "shared").read_bytes()
            (self.path / "shared").write_bytes(words[:16] + b"another boot" + bytes(4) + words[32:])
        self.opened = Opened(self.path, segment_bytes=SEGMENT_BYTES)

    def files(self) -> list[Path]:
        return sorted((self.path / "ch-0").glob("*.producers"))

    @precondition(lambda self: len(self.files()) > 1)
    @rule(data=st.data())
    def lose_a_file(self, data: st.DataObject) -> None:
        """Any but the oldest: that one says that there are producers at all."""
        data.draw(st.sampled_from(self.files()[1:])).unlink()

    @precondition(lambda self: self.files())
    @rule(data=st.data())
    def damage_a_file(self, data: st.DataObject) -> None:
        file = data.draw(st.sampled_from(self.files()))
        if self.partition.bounds()[0] > 0 and file == self.files()[0]:
            return  # what stood before the log start is nowhere else
        content = bytearray(file.read_bytes())
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        file.write_bytes(content)

    @precondition(lambda self: self.opened is not None and self.partition.bounds()[1] > 0)
    @rule(share=st.floats(0, 1))
    def trim(self, share: float) -> None:
        with suppress(ValueError):
            self.partition.trim(int(self.partition.bounds()[1] * share))

    @invariant()
    def the_log_is_whole(self) -> None:
        if self.opened is not None and len(self.history) % 8 == 7:
            found: list[Any] = []
            self.partition.check(lambda *finding: found.append(finding))
            assert all(".producers" in finding[0] and "damaged" in finding[2] for finding in found)


TestProducers = Producers.TestCase
TestProducers.settings = settings(
    max_examples=20, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
