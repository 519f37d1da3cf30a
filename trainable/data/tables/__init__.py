"""The image table in any common layout: found, read, joined to the images, its labels interpreted."""
