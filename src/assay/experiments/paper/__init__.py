"""Reports of claims: judged, written in two languages, and verified."""
