"""Pods without Kubernetes: Jobs are rendered and validated strictly, and their containers run as local processes."""
