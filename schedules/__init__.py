"""Schedules and sensors: what runs when nobody asks."""
