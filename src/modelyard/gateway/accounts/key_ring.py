"""The keys in a worker's memory: found by a token's digest, brought up to date when the store changes."""

from __future__ import annotations

from enum import StrEnum
from hashlib import sha256

from modelyard.gateway.accounts.key_store import KeyStore
from modelyard.gateway.accounts.keys import VirtualKey


class KeyProblem(StrEnum):
    """Why a token opens nothing."""

    UNKNOWN = "unknown"
    EXPIRED = "expired"
    REVOKED = "revoked"


class KeyRing:
    """A snapshot of a store's keys.

    A token is looked up by its digest, so that how long a look-up takes says nothing of how much of a token
    was guessed. Not for several threads.
    """

    def __init__(self, store: KeyStore) -> None:
        self._store = store
        self._version = -1
        self._keys: dict[bytes, VirtualKey] = {}
        self.refresh()

    def find(self, token: bytes, now_s: float) -> VirtualKey | KeyProblem:
        """The key of a token, or why there is none that counts (Unix seconds)."""
        key = self._keys.get(sha256(token).digest())
        if key is None:
            return KeyProblem.UNKNOWN
        if key.revoked_at_s is not None:
            return KeyProblem.REVOKED
        if key.expires_at_s is not None and now_s >= key.expires_at_s:
            return KeyProblem.EXPIRED
        return key

    def refresh(self) -> bool:
        """Read the keys again if they were changed since; whether they were. Microseconds if they were not.

        Raises:
            GatewayError: The store cannot be read; the keys stay as they were.
        """
        version = self._store.version()
        if version == self._version:
            return False
        self._keys = self._store.by_digest(self._keys)
        self._version = version
        return True

    def __len__(self) -> int:
        return len(self._keys)
