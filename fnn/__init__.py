"""fnn: functional neural networks on JAX, with every backward pass written by hand."""
