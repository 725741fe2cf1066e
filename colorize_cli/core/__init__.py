"""What every part shares; imports nothing of ours."""
