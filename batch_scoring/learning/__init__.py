"""What is learned from training rows beside the weights, and the inputs of a network for any rows.

Start reading at `state.py`. `training.py` is the door to it; scoring reads bundles and never learns.
"""
