"""Files: whatever holds a tensor, read and written; nothing is unpickled or evaluated."""
