"""What all rooms stand on: files, processes, precision, memory, progress."""
