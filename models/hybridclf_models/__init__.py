"""Embedded models of hybridclf that are too big for its wheel; `from_pretrained` finds them by name."""
