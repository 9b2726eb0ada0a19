"""Model files on the disk: the folder, the card, the checksum, and the inputs and outputs of their graphs."""
