"""Integrations, a module each; none is imported unless asked for."""
