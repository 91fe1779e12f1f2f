"""What follows the log of commits."""
