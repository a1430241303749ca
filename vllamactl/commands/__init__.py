"""What each command does. None of them knows how its arguments were spelled."""
