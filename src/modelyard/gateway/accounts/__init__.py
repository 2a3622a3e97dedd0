"""The accounts of a gateway: keys, their limits, the journal of requests, and what was used and spent."""
