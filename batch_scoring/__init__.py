"""Batch scoring: from a trained PyTorch model and a table that arrives every day to scores that can be trusted."""
