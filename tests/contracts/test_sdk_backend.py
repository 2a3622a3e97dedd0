"""The SDK backend keeps the contract of backends, over an SDK that really runs processes."""

from __future__ import annotations

import pytest

from modelyard.jobs.backends.sdk import SdkBackend, SdkOptions
from modelyard.testing.backend_contract import BackendContract
from modelyard.testing.bench import contract_settings
from modelyard.testing.process_sdk import ProcessSdk


class TestSdkBackend(BackendContract):
    """Somebody else's SDK."""

    @pytest.fixture
    def settings(self, tmp_path):
        return contract_settings(tmp_path / "jobs")

    @pytest.fixture
    def reopen(self, settings, tmp_path):
        options = SdkOptions(poll_s=0.02, settle_s=0.0)
        return lambda: SdkBackend(settings, ProcessSdk(tmp_path / "platform"), options=options)

    @pytest.fixture
    def backend(self, reopen):
        return reopen()
