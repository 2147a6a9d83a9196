"""The model of customers who buy again."""
