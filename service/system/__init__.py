"""The operating system: cores, memory, the cache, threads, and memory shared by processes."""
