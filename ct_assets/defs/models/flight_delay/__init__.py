"""The model of late arrivals."""
