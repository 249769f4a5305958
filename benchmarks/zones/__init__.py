"""How well shifts by a time zone are found: simulated feeds with and without one."""
