"""The image table in any layout that people have: found, read, joined to the images, its labels understood."""
