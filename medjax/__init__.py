"""Training of clinical NLP and audio models on JAX."""
