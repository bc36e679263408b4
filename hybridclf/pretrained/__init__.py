"""The embedded models, and the catalogue of what there is to choose from."""
