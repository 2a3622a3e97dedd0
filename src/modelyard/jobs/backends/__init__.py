"""One file a backend, each behind the protocol of `jobs/backend.py`."""
