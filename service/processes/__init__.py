"""The supervisor, its workers, their messages, and changes of models while they run."""
