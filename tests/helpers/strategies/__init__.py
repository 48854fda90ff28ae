"""Inputs of every kind, drawn by hypothesis: for the tests, and for the fuzz programme."""
