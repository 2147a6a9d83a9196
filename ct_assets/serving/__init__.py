"""The HTTP app that serves champions."""
