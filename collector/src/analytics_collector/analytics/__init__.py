"""Questions about stored events: what they mean, and how they are asked."""
