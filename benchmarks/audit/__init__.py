"""What the audit of a day costs beside its materialization."""
