"""Learning: a policy made from predictions and truth, or from the public skill's config."""
