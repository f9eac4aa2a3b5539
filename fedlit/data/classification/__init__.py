"""Examples with a label: images, texts, sounds and signals."""
