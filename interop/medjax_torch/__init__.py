"""medkit.training's API over medjax: unmodified torch components, trained by JAX."""
