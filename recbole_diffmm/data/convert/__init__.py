"""Converters to RecBole's atomic files, one module per source format."""
