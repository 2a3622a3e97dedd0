"""Whether an address may be asked, and how often one may ask again.

Both keep plain numbers and are told the time; nothing here knows what a request is.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from modelyard.gateway.config import Breaking


@dataclass(slots=True, kw_only=True)
class Breaker:
    """A circuit breaker (Nygard, Release It!, 2007): closed, open for a time, then tried by one request.

    It opens on `failures` one after the other, or as many within a window in which at least half of the
    answers failed. Each opening that follows on a failed trial lasts twice as long. A server that names a
    time (Retry-After) is left alone until then without being thought broken.
    """

    settings: Breaking
    _answers: int = 0
    _failures: int = 0
    # Since the last answer.
    _in_turn: int = 0
    _window_ends: float = 0.0
    _openings: int = 0
    _open_until: float = 0.0
    _resting_until: float = 0.0
    _trial: bool = field(default=False)

    def allows(self, now: float) -> bool:
        """Whether a request may be sent; of an opened address, one at a time when its time is over."""
        if now < self._resting_until:
            return False
        if not self._openings:
            return True
        return now >= self._open_until and not self._trial

    def begun(self) -> None:
        """A request is being sent."""
        if self._openings:
            self._trial = True

    def succeeded(self, now: float) -> None:
        """An answer came."""
        if self._openings:
            self._openings, self._trial, self._window_ends = 0, False, 0.0
        self._in_turn = 0
        self._count(now)

    def failed(self, now: float) -> None:
        """No answer came, or none that is one; what was under way at the opening lengthens it no more."""
        if self._openings:
            if self._trial:
                self._open(now)
            return
        self._count(now)
        self._failures += 1
        self._in_turn += 1
        most = self.settings.failures
        if self._in_turn >= most or (self._failures >= most and 2 * self._failures >= self._answers):
            self._open(now)

    def given_up(self) -> None:
        """Nobody waits for the answer any more: it tells nothing."""
        self._trial = False

    def rest(self, until: float) -> None:
        """Leave the address alone until then; it said so itself."""
        self._resting_until = max(self._resting_until, until)
        self._trial = False

    def returns_in(self, now: float) -> float:
        """Seconds until it may be asked again; 0 where it may."""
        return max(0.0, self._resting_until - now, (self._open_until - now) if self._openings else 0.0)

    def _count(self, now: float) -> None:
        if now >= self._window_ends:
            self._answers = self._failures = 0
            self._window_ends = now + self.settings.window_s
        self._answers += 1

    def _open(self, now: float) -> None:
        settings = self.settings
        self._open_until = now + min(settings.most_open_s, settings.open_s * 2.0 ** min(self._openings, 30))
        self._openings, self._trial = self._openings + 1, False


@dataclass(slots=True, kw_only=True)
class RetryBudget:
    """How many requests may be sent again in vain: a share of all, and some a second.

    Without it a pool that fails under load would be asked several times as much for it. It is Finagle's
    `RetryBudget`, but that a retry which was answered is given back: only those that fail are a storm.
    """

    share: float
    per_s: float
    # What may be saved up, in seconds of `per_s` and as much again from the share.
    saved_s: float = 20.0
    _balance: float = 0.0
    _filled_at: float = 0.0

    def deposit(self) -> None:
        """A request came."""
        self._balance = min(self._balance + self.share, self._most)

    def withdraw(self, now: float) -> bool:
        """Whether one may be sent again."""
        if not self._filled_at:
            self._balance = max(self._balance, self.per_s * self.saved_s)
        else:
            self._balance = min(self._balance + (now - self._filled_at) * self.per_s, self._most)
        self._filled_at = now
        if self._balance < 1.0:
            return False
        self._balance -= 1.0
        return True

    def give_back(self) -> None:
        """One that was sent again was answered."""
        self._balance = min(self._balance + 1.0, self._most)

    @property
    def _most(self) -> float:
        return 2.0 * self.per_s * self.saved_s + 1000.0 * self.share
