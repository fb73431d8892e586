"""Measuring a model on labelled images."""
