"""Faults that somebody could put into our code, and the tests that must notice."""
