"""What is worked out of an event, and what is taken out of it, before it is stored."""
