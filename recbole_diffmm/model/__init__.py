"""Models: one paper, one file, named like its class in lower case."""
