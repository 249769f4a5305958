"""Why a served value is what it is: facts of both stores, and one named cause."""
