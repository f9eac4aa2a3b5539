"""Foundation models by name, and LoRA on them."""

from fedlit.backbones.encoders.loading import encoder_stand_in, load_encoder
from fedlit.backbones.loading import Backbone, load_backbone, stand_in
from fedlit.backbones.lora import LoRA

__all__ = ["Backbone", "LoRA", "encoder_stand_in", "load_backbone", "load_encoder", "stand_in"]
