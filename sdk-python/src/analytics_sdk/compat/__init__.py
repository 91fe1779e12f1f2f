"""Stand-ins for other libraries, for programs that move here; see docs/migrating.md."""
