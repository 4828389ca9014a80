"""Pods without Kubernetes: Jobs are rendered and strictly validated, and their containers run as local processes."""
