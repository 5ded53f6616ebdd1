"""Ranked lists to numbers, for each user too."""
