"""The round loop, who takes part in it, and what is settled before it."""
