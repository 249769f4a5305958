"""Training sets: features joined to a spine, point in time, and made again bit for bit."""
