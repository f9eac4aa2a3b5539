"""Foundation models by name, and LoRA on them."""

from fedlit.backbones.loading import Backbone, load_backbone, stand_in
from fedlit.backbones.lora import LoRA

__all__ = ["Backbone", "LoRA", "load_backbone", "stand_in"]
