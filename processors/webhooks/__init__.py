"""Events out by HTTP: where they may go, how they are signed and sent, and what becomes of an attempt. Pure parts
(targets, signing, verdicts) apart from those that wait (sending, deliverer)."""
