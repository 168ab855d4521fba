"""What every test outside the binary shares: starting a server, talking to it, and real pictures."""
