"""What rules are built from: LoRA's factors, ranks that differ, overlap and signatures of adapters."""
