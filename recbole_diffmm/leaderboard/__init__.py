"""From a YAML of models, datasets and seeds to records, and from records to tables, tests and pictures."""
