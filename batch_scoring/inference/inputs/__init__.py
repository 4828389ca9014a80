"""From rows to the tensors of a forward pass: features made from columns, and their encoding.

Start reading at `transform.py`, then `encoder.py`. What the network does with the tensors is `scorer.py`'s.
"""
