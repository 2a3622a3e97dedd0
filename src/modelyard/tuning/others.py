"""The other drivers of a study, as one of them sees them: whose trial is whose, and who is still at work.

A driver lets itself be heard of in the study's storage. Of the drivers of this yard their locks tell more:
trials of one that has ended are taken over at once. Those of another yard's driver are left alone, because
its jobs cannot be seen from here, until a person gives them up.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from modelyard.tuning.drivers import BEAT_S, Drivers
from modelyard.tuning.study import Study
from modelyard.tuning.trial import Ended, Trial, TrialState


@dataclass(slots=True, kw_only=True)
class Others:
    """Those who work on the same study. To be used in one thread."""

    study: Study
    drivers: Drivers
    # This process among the drivers.
    driver: str
    # Monotonic seconds; 0: at once.
    _next_beat: float = field(default=0.0, init=False)

    def beat(self) -> None:
        """Let this driver be heard of, where it is time."""
        if time.monotonic() >= self._next_beat:
            self.study.beat(self.driver)
            self._next_beat = time.monotonic() + BEAT_S

    def owner(self, trial: Trial) -> str:
        """The driver that looks after a trial."""
        return str(self.study.attributes(trial.number).get("driver", ""))

    def is_near(self, trial: Trial) -> bool:
        """Whether a trial is of this yard."""
        return not self.drivers.is_foreign(self.owner(trial))

    def is_orphan(self, trial: Trial) -> bool:
        """Whether a running trial is of this driver, or of one of this yard that has ended."""
        owner = self.owner(trial)
        return owner == self.driver or self.drivers.is_gone(owner)

    def work(self, trials: Iterable[Trial]) -> bool:
        """Whether a driver that lives has one of these running trials."""
        owners = {self.owner(trial) for trial in trials}
        return any(self.drivers.lives(owner, self.study.silent_s(owner)) for owner in owners)

    def wait(self, given_up: Callable[[], bool], *, ended: int, poll_s: float) -> bool:
        """Wait while others have running trials; whether there is news: one has ended, or lost its driver.

        False where nothing more can come, or `given_up` says so.

        Args:
            given_up: Asked at every look.
            ended: How many trials had ended when the caller looked; more are news.
            poll_s: Seconds between two looks.
        """
        while not given_up():
            trials = self.study.trials()
            running = [trial for trial in trials if not trial.state.final]
            if len(trials) - len(running) != ended or any(map(self.is_orphan, running)):
                return True
            if not self.work(running):
                return False
            self.beat()
            time.sleep(poll_s)
        return False

    def abandon_foreign(self) -> None:
        """Record trials as failed whose drivers, of other yards, were not heard of for long."""
        for trial in self.study.trials():
            if trial.state.final or self.is_near(trial):
                continue
            owner = self.owner(trial)
            silent_s = self.study.silent_s(owner)
            if not self.drivers.lives(owner, silent_s):
                heard = "never heard of" if silent_s is None else f"last heard of {silent_s / 60:.0f} min ago"
                why = f"given up: its tuner in another yard ({owner}) was {heard}"
                self.study.tell(trial.number, Ended(state=TrialState.FAILED, why=why, cause="abandoned"))
