"""What carries a supervisor's decisions out: the loop, the launcher and the control channel."""
