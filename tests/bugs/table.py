"""Which lane must catch which seeded bug?

A line per bug of TL_BUG_LIST in native/include/tidelog/os.h: its name, the program, its arguments, the lane's name. The
program is run with TL_BUG=<name>; it must end with an exit code other than 0 and say on stderr what is wrong. The same
program with the same arguments and without a bug must end with 0. Imports nothing.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Program:
    """A C program with the core: its main source and further ones, relative to tests/."""

    source: str
    extra: tuple[str, ...] = ()


@dataclass(frozen=True)
class Bug:
    """A seeded bug and the run that must catch it."""

    name: str
    program: Program
    arguments: tuple[str, ...]
    lane: str


CRASH = Program(
    "crash/crash_points.c",
    (
        "crash/appends.c",
        "crash/catalogue.c",
        "crash/children.c",
        "crash/commits.c",
        "crash/members.c",
        "crash/model.c",
        "crash/plan.c",
        "crash/transactions.c",
        "crash/verify.c",
        "crash/work.c",
    ),
)
PROCESSES = Program("processes/survivors.c", ("processes/reader.c", "processes/shared.c", "processes/writer.c"))

MEMBERS = Program("processes/membership.c")
PRODUCER_TABLE = Program("native/test_producer_table.c")
PRODUCERS = Program("native/test_producers.c")
PRODUCER_NAMES = Program("native/test_producer_names.c")
TRANSACTIONS = Program("native/test_transactions.c")
TRANSACTIONS_RECOVERY = Program("native/test_transactions_recovery.c")

GROWTH = Program("native/test_growth.c")
IDS = Program("native/test_ids.c")
IDS_WINDOW = Program("native/test_ids_window.c")
IDS_DEATHS = Program("native/test_ids_deaths.c")
IDS_TRANSACTIONS = Program("native/test_ids_transactions.c")

FAULTS = Program("faults/fault_io.c")
DAMAGE = Program("damage/damage_reopen.c")
POWER = Program("power/power_model.c")

POINTS = ("--kills", "3000", "--jobs", "2")
SURVIVORS = ("--kills", "100")
ROUNDS = ("--rounds", "1")
STATES = ("--states", "30000", "--seconds", "120")

BUGS = [
    Bug("TAIL_BEFORE_COPY", CRASH, POINTS, "crash"),
    Bug("NO_ZERO_TO_RESERVE", CRASH, POINTS, "crash"),
    Bug("END_SLOT_WITHOUT_TAG", CRASH, POINTS, "crash"),
    Bug("INDEX_AHEAD_OF_DATA", CRASH, ("--kills", "8000", "--jobs", "2"), "crash"),
    Bug("SYNCING_IGNORED", CRASH, POINTS, "crash"),
    Bug("READY_STORED_FIRST", CRASH, POINTS, "crash"),
    Bug("SEAL_AFTER_TAIL", CRASH, POINTS, "crash"),
    Bug("STRAY_SEGMENT_KEPT", CRASH, POINTS, "crash"),
    Bug("CLEAN_MARK_KEPT", CRASH, POINTS, "crash"),
    Bug("LOG_START_AFTER_UNLINK", CRASH, POINTS, "crash"),
    Bug("ZOMBIE_COMMIT_ACCEPTED", CRASH, POINTS, "crash"),
    Bug("WRITER_IGNORES_DROP", CRASH, POINTS, "crash"),
    Bug("TAIL_CRC_NOT_CHECKED", DAMAGE, ("-i", "unclean", "-c", "flip", "-m", "300"), "damage"),
    Bug("FSYNC_RETRIED", FAULTS, ("-w", "sync", "-e", "EIO"), "faults"),
    Bug("NO_BARRIER_BEFORE_SLEEPERS", PROCESSES, SURVIVORS, "processes"),
    Bug("STOPPED_OWNER_ROBBED", PROCESSES, SURVIVORS, "processes"),
    Bug("INCARNATION_NOT_BUMPED", PROCESSES, SURVIVORS, "processes"),
    Bug("CLOSE_WITHOUT_GATE", PROCESSES, SURVIVORS, "processes"),
    Bug("AWAY_TIME_IGNORED", MEMBERS, ROUNDS, "members"),
    Bug("GROUPS_NOT_REPAIRED", MEMBERS, ROUNDS, "members"),
    Bug("LIVE_HOLDER_IGNORED", MEMBERS, ROUNDS, "members"),
    Bug("EXPELLED_LEASE_KEPT", MEMBERS, ROUNDS, "members"),
    Bug("INSTALL_WITHOUT_WAKE", MEMBERS, ROUNDS, "members"),
    Bug("INSTALL_VERSION_UNCHECKED", MEMBERS, ROUNDS, "members"),
    Bug("NAMESAKE_NOT_FENCED", MEMBERS, ROUNDS, "members"),
    Bug("OVERDUE_NEVER_EXPELLED", MEMBERS, ROUNDS, "members"),
    Bug("HOLDER_OF_ANY_EPOCH", MEMBERS, ROUNDS, "members"),
    Bug("REMOVED_WITHOUT_A_TURN", MEMBERS, ROUNDS, "members"),
    Bug("ID_NOTED_BEFORE_TAIL", IDS_DEATHS, (), "native"),
    Bug("ID_WINDOW_FORGETS", IDS_WINDOW, (), "native"),
    Bug("ID_FILTER_FORGETS", IDS_WINDOW, (), "native"),
    Bug("ID_SEALED_FIRST", IDS_DEATHS, (), "native"),
    Bug("ID_NOT_UNDONE", IDS_DEATHS, (), "native"),
    Bug("IDS_NOT_REBUILT", IDS, (), "native"),
    Bug("ID_AGE_IGNORED", IDS, (), "native"),
    Bug("IDS_COMPLETE_FIRST", IDS_DEATHS, (), "native"),
    Bug("ID_DECIDED_TAKEN_FOR_OPEN", IDS_TRANSACTIONS, (), "native"),
    Bug("ID_ABORTED_TAKEN", IDS_TRANSACTIONS, (), "native"),
    Bug("OFFSET_REUSED_AFTER_CUT", POWER, STATES, "power"),
    Bug("DIRECTORY_NOT_SYNCED", POWER, STATES, "power"),
    Bug("CHECKPOINT_BEFORE_LOG_SYNC", POWER, STATES, "power"),
    Bug("CHECKPOINT_OVERWRITTEN_UNSYNCED", POWER, STATES, "power"),
    Bug("LEASE_NOT_SYNCED", POWER, STATES, "power"),
    Bug("RECOVERY_POINT_AFTER_SYNC", POWER, STATES, "power"),
    Bug("SEQUENCE_NOT_CHECKED", PRODUCER_TABLE, (), "producers"),
    Bug("EPOCH_NOT_CHECKED", PRODUCER_TABLE, (), "producers"),
    Bug("WINDOW_OF_ONE", PRODUCER_TABLE, (), "producers"),
    Bug("NAME_NOT_FENCED", PRODUCER_NAMES, (), "producers"),
    Bug("PRODUCERS_NOT_MARKED", PRODUCERS, (), "producers"),
    Bug("EPOCH_NOT_SYNCED", PRODUCER_NAMES, (), "producers"),
    Bug("MARKER_BEFORE_RECORD_SYNC", TRANSACTIONS, (), "transactions"),
    Bug("LSO_AFTER_TAIL", TRANSACTIONS, (), "transactions"),
    Bug("LATE_MARKER_HITS_NEXT", TRANSACTIONS, (), "transactions"),
    Bug("OFFSETS_WITHOUT_LEASE_CHECK", TRANSACTIONS, (), "transactions"),
    Bug("ABORT_NOT_INDEXED", TRANSACTIONS, (), "transactions"),
    Bug("COMMIT_FORGETS_A_PARTITION", TRANSACTIONS, (), "transactions"),
    Bug("TAKER_DOES_NOT_FINISH", TRANSACTIONS_RECOVERY, (), "transactions"),
    Bug("LSO_NOT_REPAIRED", TRANSACTIONS_RECOVERY, (), "transactions"),
    Bug("ZEROS_AT_A_PLACE", GROWTH, (), "growth"),
    Bug("ZEROS_LEFT_BEHIND_A_SEAL", GROWTH, (), "growth"),
]
