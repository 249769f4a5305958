"""The stores: Delta tables and files offline, Redis online."""
