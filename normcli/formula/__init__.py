"""The formula: its language, the lines of the family, and what is read off them; it knows no plan and no arrays."""
