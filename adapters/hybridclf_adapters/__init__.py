"""Adapters of other libraries' models to the ports of hybridclf, one module per library."""
