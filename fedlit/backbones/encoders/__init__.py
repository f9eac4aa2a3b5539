"""Pretrained encoders of images, texts, audio and signals, and how each is loaded."""
