"""The reading side of the online store: clients for Python, and the feature service on top."""
