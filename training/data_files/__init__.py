"""The files of a data set, in folders, archives or tables: classes, parts, and listings."""
