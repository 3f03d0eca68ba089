"""Planning: from a kind, its options and a shape to a plan; integers only."""
