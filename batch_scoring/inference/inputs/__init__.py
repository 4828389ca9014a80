"""From rows to the tensors of a forward pass."""
