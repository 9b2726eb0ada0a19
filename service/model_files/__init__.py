"""Model files on the disk: the folder, the card, the checksum, and what their graphs take and give."""
