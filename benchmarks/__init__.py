"""Measurements, one runnable module per question; each prints a table and one line of JSON."""
