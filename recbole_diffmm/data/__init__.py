"""Files to aligned tensors: interactions, splits, and any number of item modalities."""
