"""The operating system: cores, memory, caches, threads, and memory that processes share."""
