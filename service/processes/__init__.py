"""Child processes: forking, the messages between them, and the supervisor's view of its workers."""
