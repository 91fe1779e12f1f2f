"""What the tests across components share: real processes, real servers, honest book-keeping."""
