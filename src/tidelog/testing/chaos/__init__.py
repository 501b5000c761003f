"""What happens to an application that is killed at every step of handling its messages?

Floor 8: may import app and every lower floor, and testing.lives, faults, effects, typed. `tidelog chaos` is the command
for it. Thread rule: each module says its own.

    inputs      which messages it gets
    life        what one of its processes does: it gets them, runs, is killed or comes to rest
    watching    how each step gets into the journal
    journal     what stands in it
    trials      one run from the first process to the rest, with a kill in it
    plan        where it is to be killed
    verdict     whether effects were lost or doubled
    story       the shortest way to see it
    experiment  all of them
"""

from __future__ import annotations

from tidelog.testing.chaos.experiment import Experiment, Outcome, Refused

__all__ = ["Experiment", "Outcome", "Refused"]
