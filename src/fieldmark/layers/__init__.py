"""The network: sketches, poolings, backbones and the model they make."""
