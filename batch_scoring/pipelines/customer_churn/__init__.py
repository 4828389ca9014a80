"""Customer churn: a synthetic customer table, scored daily by a plain MLP that came as a plain checkpoint."""
