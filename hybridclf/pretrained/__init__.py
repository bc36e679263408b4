"""Embedded models, and the catalogue of models and adapters."""
