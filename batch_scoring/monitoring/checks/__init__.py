"""The pure part of the asset checks: findings from a day's figures, without Dagster and without reading rows again."""
