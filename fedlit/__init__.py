"""fedlit: federated fine-tuning of foundation models for healthcare."""
