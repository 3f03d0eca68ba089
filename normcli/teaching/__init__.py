"""Teaching: the trace of a calculation, the verdict on an answer, and two ways side by side."""
