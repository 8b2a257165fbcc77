"""One scorer for every method: label log-likelihood, and generation with answer extraction."""
