"""Heads: what a model's outputs mean, one class for each task.

A head alone knows the columns of predictions of its task: how the outputs become scores, what is counted and checked of
them, and which of them drift, month and decisions look at. Start with `head.py`; `task.py` names all of them. How rows
become the network's inputs, and the forward pass itself, belong elsewhere.
"""
