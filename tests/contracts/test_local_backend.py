"""The local backend keeps the contract of backends."""

from __future__ import annotations

import pytest

from modelyard.jobs.backends.local import LocalBackend
from modelyard.testing.backend_contract import BackendContract
from modelyard.testing.bench import contract_settings


class TestLocalBackend(BackendContract):
    """Local processes."""

    @pytest.fixture
    def settings(self, tmp_path):
        return contract_settings(tmp_path / "jobs")

    @pytest.fixture
    def reopen(self, settings):
        return lambda: LocalBackend(settings)

    @pytest.fixture
    def backend(self, reopen):
        return reopen()
