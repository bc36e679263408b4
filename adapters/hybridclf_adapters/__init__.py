"""Adapters that give models of other libraries the ports of hybridclf: one module per library."""
