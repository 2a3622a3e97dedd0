"""The ground floor: errors, faults, digests, files, the journal. It knows nothing of models or jobs."""
