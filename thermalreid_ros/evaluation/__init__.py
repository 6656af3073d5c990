"""Metrics, benchmarks, and the pages and plots that show them."""
