"""What requests cost, and how a run keeps within its limits. Pure: nothing here reads a file or the clock."""
