"""medkit.training's names over the loop of medjax: unmodified torch components train on JAX."""
