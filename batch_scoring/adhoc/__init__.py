"""Files scored from a shell, without a day and without Dagster: `batch-scoring score`."""
