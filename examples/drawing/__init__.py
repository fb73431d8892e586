"""Procedural drawing used to make the example pictures."""
