"""Find, read, check and write checkpoints: a folder, or a repository on the Hugging Face Hub.

A checkpoint is config.json + model.safetensors, with README.md as its card. Nothing here unpickles.
"""

from pawmatch.checkpoint.config import FORMAT_VERSION, CheckpointConfig
from pawmatch.checkpoint.folder import Checkpoint, save_checkpoint
from pawmatch.checkpoint.sources import find_variants, load_checkpoint, load_task, push

__all__ = [
    "FORMAT_VERSION",
    "Checkpoint",
    "CheckpointConfig",
    "find_variants",
    "load_checkpoint",
    "load_task",
    "push",
    "save_checkpoint",
]
