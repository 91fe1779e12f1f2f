"""Redis: the fast copy of the log, for those who follow it."""
