"""What every bit of a result is: the rules, their scalars, their variants, and the norm."""
