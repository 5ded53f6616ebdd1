"""The search for a model's best settings on validation, with a stated budget."""
