"""The model of the golden home; the tests copy this folder to where models are."""
