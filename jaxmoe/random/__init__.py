"""Where random numbers come from: the key schedule, and threefry compiled fast."""
