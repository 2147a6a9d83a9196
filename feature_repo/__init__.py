"""The Feast repository: entities, views and services. It is imported by ct_assets, never the reverse."""
