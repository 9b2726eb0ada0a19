"""The files of a data set, in folders or tars: classes, parts, and listings."""
