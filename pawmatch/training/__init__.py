"""Training: a recipe and a folder of images in, a checkpoint folder out."""
