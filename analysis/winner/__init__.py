"""The winner in use: loading and checking it, predicting images, exporting it for programs without this project."""
