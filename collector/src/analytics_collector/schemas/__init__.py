"""Event schemas: what a project says the properties of its events are."""
