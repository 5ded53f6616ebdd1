"""What people read of a board; each view is made from a `Board` alone."""
