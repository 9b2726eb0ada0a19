"""The supervisor, its workers, and the change of models while they run."""
