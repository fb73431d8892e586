"""Find, read, check and write checkpoints: a folder, or a repository on the Hugging Face Hub.

A checkpoint is config.json + files of weights (.safetensors), with README.md as its card. It holds one or
several variants of a task. Nothing here unpickles.
"""

from pawmatch.checkpoint.config import Answers, CheckpointConfig, WeightsFile, main_variant
from pawmatch.checkpoint.folder import Checkpoint
from pawmatch.checkpoint.format import FORMAT_VERSION
from pawmatch.checkpoint.sources import load_checkpoint, load_task, push
from pawmatch.checkpoint.writing import save_again, save_checkpoint, save_task

__all__ = [
    "FORMAT_VERSION",
    "Answers",
    "Checkpoint",
    "CheckpointConfig",
    "WeightsFile",
    "load_checkpoint",
    "load_task",
    "main_variant",
    "push",
    "save_again",
    "save_checkpoint",
    "save_task",
]
