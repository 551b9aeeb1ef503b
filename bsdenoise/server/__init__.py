"""A local model server that speaks TF-Serving's API, for development and tests."""
