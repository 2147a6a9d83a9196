"""The model of a household's load one day ahead."""
